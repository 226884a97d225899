"""Run independent jobs in worker processes with their own CPU threads and one copy of the images in shared memory.

The result of a job depends on its seed, the precision and the threads of its process, not on the number of jobs.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.reduction import ForkingPickler
from typing import Any, Protocol

import torch

from poolwise.errors import PoolwiseError, RequestError, RunFailure, WorkerDied, out_of_memory
from poolwise.process import threads_here
from poolwise.progress import Interrupted, Listener

Job = tuple[Any, ...]
_POLL_SECONDS = 0.2
_DIED = (
    "a worker process died (out of memory, or killed; a script that uses workers needs its main part under"
    " if __name__ == '__main__'): finished work is kept; continue with poolwise resume, or start again with fewer --workers"
)
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # constants of malloc.h


class Shareable(Protocol):
    """An object that jobs can use in worker processes, such as an Experiment."""

    def share(self, threads: int) -> Callable[[], Any]:
        """Return a picklable function that rebuilds this object in a worker process with ``threads`` CPU threads."""


class WorkerPool:
    """Context manager for worker processes that each hold a copy of one experiment.

    Args:
        experiment: The experiment, rebuilt in each process with images in shared memory.
        workers: Number of processes.
        threads: CPU threads of each process.
        state: Additional tensors and modules in shared memory for the jobs.

    A function given to ``submit`` must be importable by name. It is called as
    ``function(experiment, listener, state, *job)``.
    """

    def __init__(self, experiment: Shareable, workers: int, threads: int, state: Any = None):
        context = multiprocessing.get_context("spawn")
        # The parent reads both without a lock because a killed worker may still hold it.
        self._counter, self._stop = context.Value("q", 0), context.RawValue("b", 0)
        arguments = (experiment.share(threads), threads, self._counter, self._stop, state)
        self._executor = ProcessPoolExecutor(workers, context, _initialize, arguments)
        self._reported = 0

    def submit(self, function: Callable[..., Any], *job: Any) -> Future[Any]:
        """Submit one job to a worker."""
        return self._executor.submit(_call, function, job)

    def new_steps(self) -> int:
        """Return the number of steps that the workers have done since the last call."""
        total, before = self._counter.get_obj().value, self._reported
        self._reported = total
        return total - before

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._stop.value = 1
        self._executor.shutdown(wait=True, cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise RunFailure(_DIED) from None


def run_jobs(
    experiment: Shareable,
    function: Callable[..., Any],
    jobs: Sequence[Job],
    listener: Listener,
    workers: int,
    threads: int,
    state: Any = None,
) -> Iterator[tuple[Job, Any]]:
    """Run ``function(experiment, listener, state, *job)`` for each job, with at most ``workers`` in parallel.

    With one worker, jobs run in this process, in order, on ``threads`` CPU threads. A job whose worker dies is repeated
    once, by itself. If its worker dies again, its result is WorkerDied and the other jobs continue.

    Yields:
        Each job when it finishes, with its result or the PoolwiseError that it raised.

    Raises:
        Interrupted: The listener requests a stop.
        RunFailure: Workers died and no job has finished.
    """
    workers = min(workers, len(jobs))
    if workers > 1:
        make_pool = partial(WorkerPool, experiment, threads=threads, state=state)
        yield from _run_in_pools(make_pool, function, jobs, listener, workers)
        return
    for job in jobs:
        with threads_here(threads):
            try:
                result = function(experiment, listener, state, *job)
            except PoolwiseError as error:
                result = error
        yield job, result


def _run_in_pools(
    make_pool: Callable[..., WorkerPool],
    function: Callable[..., Any],
    jobs: Sequence[Job],
    listener: Listener,
    workers: int,
) -> Iterator[tuple[Job, Any]]:
    """Run jobs in a pool, and in a new one after a worker dies; repeat the jobs that were running one by one."""
    waiting, finished = deque(jobs), 0
    while waiting:
        suspects: list[Job] = []
        with make_pool(workers=min(workers, len(waiting))) as pool:
            for job, result in _run_in_pool(pool, function, waiting, listener, workers, suspects):
                finished += 1
                yield job, result
        died_twice: list[Job] = []
        for suspect in suspects:
            died: list[Job] = []  # a new list each time: a pool starts no job once this list has one
            with make_pool(workers=1) as pool:
                for job, result in _run_in_pool(pool, function, deque([suspect]), listener, 1, died):
                    finished += 1
                    yield job, result
            died_twice += died
        if died_twice and not finished:
            raise RunFailure(_DIED)
        for job in died_twice:
            yield job, WorkerDied(f"{_describe(job)}: its worker process died twice (out of memory, or killed)")


def _describe(job: Job) -> str:
    return ", ".join(str(part) for part in job if isinstance(part, (str, int)))[:80]


def _run_in_pool(
    pool: WorkerPool,
    function: Callable[..., Any],
    waiting: deque[Job],
    listener: Listener,
    workers: int,
    suspects: list[Job],
) -> Iterator[tuple[Job, Any]]:
    """Run jobs from ``waiting`` until none is left or a worker dies; add the jobs running then to ``suspects``."""
    running: dict[Future[Any], Job] = {}
    while waiting or running:
        try:
            while waiting and len(running) < workers and not suspects:
                running[pool.submit(function, *waiting[0])] = waiting[0]
                waiting.popleft()
        except BrokenProcessPool:
            if not running:  # a worker died between two jobs
                return
        done, _ = wait(running, _POLL_SECONDS, FIRST_COMPLETED)
        listener.advance(pool.new_steps())
        listener.check()
        for future in done:
            job = running.pop(future)
            try:
                yield job, future.result()
            except (BrokenProcessPool, WorkerDied):
                suspects.append(job)
            except PoolwiseError as error:
                yield job, error
        if suspects and not running:
            return


def check_sendable(value: Any, what: str) -> None:
    """Raise RequestError if a value (called ``what`` in the message) cannot be sent to another process."""
    try:
        ForkingPickler.dumps(value)  # the pickling used for workers; nothing is unpickled here
    except Exception as error:  # pickling can raise anything
        raise RequestError(
            f"the {what} cannot be sent to worker processes ({error}): define it at the top of a module, or use workers=1"
        ) from None


def keep_memory() -> None:
    """Make glibc keep freed memory of this process for the next step. Do nothing on other systems.

    Activations of a few MiB are freed and allocated again at every step. By default, glibc returns this memory to the
    system, which must map it again page by page (benchmarks/step.py measures the cost). Call this only in processes
    that do nothing but train: the command line and its workers.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


