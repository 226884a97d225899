"""How many processes with how many threads each stage of a run gets."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import numpy as np

from poolwise import calibration
from poolwise.calibration import Parallel, cpu_threads
from poolwise.experiment import Experiment
from poolwise.progress import Listener
from poolwise.space import LISTED
from poolwise.training import sgd, train_step
from poolwise.training.workers import WorkerPool, wait_for_others

WORTHWHILE_SECONDS = 120.0  # shorter runs are not measured
SMALL_RANKING_MACS = 2e12
_TIMED_STEPS = 6


def measured(experiment: Experiment, rough_seconds: float) -> Parallel:
    """Measure how many processes with how many threads train the most steps per second on this machine.

    Work of less than WORTHWHILE_SECONDS stays in one process without a measurement, unless ``workers`` is set.
    """
    settings, one_process = experiment.settings, Parallel(1, experiment.settings.threads or cpu_threads())
    worthwhile = settings.workers is not None or rough_seconds >= WORTHWHILE_SECONDS
    if experiment.device.type != "cpu" or settings.threads or not worthwhile:
        return one_process
    key = {
        "model": settings.model,
        "width": experiment.width,
        "batch": settings.batch_size,
        "size": experiment.source.image_size,
    }
    return calibration.parallel(
        partial(_seconds_per_step, experiment),
        experiment.timing.seconds("train", experiment.cost(experiment.default).macs),
        cpu_threads(),
        {**key, "precision": str(experiment.precision)},
    )


def _seconds_per_step(experiment: Experiment, workers: int, threads: int) -> float:
    """Return the median seconds of a training step in each of ``workers`` processes that train at once."""
    with WorkerPool(experiment, workers, threads) as pool:
        timings = [pool.submit(_time_steps, workers) for _ in range(workers)]
        return float(np.median([timing.result() for timing in timings]))


def _time_steps(experiment: Experiment, listener: Listener, _state: None, workers: int) -> float:
    network = experiment.precision.place(experiment.plain(experiment.default), experiment.device)
    optimizer = sgd(network, 0.01, 0.9, 0.0)
    images_BCHW, labels_B, _ = experiment.calibration_batch()
    seconds = []
    for step in range(_TIMED_STEPS):
        if step == 1:  # kernels are prepared: give the other processes some time to get here
            wait_for_others(listener, workers, seconds=20)
        begin = time.perf_counter()
        train_step(network, optimizer, images_BCHW, labels_B, 0.01, experiment.precision)
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds[1:]))


def for_trainings(experiment: Experiment) -> Parallel:
    """Return the processes and threads for stand-alone trainings. Threads do not depend on ``Settings.workers``."""
    measured = experiment.parallel
    return _with_requested(experiment, measured.threads, measured.slowdown)


def for_search(experiment: Experiment) -> Parallel:
    """Return the processes and threads for a search, whose SuperNets train side by side within a block of draws."""
    measured, supernets = experiment.parallel, experiment.settings.side_by_side
    useful = min(measured.workers, supernets)
    gain = useful / measured.slowdown * calibration.share_of_use(supernets, experiment.block, useful)
    pays = experiment.block > 1 and gain > 1.05
    parallel = _with_requested(experiment, measured.threads if pays else cpu_threads(), measured.slowdown)
    return replace(parallel, workers=min(parallel.workers, supernets) if experiment.block > 1 else 1)


def for_ranking(experiment: Experiment) -> Parallel:
    """Return the processes and threads for ranking all configurations; a small ranking stays in this process."""
    small_space = experiment.space.size <= LISTED
    if small_space and experiment.cost.prefix_macs(experiment.space) * len(experiment.halves[1]) < SMALL_RANKING_MACS:
        return Parallel(1, experiment.settings.threads or cpu_threads())
    return for_trainings(experiment)


def _with_requested(experiment: Experiment, threads: int, slowdown: float) -> Parallel:
    """Return what the settings request, and otherwise these threads and as many processes as fill the machine."""
    threads = experiment.settings.threads or threads
    return Parallel(experiment.settings.workers or max(cpu_threads() // threads, 1), threads, slowdown)
