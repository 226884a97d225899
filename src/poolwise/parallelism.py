"""Numbers of processes and threads for each stage of a run."""

from __future__ import annotations

from dataclasses import replace

from poolwise.experiment import Experiment
from poolwise.spaces import LISTED
from poolwise.training import calibration
from poolwise.training.calibration import Parallel, cpu_threads

SMALL_RANKING_MACS = 2e12


def for_trainings(experiment: Experiment) -> Parallel:
    """Return the processes and threads for stand-alone trainings. Threads do not depend on the ``workers`` setting."""
    measured = experiment.parallel
    return _with_requested(experiment, measured.threads, measured.slowdown)


def for_search(experiment: Experiment) -> Parallel:
    """Return the processes and threads for a search, whose SuperNets train in parallel within a block of draws."""
    measured, supernets = experiment.parallel, experiment.config.search.parallel_supernets
    useful = min(measured.workers, supernets)
    gain = useful / measured.slowdown * calibration.share_of_use(supernets, experiment.block, useful)
    pays = experiment.block > 1 and gain > 1.05
    parallel = _with_requested(experiment, measured.threads if pays else cpu_threads(), measured.slowdown)
    return replace(parallel, workers=min(parallel.workers, supernets) if experiment.block > 1 else 1)


def for_ranking(experiment: Experiment) -> Parallel:
    """Return the processes and threads for ranking all configurations. A small ranking runs in this process."""
    small_space = experiment.space.size <= LISTED
    if small_space and experiment.cost.prefix_macs(experiment.space) * len(experiment.halves[1]) < SMALL_RANKING_MACS:
        return Parallel(1, experiment.config.hardware.threads or cpu_threads())
    return for_trainings(experiment)


def _with_requested(experiment: Experiment, threads: int, slowdown: float) -> Parallel:
    """Return the requested processes and threads; by default, ``threads`` threads in as many processes as fit."""
    threads = experiment.config.hardware.threads or threads
    requested = experiment.config.hardware.workers
    workers = requested if isinstance(requested, int) else max(cpu_threads() // threads, 1)
    return Parallel(workers, threads, slowdown)