class _StepCounter(Listener):
    """Listener in a worker: counts steps for the parent process and stops when the parent requests it."""

    def __init__(self, counter: Any, stop: Any):
        self.counter, self.stop = counter, stop

    def advance(self, units: int = 1, **info: Any) -> None:
        with self.counter.get_lock():
            self.counter.value += units

    def check(self) -> None:
        if self.stop.value:
            raise Interrupted


def wait_for_others(listener: Listener, workers: int, seconds: float) -> None:
    """Count a step of this worker, then wait until all workers have counted one, or for at most ``seconds``."""
    assert isinstance(listener, _StepCounter), "only jobs of a WorkerPool can wait for each other"
    listener.advance()
    end = time.perf_counter() + seconds
    while listener.counter.value < workers and time.perf_counter() < end:
        time.sleep(0.001)


_context: list[Any] = []  # experiment, listener and state of this worker process


def _initialize(rebuild: Callable[[], Any], threads: int, counter: Any, stop: Any, state: Any) -> None:
    """Initialize a worker process."""
    for name in ("SIGINT", "SIGHUP"):  # sent to the whole process group; only the parent reacts
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_exit_with, args=(parent.pid,), daemon=True).start()
    keep_memory()
    torch.set_num_threads(threads)
    _context[:] = rebuild(), _StepCounter(counter, stop), state


def _exit_with(parent: int) -> None:
    """Exit when the parent process is gone, even during initialization, so that no orphan is left."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _call(function: Callable[..., Any], job: Job) -> Any:
    try:
        return function(*_context, *job)
    except (MemoryError, RuntimeError) as error:
        if out_of_memory(error):
            raise WorkerDied("out of memory") from None
        raise
