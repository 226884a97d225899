"""Independent jobs at once, each in a worker process with its own CPU threads; the images lie in shared memory once.

The result of a job depends on its seed, the precision and the threads of its process, never on how many jobs run beside it.
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
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of malloc.h


class Shareable(Protocol):
    """What jobs work on, for example an Experiment."""

    def share(self, threads: int) -> Callable[[], Any]:
        """Return a picklable function that rebuilds this object in a worker process with so many CPU threads."""


class WorkerPool:
    """Worker processes that each hold one experiment; a context manager.

    Args:
        experiment: rebuilt in each process, with its images opened from shared memory.
        workers: number of processes.
        threads: CPU threads of each process.
        state: further tensors and modules in shared memory that jobs work on.

    A function given to ``submit`` must be importable by name. It is called as
    ``function(experiment, listener, state, *job)``.
    """

    def __init__(self, experiment: Shareable, workers: int, threads: int, state: Any = None):
        context = multiprocessing.get_context("spawn")
        # The parent reads both without a lock: a worker that is killed may hold it.
        self._counter, self._stop = context.Value("q", 0), context.RawValue("b", 0)
        arguments = (experiment.share(threads), threads, self._counter, self._stop, state)
        self._executor = ProcessPoolExecutor(workers, context, _initialize, arguments)
        self._reported = 0

    def submit(self, function: Callable[..., Any], *job: Any) -> Future[Any]:
        """Run one job in a worker."""
        return self._executor.submit(_call, function, job)

    def new_steps(self) -> int:
        """Return the number of steps that workers have finished since the last call."""
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
    """Yield (job, ``function(experiment, listener, state, *job)``) as jobs finish, with at most ``workers`` running.

    With one worker, jobs run in this process, in order, on ``threads`` CPU threads. A job whose worker dies is repeated once,
    alone; if it dies again, its result is WorkerDied and the other jobs continue.

    Yields:
        Each job with its result, or with the PoolwiseError that it raised.

    Raises:
        Interrupted: the listener asks to stop.
        RunFailure: workers die and no job has finished.
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
    """Run jobs in a pool, and in a new one whenever a worker dies; jobs that ran then are repeated one by one."""
    waiting, finished = deque(jobs), 0
    while waiting:
        suspects: list[Job] = []
        with make_pool(workers=min(workers, len(waiting))) as pool:
            for job, result in _run_in_pool(pool, function, waiting, listener, workers, suspects):
                finished += 1
                yield job, result
        died_twice: list[Job] = []
        for suspect in suspects:
            died: list[Job] = []  # a new list each time: a pool takes no job while it holds one
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
    """Run jobs from ``waiting`` until none is left or a worker dies; add the jobs that ran then to ``suspects``."""
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
    """Raise RequestError if a value, called ``what`` in the message, cannot be sent to another process."""
    try:
        ForkingPickler.dumps(value)  # as it is sent to a worker; nothing is unpickled here
    except Exception as error:  # whatever the reduction of the object raises
        raise RequestError(
            f"the {what} cannot be sent to worker processes ({error}): define it at the top of a module, or use workers=1"
        ) from None


def keep_memory() -> None:
    """Make glibc keep freed memory of this process for the next step; do nothing on other systems.

    Activations of a few MiB are freed and allocated again at every step. By default glibc returns them to the system, which
    maps them again page by page; benchmarks/step.py measures what that costs. Call it only in processes that do nothing but
    train: the command line and its workers.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


class _StepCounter(Listener):
    """The listener of a worker: counts steps for the parent and stops when the parent says so."""

    def __init__(self, counter: Any, stop: Any):
        self.counter, self.stop = counter, stop

    def advance(self, units: int = 1, **info: Any) -> None:
        with self.counter.get_lock():
            self.counter.value += units

    def check(self) -> None:
        if self.stop.value:
            raise Interrupted


def wait_for_others(listener: Listener, workers: int, seconds: float) -> None:
    """Count a step of this worker, then wait until so many have been counted in all workers, or until time is up."""
    assert isinstance(listener, _StepCounter), "only jobs of a WorkerPool can wait for each other"
    listener.advance()
    end = time.perf_counter() + seconds
    while listener.counter.value < workers and time.perf_counter() < end:
        time.sleep(0.001)


_context: list[Any] = []  # of this worker process: its experiment, listener and state


def _initialize(rebuild: Callable[[], Any], threads: int, counter: Any, stop: Any, state: Any) -> None:
    """Prepare a worker process."""
    for name in ("SIGINT", "SIGHUP"):  # Ctrl-C and a closed terminal reach the whole group; the parent decides
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_exit_with, args=(parent.pid,), daemon=True).start()
    keep_memory()
    torch.set_num_threads(threads)
    _context[:] = rebuild(), _StepCounter(counter, stop), state


def _exit_with(parent: int) -> None:
    """Exit when the parent is gone, so that a killed parent leaves no orphan, even before this process is ready."""
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
