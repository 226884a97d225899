"""Estimated cost of each stage: steps, MACs, memory and, if steps were timed, seconds.

Each public function estimates one stage and returns its cost, followed by the costs of its parts, if it has any. Seconds are
``base + slope x MACs`` (``calibration.Timing``), averaged over the configurations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from poolwise import parallelism
from poolwise.experiment import Experiment
from poolwise.rankings.beam import MEMBERS_PER_NODE
from poolwise.spaces import LISTED, Pooling
from poolwise.supernets.budget import (
    mean_group_macs,
    measuring_macs,
    proxy_budget,
    proxy_macs,
    scored_share,
    search_steps,
    survey_bytes,
    survey_macs,
)
from poolwise.training import calibration
from poolwise.training.calibration import CREW_SECONDS, Timing

PROCESS_BYTES = 610 * 2**20  # a process with torch and its libraries loaded
WORKER_BYTES = 300 * 2**20  # each worker process, which shares the pages of the libraries
WORKING = {"float32": 2.1, "bfloat16": 1.0}  # peak of a training step / float32 activations (benchmarks/memory.py)
_SAMPLE = 2000  # maximum number of configurations for averages, evenly spaced in larger spaces

Trainings = Sequence[tuple[Pooling, int]]  # configurations to train stand-alone, each with its number of seeds


@dataclass(frozen=True)
class StageCost:
    """Estimated cost of a stage, or of a part of one.

    Attributes:
        name: Name of the stage or part.
        steps: Optimizer steps; for ranking, images.
        macs: MACs.
        seconds: Seconds; None if nothing was timed.
        memory_bytes: Peak memory in bytes.
        fixed_seconds: The part of ``seconds`` that does not grow with the steps; None if nothing was timed.
        label: Description for the user, if it differs from the name.
        unit: What ``steps`` counts: ``steps`` or ``images``.
        amount: What is done, for the user, if it is not ``steps`` of ``unit``.
        part_of: Name of the stage that this is a part of; empty for a stage.
        reason: Message on a choice that the cost follows from, if the request did not make it.
    """

    name: str
    steps: int
    macs: int
    seconds: float | None
    memory_bytes: int
    fixed_seconds: float | None
    label: str = ""
    unit: str = "steps"
    amount: str = ""
    part_of: str = ""
    reason: str | None = None

    def __post_init__(self) -> None:
        for name in ("seconds", "fixed_seconds"):
            if math.isnan(getattr(self, name) or 0.0):
                object.__setattr__(self, name, None)

    def to_json(self) -> dict[str, Any]:
        names = ("name", "steps", "macs", "seconds", "memory_bytes", "fixed_seconds", "label")
        return {name: getattr(self, name) for name in names}


# Estimates the cost of a stage; the trainings are None if they are not known yet.
Planner = Callable[[Experiment, Timing, Trainings | None], list[StageCost]]


def search(experiment: Experiment, timing: Timing, _known: Trainings | None = None) -> list[StageCost]:
    """Estimate a search and its proxy trainings."""
    config = experiment.config
    macs = _mean_macs(experiment)
    scored, grouped = scored_share(config), step_ratio(experiment)
    step = grouped * (timing.seconds("train", macs) + scored * timing.seconds("score", macs)) + timing.data
    parallel = parallelism.for_search(experiment)
    count = parallel.workers
    seconds, fixed = search_steps(experiment) * step, 0.0
    if count > 1:
        share = calibration.share_of_use(config.search.max_supernets, experiment.block, count)
        warm_up = config.search.warm_up  # only one worker trains during the warm-up
        seconds, fixed = seconds * parallel.slowdown * (warm_up + (1 - warm_up) / count / share), CREW_SECONDS
    batch = min(config.training.batch_size, len(experiment.halves[0]))
    parameters = experiment.cost(experiment.default).parameters
    # weights and momentum of all SuperNets; gradients of those in training
    weights = 8 * experiment.supernet_parameters * config.search.max_supernets + 4 * parameters * count
    memory = _memory(experiment, count, math.ceil(grouped * batch)) + weights + survey_bytes(experiment, config)
    measured = measuring_macs(experiment, config, search_steps(experiment), int(macs))
    surveyed = survey_macs(experiment, config)
    fixed += measured / (3 * batch * macs) * timing.seconds("train", macs) + surveyed * timing.rank
    cost = StageCost(
        "search",
        search_steps(experiment),
        int(search_steps(experiment) * batch * (3 + scored) * macs * grouped) + measured + surveyed,
        seconds + fixed,
        memory,
        fixed,
        reason=experiment.supernets_reason,
    )
    return [cost, *([_proxy_trainings(experiment, timing)] if proxy_budget(experiment).seeds else [])]


def step_ratio(experiment: Experiment) -> float:
    """Return the mean cost of a search step relative to that of a step at one configuration; above 1 for groups."""
    if experiment.config.search.group == 1:
        return 1.0
    return mean_group_macs(experiment, experiment.config) / _mean_macs(experiment)


def ranking(experiment: Experiment, timing: Timing, _known: Trainings | None = None) -> list[StageCost]:
    """Estimate the scoring of all configurations, on images of the scoring half."""
    config = experiment.config
    count = _ranked(experiment)
    poolings, images = _members(experiment, min(count, _SAMPLE)), len(experiment.halves[1])
    calibrated = len(experiment.calibration_batches or ())
    generator, macs = np.random.Generator(np.random.PCG64(0)), 0.0
    for nets in config.ranking_groups:  # each turn evaluates part of the images
        owner = generator.integers(nets, size=len(poolings))
        groups = [[p for p, m in zip(poolings, owner, strict=True) if m == net] for net in range(nets)]
        macs += sum(experiment.cost.prefix_macs(group) for group in groups if group) / config.ranking_turns
    macs *= count / len(poolings)
    parallel = parallelism.for_ranking(experiment)
    batches = experiment.ranking_batches()
    at_once = min(parallel.workers, batches.parts)
    each = macs * timing.rank  # seconds per image
    seconds = images * each
    if at_once > 1:
        seconds = seconds * parallel.slowdown / at_once + CREW_SECONDS
    seconds += calibrated * each  # in one process
    evaluated = min(batches.batch_size, images)
    largest = max(experiment.cost(p).activation_bytes for p in poolings)
    memory = _memory(experiment, at_once, 0) + at_once * evaluated * largest // 4
    images += calibrated
    amount = f"{count:,} configuration{'' if count == 1 else 's'} x {images:,} images"
    total = int(images * macs)
    return [StageCost("rank", images * count, total, seconds, memory, seconds, unit="images", amount=amount)]


def _proxy_trainings(experiment: Experiment, timing: Timing) -> StageCost:
    """Estimate the proxy trainings of all configurations, which are part of the search."""
    each, seeds = proxy_budget(experiment)
    macs, steps = _mean_macs(experiment), each * seeds * experiment.space.size
    parallel = parallelism.for_trainings(experiment)
    at_once = min(parallel.workers, seeds * experiment.space.size)
    seconds, fixed = steps * (timing.seconds("train", macs) + timing.data), 0.0
    if at_once > 1:
        seconds, fixed = seconds * parallel.slowdown / at_once, CREW_SECONDS
    batch = min(experiment.config.training.batch_size, len(experiment.halves[0]))
    memory = _memory(experiment, at_once, batch) + at_once * 12 * experiment.cost(experiment.default).parameters
    label = f"proxy training ({seeds} x {each} steps for each of {experiment.space.size} configurations)"
    return StageCost("short", steps, proxy_macs(experiment), seconds + fixed, memory, fixed, label, part_of="search")


def refinement(experiment: Experiment, timing: Timing, _known: Trainings | None = None) -> list[StageCost]:
    """Estimate stand-alone trainings on one half of the images, scored on the other."""
    trials, at_once = experiment.config.refine.trials, experiment.config.refine.at_once or experiment.parallel.workers
    return [_standalone("refine", experiment, timing, trials, _mean_macs(experiment), at_once, halved=True)]


def retraining(experiment: Experiment, timing: Timing, trainings: Trainings | None = None) -> list[StageCost]:
    """Estimate the trainings of the picks and the default."""
    return _on_all_images("retrain", experiment, timing, trainings)


def exhaustive(experiment: Experiment, timing: Timing, trainings: Trainings | None = None) -> list[StageCost]:
    """Estimate the trainings of an exhaustive run."""
    return _on_all_images("exhaustive", experiment, timing, trainings)


def search_bytes(experiment: Experiment) -> int:
    """Return the bytes on disk that a search leaves: weights and momentum, in two checkpoints."""
    return 16 * (experiment.config.search.supernets or 0) * experiment.supernet_parameters


def retraining_bytes(experiment: Experiment) -> int:
    """Return the bytes on disk of all retrained weights."""
    config, parameters = experiment.config.retrain, experiment.cost(experiment.default).parameters
    return 4 * (config.top + 3) * config.seeds * parameters


def _on_all_images(name: str, experiment: Experiment, timing: Timing, trainings: Trainings | None) -> list[StageCost]:
    """Estimate trainings on all images; by default, as many as picks can need, at the average cost."""
    if trainings is None:
        config = experiment.config.retrain
        count, macs = (config.top + 3) * config.seeds, _mean_macs(experiment)
    else:
        count = sum(seeds for _, seeds in trainings)
        macs = sum(experiment.cost(pooling).macs * seeds for pooling, seeds in trainings) / max(count, 1)
    return [_standalone(name, experiment, timing, count, macs, count)]


def _standalone(
    name: str, experiment: Experiment, timing: Timing, count: int, macs: float, requested: int, *, halved: bool = False
) -> StageCost:
    """Estimate ``count`` stand-alone trainings of ``macs`` MACs per image, of which ``requested`` may run at once."""
    config, steps = experiment.config, experiment.half_steps if halved else experiment.retrain_steps
    batch = min(config.training.batch_size, len(experiment.halves[0]) if halved else len(experiment.training_images))
    test = len(experiment.halves[1]) if halved else len(experiment.source.test)
    trained, tested = (
        steps * (timing.seconds("train", macs) + timing.data),
        test / batch * timing.seconds("score", macs),
    )
    parallel = parallelism.for_trainings(experiment)
    at_once = min(parallel.workers, count, requested)
    rounds = count if at_once == 1 else -(-count // at_once) * parallel.slowdown
    fixed = rounds * tested + (CREW_SECONDS if at_once > 1 else 0.0)
    weights = 12 * experiment.cost(experiment.default).parameters
    memory = _memory(experiment, at_once, batch) + at_once * weights
    total = int(count * (steps * batch * 3 + test) * macs)
    return StageCost(name, count * steps, total, rounds * trained + fixed, memory, fixed)


def _ranked(experiment: Experiment) -> int:
    """Return an upper bound on the number of configurations that ranking scores."""
    space, width = experiment.space, experiment.config.ranking.beam
    if width is not None:
        return min(space.size, space.poolings * width * space.layers * MEMBERS_PER_NODE + 1)
    return space.size if space.size <= LISTED else min(search_steps(experiment), LISTED) + 1


def _members(experiment: Experiment, most: int = _SAMPLE) -> list[Pooling]:
    """Return all configurations, or ``most`` evenly spaced ones of a larger space."""
    size = experiment.space.size
    if size <= most:
        return list(experiment.space)
    return [experiment.space[size * i // most] for i in range(most)]


def _mean_macs(experiment: Experiment) -> float:
    return float(np.mean([experiment.cost(pooling).macs for pooling in _members(experiment)]))


def _memory(experiment: Experiment, processes: int, batch: int) -> int:
    """Return bytes of processes, images and, per process, the activations of the most expensive training step."""
    largest = max(experiment.cost(pooling).activation_bytes for pooling in _members(experiment))
    images = experiment.source.train.held_bytes + experiment.source.test.held_bytes
    shared = images * (2 if processes > 1 else 1)
    extra = processes if processes > 1 else 0
    working = WORKING["bfloat16" if experiment.precision.dtype == "bfloat16" else "float32"]
    return PROCESS_BYTES + extra * WORKER_BYTES + shared + int(processes * batch * largest * working)
