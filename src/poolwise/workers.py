"""Several independent jobs at once, each in a process with its own threads; the images lie in shared memory once.

A job's numbers depend on its seed, the precision and the threads of its process, never on how many run beside it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any

import torch

from poolwise.errors import PoolwiseError, RunFailure
from poolwise.images.sources import ImageSet, Source
from poolwise.problem import Problem
from poolwise.progress import Interrupted, Listener
from poolwise.settings import Settings

Job = tuple[Any, ...]
_POLL_SECONDS = 0.2


def each(
    problem: Problem, function: Callable[..., Any], jobs: Sequence[Job], listener: Listener, workers: int
) -> Iterator[tuple[Job, Any]]:
    """Yield (job, ``function(problem, listener, *job)``) as jobs end, with at most ``workers`` of them at work.

    A PoolwiseError of a job is yielded in place of its result. With one worker the jobs run here, in order. ``function``
    must be importable by name. Raises Interrupted where the listener is asked to stop, RunFailure where a process dies.
    """
    workers = min(workers, len(jobs))
    if workers > 1:
        yield from _in_processes(problem, function, jobs, listener, workers)
        return
    for job in jobs:
        try:
            with _threads(problem.threads):
                result = function(problem, listener, *job)
        except PoolwiseError as error:
            result = error
        yield job, result


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """As many CPU threads as were asked for, and as many as before afterwards."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


def _in_processes(
    problem: Problem, function: Callable[..., Any], jobs: Sequence[Job], listener: Listener, workers: int
) -> Iterator[tuple[Job, Any]]:
    context = multiprocessing.get_context("spawn")
    counter, stop = context.Value("q", 0), context.Event()
    settings = replace(problem.settings, precision=str(problem.precision), device=str(problem.device))
    start = (settings, problem.threads, _shared(problem.source), counter, stop)
    executor = ProcessPoolExecutor(workers, context, _begin, start)
    told = 0
    try:
        running: dict[Future[Any], Job] = {executor.submit(_job, function, job): job for job in jobs}
        while running:
            done, _ = wait(running, _POLL_SECONDS, FIRST_COMPLETED)
            if counter.value > told:
                listener.advance(counter.value - told)
                told = counter.value
            listener.check()
            for future in done:
                job = running.pop(future)
                try:
                    yield job, future.result()
                except PoolwiseError as error:
                    yield job, error
    except BrokenProcessPool:
        raise RunFailure(
            "a worker process died (out of memory, or killed; a script that uses workers needs its main part under"
            " if __name__ == '__main__'): what is finished is kept; go on with fewer --workers"
        ) from None
    finally:
        stop.set()
        executor.shutdown(wait=True, cancel_futures=True)


def _shared(source: Source) -> dict[str, Any]:
    """The source with its arrays as tensors in shared memory, which another process opens without a copy."""
    arrays = {
        name: torch.from_numpy(array.copy()).share_memory_()
        for name, array in (
            ("train_images", source.train.images),
            ("train_labels", source.train.labels),
            ("test_images", source.test.images),
            ("test_labels", source.test.labels),
        )
    }
    return {**arrays, "name": source.name, "classes": source.classes, "flip": source.flip, "note": source.note}


def _opened(shared: dict[str, Any]) -> Source:
    train, test = (
        ImageSet(shared[f"{part}_images"].numpy(), shared[f"{part}_labels"].numpy()) for part in ("train", "test")
    )
    return Source(shared["name"], train, test, shared["classes"], shared["flip"], shared["note"])


class _Counting(Listener):
    """Counts steps for the parent; stops where the parent says so."""

    def __init__(self, counter: Any, stop: Any):
        self.counter, self.stop = counter, stop

    def advance(self, units: int = 1, **info: Any) -> None:
        with self.counter.get_lock():
            self.counter.value += units

    def check(self) -> None:
        if self.stop.is_set():
            raise Interrupted


_here: dict[str, Any] = {}  # of this worker process: its problem and listener


def _begin(settings: Settings, threads: int, shared: dict[str, Any], counter: Any, stop: Any) -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(threads)
    _here.update(problem=Problem(settings, _opened(shared)), listener=_Counting(counter, stop))


def _end_with(parent: int) -> None:
    """Leave no orphan behind where the parent is killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _job(function: Callable[..., Any], job: Job) -> Any:
    return function(_here["problem"], _here["listener"], *job)
