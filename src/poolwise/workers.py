"""Several independent jobs at once, each in a process with its own threads; the images lie in shared memory once.

A job's numbers depend on its seed, the precision and the threads of its process, never on how many run beside it.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch

from poolwise import calibration
from poolwise.calibration import Parallel, cpu_threads
from poolwise.errors import PoolwiseError, RequestError, RunFailure, WorkerDied, out_of_memory
from poolwise.experiment import Experiment
from poolwise.images.augment import Normalise, named
from poolwise.images.packed import Packed
from poolwise.images.sources import ImageSet, Source
from poolwise.networks import others
from poolwise.networks.weights import Weights
from poolwise.process import threads_here
from poolwise.progress import Interrupted, Listener
from poolwise.settings import Settings
from poolwise.space import LISTED
from poolwise.training import sgd, train_step

Job = tuple[Any, ...]
_POLL_SECONDS = 0.2
_DIED = (
    "a worker process died (out of memory, or killed; a script that uses workers needs its main part under"
    " if __name__ == '__main__'): what is finished is kept; poolwise resume goes on, or begin with fewer --workers"
)
WORTHWHILE_SECONDS = 120.0  # runs shorter than this are not worth the measuring
_TIMED_STEPS = 6
SMALL_RANKING_MACS = 2e12
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of malloc.h


def measured(problem: Experiment, rough_seconds: float) -> Parallel:
    """How many processes of how many threads train most on this machine, measured where the work is worth it.

    Work of less than WORTHWHILE_SECONDS stays in one process, unless ``workers`` was asked for.
    """
    settings, alone = problem.settings, Parallel(1, problem.settings.threads or cpu_threads())
    worth = settings.workers is not None or rough_seconds >= WORTHWHILE_SECONDS
    if problem.device.type != "cpu" or settings.threads or not worth:
        return alone
    what = {
        "model": settings.model,
        "width": problem.width,
        "batch": settings.batch_size,
        "size": problem.source.image_size,
    }
    return calibration.parallel(
        partial(_together, problem),
        problem.timing.seconds("train", problem.cost(problem.default).macs),
        cpu_threads(),
        {**what, "precision": str(problem.precision)},
    )


def _together(problem: Experiment, count: int, threads: int) -> float:
    """Median seconds of a training step in each of ``count`` processes at work at once."""
    with Crew(problem, count, threads) as crew:
        return float(np.median([f.result() for f in [crew.submit(_time_steps, count) for _ in range(count)]]))


def _time_steps(problem: Experiment, listener: _Counting, _hold: None, count: int) -> float:
    network = problem.precision.place(problem.plain(problem.default), problem.device)
    optimizer = sgd(network, 0.01, 0.9, 0.0)
    images_BCHW, labels_B, _ = problem.calibration_batch()
    seconds = []
    for step in range(_TIMED_STEPS):
        if step == 1:  # kernels are prepared: wait for the others, a while
            listener.advance()
            patience = time.perf_counter() + 20
            while listener.counter.value < count and time.perf_counter() < patience:
                time.sleep(0.001)
        begin = time.perf_counter()
        train_step(network, optimizer, images_BCHW, labels_B, 0.01, problem.precision)
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds[1:]))


def for_trainings(problem: Experiment) -> Parallel:
    """Processes and threads for stand-alone trainings. Threads do not depend on how many workers were asked for."""
    found = problem.parallel
    return _settled(problem, found.threads, found.slowdown)


def for_search(problem: Experiment) -> Parallel:
    """Processes and threads for the SuperNets of a search, which work side by side within a block of draws."""
    found, supernets = problem.parallel, problem.settings.side_by_side
    useful = min(found.workers, supernets)
    gain = useful / found.slowdown * calibration.share_of_use(supernets, problem.block, useful)
    pays = problem.block > 1 and gain > 1.05
    settled = _settled(problem, found.threads if pays else cpu_threads(), found.slowdown)
    return replace(settled, workers=min(settled.workers, supernets) if problem.block > 1 else 1)


def for_ranking(problem: Experiment) -> Parallel:
    """Processes and threads for ranking all configurations; what is soon done stays in this process."""
    few = problem.space.size <= LISTED
    if few and problem.cost.prefix_macs(problem.space) * len(problem.halves[1]) < SMALL_RANKING_MACS:
        return Parallel(1, problem.settings.threads or cpu_threads())
    return for_trainings(problem)


def _settled(problem: Experiment, threads: int, slowdown: float) -> Parallel:
    """What was asked for, and for the rest as many processes as fill the machine."""
    threads = problem.settings.threads or threads
    return Parallel(problem.settings.workers or max(cpu_threads() // threads, 1), threads, slowdown)


class Crew:
    """Worker processes that hold one problem; a context manager.

    Args:
        problem: rebuilt in each process, its images opened from shared memory.
        count, threads: processes, and CPU threads of each.
        hold: further tensors and modules in shared memory that jobs work on.

    A function handed to ``submit`` must be importable by name; it is called as ``function(problem, listener, hold, *job)``.
    """

    def __init__(self, problem: Experiment, count: int, threads: int, hold: Any = None):
        context = multiprocessing.get_context("spawn")
        # the parent waits for no lock of these, which a worker that is killed may hold
        self._counter, self._stop = context.Value("q", 0), context.RawValue("b", 0)
        settings = replace(
            problem.settings, precision=str(problem.precision), device=str(problem.device), images=None, threads=threads
        )
        start = (settings, _shared(problem), self._counter, self._stop, hold)
        self._executor = ProcessPoolExecutor(count, context, _begin, start)
        self._told = 0

    def submit(self, function: Callable[..., Any], *job: Any) -> Future[Any]:
        return self._executor.submit(_call, function, job)

    def advanced(self) -> int:
        """Steps that the workers have told of since the last call."""
        now, before = self._counter.get_obj().value, self._told
        self._told = now
        return now - before

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._stop.value = 1
        self._executor.shutdown(wait=True, cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise RunFailure(_DIED) from None


def each(
    problem: Experiment,
    function: Callable[..., Any],
    jobs: Sequence[Job],
    listener: Listener,
    count: int,
    threads: int,
    hold: Any = None,
) -> Iterator[tuple[Job, Any]]:
    """Yield (job, ``function(problem, listener, hold, *job)``) as jobs end, with at most ``count`` of them at work.

    A PoolwiseError of a job is yielded in place of its result. With one worker the jobs run here, in order, on as many
    threads. A job whose process dies is repeated once, alone; where it dies again, WorkerDied is its result and the others go
    on. Raises Interrupted where the listener is asked to stop, RunFailure where processes die and no job has ended.
    """
    count = min(count, len(jobs))
    if count > 1:
        yield from _outliving(partial(Crew, problem, threads=threads, hold=hold), function, jobs, listener, count)
        return
    for job in jobs:
        with threads_here(threads):
            try:
                result = function(problem, listener, hold, *job)
            except PoolwiseError as error:
                result = error
        yield job, result


def _outliving(
    crew_of: Callable[..., Crew], function: Callable[..., Any], jobs: Sequence[Job], listener: Listener, count: int
) -> Iterator[tuple[Job, Any]]:
    """``each`` in crews, of which a new one is made where a worker dies. Who was at work then is repeated one by one."""
    waiting, ended = deque(jobs), 0
    while waiting:
        suspects: list[Job] = []
        with crew_of(count=min(count, len(waiting))) as crew:
            for job, result in _shared_out(crew, function, waiting, listener, count, suspects):
                ended += 1
                yield job, result
        dead = []
        for job in suspects:
            again: list[Job] = []
            with crew_of(count=1) as crew:
                for one, result in _shared_out(crew, function, deque([job]), listener, 1, again):
                    ended += 1
                    yield one, result
            dead += again
        if dead and not ended:
            raise RunFailure(_DIED)
        for job in dead:
            yield job, WorkerDied(f"{_named(job)}: its worker process died twice (out of memory, or killed)")


def _named(job: Job) -> str:
    return ", ".join(str(part) for part in job if isinstance(part, (str, int)))[:80]


def _shared_out(
    crew: Crew,
    function: Callable[..., Any],
    waiting: deque[Job],
    listener: Listener,
    count: int,
    suspects: list[Job],
) -> Iterator[tuple[Job, Any]]:
    """Take jobs from ``waiting`` until there are none, or a worker dies: those at work then are added to ``suspects``."""
    running: dict[Future[Any], Job] = {}
    while waiting or running:
        try:
            while waiting and len(running) < count and not suspects:
                running[crew.submit(function, *waiting[0])] = waiting[0]
                waiting.popleft()
        except BrokenProcessPool:
            if not running:  # it died between two jobs
                return
        done, _ = wait(running, _POLL_SECONDS, FIRST_COMPLETED)
        listener.advance(crew.advanced())
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


def keep_memory() -> None:
    """Let glibc keep freed memory for the next step, in this process; elsewhere this does nothing.

    Activations of a few MiB are freed and allocated again at every step. By default glibc gives them back to the system,
    which hands them out anew page by page; benchmarks/step.py measures what that costs. It is for processes that do
    nothing but train: the command line and its workers.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def _shared(problem: Experiment) -> dict[str, Any]:
    """The images in use as tensors in shared memory, which another process opens without a copy; those on disk stay there."""
    source, own = problem.in_use, others.given(problem.settings.model)
    transform = f"transform {named(source.augment)}" if source.augment else ""
    for what, value in ((transform, source.augment), (f"network {problem.settings.model}", own)):
        try:
            ForkingPickler.dumps(value)  # as it is sent to a worker; nothing here reads it
        except Exception as error:  # whatever its own reduction raises
            raise RequestError(
                f"the {what} cannot be handed to worker processes ({error}): define it at the top of a"
                " module, or use workers=1"
            ) from None
    parts, weights = {"train": source.train, "test": source.test}, problem.weights
    packed = weights.packed() if weights else torch.empty(0)
    held = sum(part.held_bytes + part.labels.nbytes for part in parts.values())
    _check_shared_memory(held + packed.numel())
    shared = {name: (_in_shared_memory(part.images), _in_shared_memory(part.labels)) for name, part in parts.items()}
    nothing = ImageSet(np.empty(0, np.uint8), np.empty(0, np.int64))
    return {
        **shared,
        "source": replace(source, train=nothing, test=nothing),
        "normalise": (problem.normalise.mean, problem.normalise.std),
        "own": own,
        "weights": weights and (replace(weights, tensors={}), packed),
    }


