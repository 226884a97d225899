"""What belongs to the whole process and is changed for a while: two searches in two threads do not meet there.

torch's number of CPU threads, the global random generators, and cuDNN's choice of kernels.
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
    """The Python thread that is inside computes on ``count`` CPU threads; all others on as many as before."""
    before = torch.get_num_threads()
    _set_threads(count)
    try:
        yield
    finally:
        _set_threads(before)


def _set_threads(count: int) -> None:
    """``torch.set_num_threads`` for this thread alone.

    Each thread has its own number, but the one that was set last, by any of them, is what threads begin with that have
    not worked with torch yet. That one is put back, from such a thread, since setting it here would set ours as well.
    """
    if count == torch.get_num_threads():
        return
    with _threads:
        others = _in_a_fresh_thread(torch.get_num_threads)
        torch.set_num_threads(count)
        _in_a_fresh_thread(lambda: torch.set_num_threads(others))


def _in_a_fresh_thread(do: Callable[[], _T]) -> _T:
    found: list[_T] = []
    thread = threading.Thread(target=lambda: found.append(do()))
    thread.start()
    thread.join()
    return found[0]


@contextmanager
def generators_kept() -> Iterator[None]:
    """For what draws from the global generators of torch (CPU), numpy and Python: one thread at a time, and put back."""
    with _generators:
        ours, theirs = np.random.get_state(), random.getstate()
        with torch.random.fork_rng(devices=[]):
            try:
                yield
            finally:
                np.random.set_state(ours)
                random.setstate(theirs)


def seed_global(seed: int) -> None:
    """Put the global generators on a seed; within ``generators_kept`` only."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def cudnn_kernels(allow_tf32: bool) -> Iterator[None]:
    """On CUDA: the same kernels each time, and TF32 only where it was asked for; one thread at a time."""
    with _kernels, torch.backends.cudnn.flags(deterministic=True, benchmark=False, allow_tf32=allow_tf32):
        yield


def free_bytes(device: torch.device) -> int:
    """Return the bytes of memory that are free on the device, or in the system where it has none of its own."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
