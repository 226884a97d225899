"""Temporary changes to process-wide state, safe for several Python threads.

These are the number of CPU threads of torch, the global random generators, and the cuDNN flags.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import psutil
import torch

_threads = threading.Lock()
_generators = threading.RLock()
_kernels = threading.RLock()
_T = TypeVar("_T")


@contextmanager
def threads_here(count: int) -> Iterator[None]:
    """Context manager: the current Python thread computes on ``count`` CPU threads; others are not affected."""
    before = torch.get_num_threads()
    _set_threads(count)
    try:
        yield
    finally:
        _set_threads(before)


def _set_threads(count: int) -> None:
    """Call ``torch.set_num_threads`` for this thread only.

    Each thread has its own number, but the last one set by any thread is the default of threads that have not used
    torch yet. This default is restored from a fresh thread, because setting it here would change this thread.
    """
    if count == torch.get_num_threads():
        return
    with _threads:
        others = _in_a_fresh_thread(torch.get_num_threads)
        torch.set_num_threads(count)
        _in_a_fresh_thread(lambda: torch.set_num_threads(others))


def _in_a_fresh_thread(function: Callable[[], _T]) -> _T:
    results: list[_T] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


@contextmanager
def generators_kept() -> Iterator[None]:
    """Context manager that locks the global generators of torch (CPU), NumPy and Python and restores their states."""
    with _generators:
        numpy_state, python_state = np.random.get_state(), random.getstate()
        with torch.random.fork_rng(devices=[]):
            try:
                yield
            finally:
                np.random.set_state(numpy_state)
                random.setstate(python_state)


def seed_global(seed: int) -> None:
    """Seed the global generators. Call only within ``generators_kept``."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def cudnn_kernels(allow_tf32: bool) -> Iterator[None]:
    """Context manager: deterministic cuDNN kernels, with TF32 only if allowed. One thread at a time can hold it."""
    with _kernels, torch.backends.cudnn.flags(deterministic=True, benchmark=False, allow_tf32=allow_tf32):
        yield


def free_bytes(device: torch.device) -> int:
    """Return the free bytes of memory on a CUDA device, or of the system for other devices."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