def _in_shared_memory(array: np.ndarray | Packed) -> Any:
    return array if isinstance(array, Packed) else torch.from_numpy(array.copy()).share_memory_()


def _check_shared_memory(needed: int) -> None:
    """RequestError where the system's shared memory (small in many containers) cannot hold the images."""
    if not os.path.isdir("/dev/shm"):
        return
    free = shutil.disk_usage("/dev/shm").free
    if needed > free:
        raise RequestError(
            f"worker processes share {needed >> 20} MiB of images and /dev/shm has {free >> 20} MiB free: use --workers 1,"
            " fewer --images, or give the container more shared memory (docker: --shm-size)"
        )


def _opened(shared: dict[str, Any]) -> Source:
    def opened(images: Any, labels: torch.Tensor) -> ImageSet:
        return ImageSet(images if isinstance(images, Packed) else images.numpy(), labels.numpy())

    return replace(shared["source"], train=opened(*shared["train"]), test=opened(*shared["test"]))


class _Counting(Listener):
    """Counts steps for the parent; stops where the parent says so."""

    def __init__(self, counter: Any, stop: Any):
        self.counter, self.stop = counter, stop

    def advance(self, units: int = 1, **info: Any) -> None:
        with self.counter.get_lock():
            self.counter.value += units

    def check(self) -> None:
        if self.stop.value:
            raise Interrupted


_here: list[Any] = []  # of this worker process: its problem, its listener and what it holds


def _begin(settings: Settings, shared: dict[str, Any], counter: Any, stop: Any, hold: Any) -> None:
    for name in ("SIGINT", "SIGHUP"):  # Ctrl-C and a closed terminal reach the whole group; the parent decides
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.pid,), daemon=True).start()
    keep_memory()
    torch.set_num_threads(settings.threads or 1)
    if shared["own"] is not None:
        others.backbone(settings.model.removeprefix(others.OWN), shared["own"])
    weights = shared["weights"] and Weights.opened(*shared["weights"])
    problem = Experiment(settings, _opened(shared), weights=weights)
    problem.normalise = Normalise(*shared["normalise"])  # so that no worker goes through all images
    _here[:] = problem, _Counting(counter, stop), hold


def _end_with(parent: int) -> None:
    """Leave no orphan behind where the parent is killed, be it before this process is ready."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _call(function: Callable[..., Any], job: Job) -> Any:
    try:
        return function(*_here, *job)
    except (MemoryError, RuntimeError) as error:
        if out_of_memory(error):
            raise WorkerDied("out of memory") from None
        raise
