"""Estimate the cost of a run before it starts, and fit a config to a time budget.

Steps, MACs, memory and disk space are computed. Seconds are known only if steps were timed: they are
``base + slope x MACs`` (``calibration.Timing``), averaged over the configurations.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from poolwise import parallelism
from poolwise.config import Config
from poolwise.datasets.sources import Source
from poolwise.errors import RequestError
from poolwise.experiment import Experiment
from poolwise.pipeline import autotuning
from poolwise.process import free_bytes
from poolwise.progress import time_words
from poolwise.rankings.beam import MEMBERS_PER_NODE
from poolwise.spaces import LISTED, Pooling
from poolwise.supernets.budget import measuring_macs, proxy_budget, proxy_macs, search_steps, total_steps
from poolwise.supernets.samplers.base import STEPS_PER_SUPERNET
from poolwise.training import calibration
from poolwise.training.calibration import CREW_SECONDS, Timing

PROCESS_BYTES = 610 * 2**20  # a process with torch and its libraries loaded
WORKER_BYTES = 300 * 2**20  # each worker process, which shares the pages of the libraries
WORKING = {"float32": 2.1, "bfloat16": 1.0}  # peak of a training step / float32 activations (benchmarks/memory.py)
_SAMPLE = 2000  # maximum number of configurations for averages, evenly spaced in larger spaces
_UNTIMED = Timing((math.nan, math.nan), (math.nan, math.nan), math.nan, math.nan)  # makes all seconds NaN


@dataclass(frozen=True)
class Stage:
    """Estimated cost of one stage.

    Attributes:
        name: Name of the stage.
        steps: Optimizer steps; for ranking, images.
        macs: MACs.
        seconds: Seconds; None if nothing was timed.
        memory_bytes: Peak memory in bytes.
        fixed_seconds: The part of ``seconds`` that does not grow with the steps; None if nothing was timed.
        label: Description for the user, if it differs from the name.
    """

    name: str
    steps: int
    macs: int
    seconds: float | None
    memory_bytes: int
    fixed_seconds: float | None
    label: str = ""

    def __post_init__(self) -> None:
        for name in ("seconds", "fixed_seconds"):
            if math.isnan(getattr(self, name) or 0.0):
                object.__setattr__(self, name, None)


@dataclass(frozen=True)
class Plan:
    """Estimated cost of a run.

    Attributes:
        stages: The stages in order.
        disk_bytes: Final size of the run folder.
        precision: Number format and memory order.
        parallel: Processes and threads, in words.
        streamed_bytes: Size of the images streamed from the cache.
        supernets: Number of SuperNets and the reason, if the request did not set it.
        timing: Measurements behind the seconds, if any.
    """

    stages: tuple[Stage, ...]
    disk_bytes: int
    precision: str
    parallel: str
    streamed_bytes: int = 0
    supernets: str | None = None
    timing: Timing | None = None

    @property
    def seconds(self) -> float | None:
        """Total seconds of all stages; None if nothing was timed."""
        known = [stage.seconds for stage in self.stages if stage.seconds is not None]
        return sum(known) if len(known) == len(self.stages) else None

    @property
    def memory_bytes(self) -> int:
        return max(stage.memory_bytes for stage in self.stages)

    def of(self, name: str) -> float | None:
        """Return the seconds of one stage; None if it is not planned or nothing was timed."""
        return next((stage.seconds for stage in self.stages if stage.name == name), None)

    def to_json(self) -> dict[str, Any]:
        value = {**asdict(self), "seconds": self.seconds, "memory_bytes": self.memory_bytes}
        del value["timing"]
        return value

    def lines(self) -> list[str]:
        """Return the plan as lines of text."""
        costs = [
            f"{s.label or s.name}: {s.steps} {'images' if s.name == 'rank' else 'steps'}, {s.macs:.2e} MACs"
            + ("" if s.seconds is None else f", about {time_words(s.seconds)}")
            for s in self.stages
        ]
        memory, disk = f"{self.memory_bytes / 2**30:.1f} GiB of memory", f"{_size(self.disk_bytes)} on disk"
        if self.streamed_bytes:
            disk += f" and {_size(self.streamed_bytes)} of images in the cache"
        needs = f"{memory}, {disk}"
        if self.seconds is not None:
            needs = f"about {time_words(self.seconds)}, {needs}"
        reason = [self.supernets] if self.supernets and any(s.name == "search" for s in self.stages) else []
        return [*reason, *costs, f"total: {needs}; {self.precision}, {self.parallel}"]


def plan(
    experiment: Experiment,
    stages: Sequence[str],
    trainings: Sequence[tuple[Pooling, int]] | None = None,
    timing: Timing | None = None,
) -> Plan:
    """Estimate the cost of stages.

    Args:
        experiment: The experiment, with the precision and processes that the run will use.
        stages: Names of stages: ``search``, ``rank``, ``refine``, ``retrain``, ``exhaustive``.
        trainings: Configurations to train stand-alone, each with its number of seeds, if known. By default, the number
            follows from the config, at the average cost.
        timing: Seconds of steps on this machine (``autotuning.timing`` or ``quick_timing``), needed for seconds.
    """
    makers = {"search": _search, "rank": _rank}
    planned, seconds_of = [], timing or _UNTIMED
    for name in stages:
        if name in makers:
            planned.append(makers[name](experiment, seconds_of))
            if name == "search" and proxy_budget(experiment).seeds:
                planned.append(_proxy_trainings(experiment, seconds_of))
        elif name in ("refine", "retrain", "exhaustive"):
            planned.append(_trainings(experiment, name, trainings, seconds_of))
    config, parameters = experiment.config, experiment.cost(experiment.default).parameters
    kept = {
        "search": 16 * (config.search.supernets or 0) * experiment.supernet_parameters,
        "retrain": 4 * (config.retrain.top + 3) * config.retrain.seeds * parameters,
    }
    disk = sum(kept.get(stage.name, 0) for stage in planned) + 2**20
    parallel = _parallel_words(experiment, stages)
    streamed, reason = experiment.source.cached_bytes, experiment.supernets_reason
    return Plan(tuple(planned), disk, str(experiment.precision), parallel, streamed, reason, timing)


def _search(experiment: Experiment, timing: Timing) -> Stage:
    config = experiment.config
    macs = _mean_macs(experiment)
    step = timing.seconds("train", macs) + timing.seconds("score", macs) + timing.data
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
    memory = _memory(experiment, count, batch) + weights
    measured = measuring_macs(experiment, config, search_steps(experiment), int(macs))
    fixed += measured / (3 * batch * macs) * timing.seconds("train", macs)
    return Stage(
        "search",
        search_steps(experiment),
        int(search_steps(experiment) * batch * 4 * macs) + measured,
        seconds + fixed,
        memory,
        fixed,
    )


def _rank(experiment: Experiment, timing: Timing) -> Stage:
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
    return Stage("rank", images * count, int(images * macs), seconds, memory, seconds)


def _proxy_trainings(experiment: Experiment, timing: Timing) -> Stage:
    """Estimate the proxy trainings of all configurations, which are part of the search."""
    length, seeds = proxy_budget(experiment)
    macs, steps = _mean_macs(experiment), length * seeds * experiment.space.size
    parallel = parallelism.for_trainings(experiment)
    at_once = min(parallel.workers, seeds * experiment.space.size)
    seconds, fixed = steps * (timing.seconds("train", macs) + timing.data), 0.0
    if at_once > 1:
        seconds, fixed = seconds * parallel.slowdown / at_once, CREW_SECONDS
    batch = min(experiment.config.training.batch_size, len(experiment.halves[0]))
    memory = _memory(experiment, at_once, batch) + at_once * 12 * experiment.cost(experiment.default).parameters
    label = f"proxy training ({seeds} x {length} steps for each of {experiment.space.size} configurations)"
    return Stage("short", steps, proxy_macs(experiment), seconds + fixed, memory, fixed, label)


def _trainings(
    experiment: Experiment, name: str, trainings: Sequence[tuple[Pooling, int]] | None, timing: Timing
) -> Stage:
    config, halved = experiment.config, name == "refine"
    steps = experiment.half_steps if halved else experiment.retrain_steps
    if halved:
        count, macs = config.refine.trials, _mean_macs(experiment)
    elif trainings is None:
        count, macs = (config.retrain.top + 3) * config.retrain.seeds, _mean_macs(experiment)
    else:
        count = sum(seeds for _, seeds in trainings)
        macs = sum(experiment.cost(pooling).macs * seeds for pooling, seeds in trainings) / max(count, 1)
    batch = min(config.training.batch_size, len(experiment.halves[0]) if halved else len(experiment.training_images))
    test = len(experiment.halves[1]) if halved else len(experiment.source.test)
    trained, tested = (
        steps * (timing.seconds("train", macs) + timing.data),
        test / batch * timing.seconds("score", macs),
    )
    parallel = parallelism.for_trainings(experiment)
    requested = (config.refine.at_once or experiment.parallel.workers) if halved else count
    at_once = min(parallel.workers, count, requested)
    rounds = count if at_once == 1 else -(-count // at_once) * parallel.slowdown
    fixed = rounds * tested + (CREW_SECONDS if at_once > 1 else 0.0)
    weights = 12 * experiment.cost(experiment.default).parameters
    memory = _memory(experiment, at_once, batch) + at_once * weights
    total = int(count * (steps * batch * 3 + test) * macs)
    return Stage(name, count * steps, total, rounds * trained + fixed, memory, fixed)


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


def _parallel_words(experiment: Experiment, stages: Sequence[str]) -> str:
    lines = []
    for name, choose in (("search", parallelism.for_search), ("trainings", parallelism.for_trainings)):
        parallel, planned = (
            choose(experiment),
            name in stages or (name == "trainings" and {"refine", "retrain", "exhaustive"} & set(stages)),
        )
        count = parallel.workers
        if planned:
            lines.append(f"{name} in {count} process{'' if count == 1 else 'es'} with {parallel.threads} threads")
    return ", ".join(lines) or "one process"


def check_memory(planned: Plan, experiment: Experiment) -> None:
    """Raise RequestError, with advice, if the run needs more memory than is free."""
    free = free_bytes(experiment.device)
    if planned.memory_bytes > free:
        files = experiment.config.data.source == "food101" or experiment.config.data.source.startswith("folder:")
        streaming = ", or --stream on" if files and not experiment.source.cached_bytes else ""
        raise RequestError(
            f"the run needs about {planned.memory_bytes / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} GiB are free:"
            f" use a smaller --batch-size (now {experiment.config.training.batch_size}) or --eval-batch-size"
            f" (now {experiment.config.ranking.eval_batch_size}), fewer --supernets, --workers 1 or fewer --images{streaming}"
        )


def parse_time(text: str) -> float:
    """Convert ``90s``, ``30m``, ``2h`` or ``1h30m`` to seconds. Raises RequestError for other text."""
    match = re.fullmatch(r"(?:(\d{1,4})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s)?", text.strip().lower(), flags=re.ASCII)
    if not match or not any(match.groups()):
        raise RequestError(f"time {text[:40]!r} is invalid: use a form such as 30m, 2h, 1h30m or 90s")
    hours, minutes, seconds = (int(group or 0) for group in match.groups())
    total = 3600 * hours + 60 * minutes + seconds
    if total < 1:
        raise RequestError(f"time {text[:40]!r} is too short: use at least one second")
    return float(total)


def _size(count: int) -> str:
    return f"{count / 2**20:.0f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"


RESERVE = 0.95  # share of the time budget to plan for


def fit(
    config: Config, seconds: float, stages: Sequence[str], kept: Iterable[str], source: Source | None = None
) -> Config:
    """Return a config whose stages take about ``seconds`` on this machine.

    Ranking gets at most a quarter of the time, by using fewer images. The search gets three fifths of the rest and
    retraining two fifths. M is lowered until each SuperNet has STEPS_PER_SUPERNET steps.

    Args:
        config: The request.
        seconds: The time budget.
        stages: Names of the stages.
        kept: Names of settings that must not change.
        source: A loaded data set (default: load the one that ``config`` names).

    Raises:
        RequestError: All settings are kept, or the time is too short for even a few steps.
    """
    keep = {{"epochs": "steps", "retrain_epochs": "retrain_steps"}.get(name, name) for name in kept}
    free = [n for n in ("steps", "retrain_steps", "supernets", "images") if n not in keep]
    if not free:
        raise RequestError(
            "--time-budget has nothing to choose: omit --steps, --retrain-steps, --supernets or --images"
        )
    available = RESERVE * seconds
    experiment, planned = _timed(config, source, stages)
    fixed = planned.of("rank") or 0.0
    if "images" in free and fixed > available / 4:
        least = 4 * len(experiment.source.classes) * 4
        images = max(int(len(experiment.training_images) * available / 4 / fixed), least)
        config = config.replace(images=min(images, len(experiment.training_images)))
        experiment, planned = _timed(config, experiment.source, stages)
    left = available - sum(stage.fixed_seconds or 0.0 for stage in planned.stages)
    shares = {"search": 3.0, "retrain": 2.0, "exhaustive": 2.0}
    weight = sum(shares[stage.name] for stage in planned.stages if stage.name in shares)
    growing = {stage.name: (stage.seconds or 0.0) - (stage.fixed_seconds or 0.0) for stage in planned.stages}
    for stage in planned.stages:
        name = {"search": "steps", "retrain": "retrain_steps", "exhaustive": "retrain_steps"}.get(stage.name)
        if name in free:
            requested = total_steps(experiment) if name == "steps" else experiment.retrain_steps
            short = growing.get("short", 0.0) if name == "steps" else 0.0  # proxy training is part of the search
            steps = int(requested * left * shares[stage.name] / weight / (growing[stage.name] + short))
            if steps < 10:
                raise RequestError(
                    f"a time budget of {time_words(seconds)} allows only {max(steps, 0)} steps of {stage.name}:"
                    " increase it, or use a smaller --width, fewer --images or fewer --retrain-seeds"
                )
            config = config.replace(steps=steps) if name == "steps" else config.replace(retrain_steps=steps)
    if "supernets" in free and "search" in stages:
        most = max((config.search.steps or total_steps(experiment)) // STEPS_PER_SUPERNET, 1)
        config = config.replace(supernets=config.search.supernets and min(config.search.supernets, most))
    return config


def _timed(config: Config, source: Source | None, stages: Sequence[str]) -> tuple[Experiment, Plan]:
    """Return the experiment of a request and its plan, with timed steps."""
    experiment, _ = autotuning.prepare(config, source)
    return experiment, plan(experiment, stages, timing=autotuning.timing(experiment))
