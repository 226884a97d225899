"""Choose what a request leaves open: the number of SuperNets, the number format, processes and threads, and limits.

Choices follow from the request and the device. Settings are measured only for ``auto``, for at most
``calibration.allowed_seconds``; a latency limit, a plan or a time budget may take longer. A few steps are timed to
estimate how long a run takes, unless all choices are given.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from poolwise import constraints
from poolwise.config import AUTO, Config
from poolwise.constraints import Feasible
from poolwise.datasets.batches import Shuffled
from poolwise.datasets.sources import Source
from poolwise.experiment import Experiment, resolve
from poolwise.pipeline.costs import step_ratio
from poolwise.process import free_bytes, threads_here
from poolwise.progress import Listener
from poolwise.rng import Streams
from poolwise.supernets import samplers
from poolwise.supernets.budget import scored_share, search_steps
from poolwise.training import calibration, count_correct, sgd, train_step
from poolwise.training.calibration import Parallel, Timing, cpu_threads
from poolwise.training.workers import WorkerPool, wait_for_others

MOST_PROCESSES = 8  # default maximum; more processes cost much memory and save little time
FASTER = 1.5  # speedup of a training step when the number of threads doubles
WORTHWHILE_MACS = 2e13  # below this many MACs, starting more processes takes longer than it saves
_RANKED = 36  # maximum number of configurations for timing the ranking
_RANKED_MACS = 4e11  # about a second on 2 cores
_TIMED_STEPS = 6


def prepare(
    config: Config,
    source: Source | None = None,
    trainings: int | None = None,
    listener: Listener | None = None,
) -> tuple[Experiment, Feasible | None]:
    """Resolve a new request and make all choices. Return the experiment and what is within its limits, if it has any.

    Args:
        config: The request.
        source: A loaded data set (default: load the one that ``config`` names).
        trainings: Number of stand-alone trainings if the run has nothing else; None for a search and retraining.
        listener: Receives a message before slow measurements.

    Raises:
        RequestError: The request is wrong, or no configuration is within the limits.
    """
    config = samplers.settled(config)
    experiment = resolve(config, source, listener=listener)
    steps = search_steps(experiment)  # raises for an invalid length before anything is measured
    if trainings is None:
        experiment = choose_supernets(experiment)
        config = experiment.config
        count = (config.retrain.top + 3) * config.retrain.seeds
        # a scoring pass follows each search step unless it scores on the training batch
        searched = int(steps * step_ratio(experiment) * (3 + scored_share(config))) // 3
        total = count * experiment.retrain_steps + searched
    else:
        total = trainings * experiment.retrain_steps
    return constraints.limited(tune(experiment, total, listener))


def choose_supernets(experiment: Experiment) -> Experiment:
    """Set the number of SuperNets, and the reason for it, if the request does not set it."""
    if experiment.config.search.supernets is not None:
        return experiment
    most = max(free_bytes(experiment.device) // 4 // (12 * experiment.supernet_parameters), 1)
    steps, configurations = search_steps(experiment), experiment.space.size
    config, reason = samplers.left_open(experiment.config, steps, configurations, most)
    changes = {"supernets": config.search.supernets, "branching": config.search.branching}
    return experiment.with_settings(**changes).with_choices(supernets_reason=reason)


def tune(experiment: Experiment, steps: int, listener: Listener | None = None) -> Experiment:
    """Set the number format and the processes for a run of ``steps`` training steps.

    They follow from the device; ``auto`` measures them for at most ``calibration.allowed_seconds``.
    """
    config, listener = experiment.config, listener or Listener()
    if config.hardware.precision == AUTO:
        listener.note("measuring which number format is the fastest (--precision auto)")
        choice = _fastest_precision(experiment, steps)
        experiment = experiment.with_choices(precision=choice.precision, precision_seconds=choice.seconds)
    parallel = default_parallel(experiment, steps)
    if config.hardware.workers == AUTO and config.hardware.threads is None and experiment.device.type == "cpu":
        listener.note("measuring how many processes are the fastest (--workers auto)")
        parallel = _fastest_parallel(experiment, steps) or parallel
    return experiment.with_choices(parallel=parallel)


def default_parallel(experiment: Experiment, steps: int) -> Parallel:
    """Return the default processes and threads for ``steps`` stand-alone training steps, without measuring.

    Small networks scale poorly to many threads. Large workloads therefore run in up to MOST_PROCESSES processes that
    share the CPU evenly; small ones run in one process with all threads. The number of threads affects the last bits of
    results, so it depends only on the request and the number of cores, not on the load of the machine.
    """
    config, cores = experiment.config, cpu_threads()
    macs = 3.0 * steps * config.training.batch_size * experiment.cost(experiment.default).macs
    if experiment.device.type != "cpu" or config.hardware.threads or macs < WORTHWHILE_MACS:
        return Parallel(1, config.hardware.threads or cores)
    threads = -(-cores // MOST_PROCESSES)
    processes = max(cores // threads, 1)
    return Parallel(processes, threads, FASTER ** math.log2(cores / threads))


def training_batch(experiment: Experiment) -> tuple[Tensor, Tensor]:
    """Return images_BCHW and labels_B of one training batch, for measurements."""
    half = experiment.batches(experiment.training_images, experiment.config.training.batch_size, experiment.halves[0])
    images_BHWC, labels_B = half.take(np.arange(half.batch_size))
    return half.normalize(images_BHWC), labels_B


def _key(experiment: Experiment) -> dict[str, Any]:
    """Return what a measurement depends on besides the machine."""
    batch, size = min(experiment.config.training.batch_size, len(experiment.halves[0])), experiment.source.image_size
    return {
        "model": experiment.config.model.name,
        "width": experiment.width,
        "shape": [batch, 3, size, size],
        "classes": len(experiment.source.classes),
    }


def _fastest_precision(experiment: Experiment, steps: int) -> calibration.Choice:
    """Time real training steps of the default configuration in each number format."""
    build = partial(experiment.plain, experiment.default)
    return calibration.choose(build, *training_batch(experiment), _key(experiment), steps=steps)


def _fastest_parallel(experiment: Experiment, steps: int) -> Parallel | None:
    """Time processes that train in parallel. Return None if the run is too short for measuring."""
    step_seconds = _step_seconds(experiment)
    return calibration.parallel(
        partial(_side_by_side, experiment),
        step_seconds,
        cpu_threads(),
        {**_key(experiment), "precision": str(experiment.precision)},
        calibration.allowed_seconds(steps * step_seconds),
    )


def _side_by_side(experiment: Experiment, workers: int, threads: int) -> float:
    """Return the median seconds of a training step when ``workers`` processes train in parallel."""
    with WorkerPool(experiment, workers, threads) as pool:
        timings = [pool.submit(_time_parallel, workers) for _ in range(workers)]
        return float(np.median([timing.result() for timing in timings]))


def _time_parallel(experiment: Experiment, listener: Listener, _state: None, workers: int) -> float:
    """Return the median seconds of a step in this process, timed when all ``workers`` processes are warmed up."""
    return _step_seconds(experiment, partial(wait_for_others, listener, workers, seconds=20))


def _step_seconds(experiment: Experiment, warm: Callable[[], object] = lambda: None) -> float:
    """Return the median seconds of a few training steps of the default configuration; call ``warm`` after the first.

    Stop early when the steps have taken more than LEAST_SECONDS in total.
    """
    network = experiment.precision.place(experiment.plain(experiment.default), experiment.device)
    optimizer = sgd(network, 0.01, 0.9, 0.0)
    images_BCHW, labels_B = training_batch(experiment)
    seconds: list[float] = []
    while len(seconds) < _TIMED_STEPS and sum(seconds) < calibration.LEAST_SECONDS:
        if len(seconds) == 1:  # warmed up
            warm()
        started = time.perf_counter()
        float(train_step(network, optimizer, images_BCHW, labels_B, 0.01, experiment.precision))
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:] or seconds))


def quick_timing(experiment: Experiment) -> Timing | None:
    """Estimate the seconds of steps from a few training steps of the default configuration, in proportion to MACs.

    Return None without timing if number format, threads and workers are all set, so that such a run starts at once.
    """
    config = experiment.config
    if None not in (config.hardware.precision, config.hardware.threads, config.hardware.workers):
        return None
    macs, batch = experiment.cost(experiment.default).macs, min(config.training.batch_size, len(experiment.halves[0]))
    with threads_here(experiment.parallel.threads if experiment.parallel.workers == 1 else cpu_threads()):
        seconds = _step_seconds(experiment)
    forward = seconds / 3 / macs  # a training step costs three forward passes
    return Timing((0.0, seconds / macs), (0.0, forward), forward / batch, 0.0)


def timing(experiment: Experiment) -> Timing:
    """Time steps of the first, the default and the last configuration of the space, and part of a ranking.

    This takes seconds to a minute, once per machine and network. Only plans and time budgets use it.
    """
    images_BCHW, labels_B = training_batch(experiment)
    space, cost = experiment.space, experiment.cost
    members = sorted({space[0], experiment.default, space[space.size - 1]}, key=lambda pooling: cost(pooling).macs)
    networks = [(cost(pooling).macs, partial(experiment.plain, pooling)) for pooling in members]
    order = Streams(0).child("calibration")
    batches = experiment.batches(
        experiment.training_images, experiment.config.training.batch_size, experiment.halves[0]
    )
    training = Shuffled(batches, order["order"], (experiment.augmentation, order["augment"]))
    scoring = Shuffled(batches, order["score_order"])
    load = lambda: (training.next(), scoring.next())  # noqa: E731
    piece = _piece_of_ranking(experiment)
    return calibration.timing(networks, images_BCHW, labels_B, experiment.precision, load, piece, _key(experiment))


def _piece_of_ranking(experiment: Experiment) -> tuple[float, Callable[[], Callable[[], Any]]]:
    """Return the MACs of ranking some configurations on part of a batch, and a function that prepares this work."""
    size = experiment.space.size
    poolings = [experiment.space[size * i // min(size, _RANKED)] for i in range(min(size, _RANKED))]
    macs, half = experiment.cost.prefix_macs(poolings), experiment.halves[1]
    count = max(min(experiment.config.ranking.eval_batch_size, len(half), int(_RANKED_MACS / macs)), 2)

    def prepare() -> Callable[[], Any]:
        batches = experiment.batches(experiment.training_images, count, half)
        images_BHWC, labels_B = batches.take(np.arange(count))
        network = experiment.supernet("calibration", Streams(0))
        experiment.precision.place(network, experiment.device)
        images_BCHW = experiment.normalize(images_BHWC)
        return partial(count_correct, network, poolings, images_BCHW, labels_B, experiment.precision)

    return float(count * macs), prepare
