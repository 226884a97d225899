"""Estimate the cost of a run before it starts, and fit a config to a time budget.

``pipeline.costs`` estimates each stage, and the stages in ``pipeline.graph`` name their estimates. Steps, MACs, memory and disk
space are computed. Seconds are known only if steps were timed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from poolwise.config import Config
from poolwise.datasets.sources import Source
from poolwise.errors import RequestError
from poolwise.experiment import Experiment
from poolwise.pipeline import autotuning, graph
from poolwise.pipeline.costs import StageCost, Trainings
from poolwise.process import free_bytes
from poolwise.progress import time_words
from poolwise.supernets.budget import total_steps
from poolwise.supernets.samplers.base import STEPS_PER_SUPERNET
from poolwise.training.calibration import Timing

_UNTIMED = Timing((math.nan, math.nan), (math.nan, math.nan), math.nan, math.nan)  # makes all seconds NaN


@dataclass(frozen=True)
class Plan:
    """Estimated cost of a run.

    Attributes:
        stages: The costs of the stages in order, each followed by those of its parts.
        disk_bytes: Final size of the run folder.
        precision: Number format and memory order.
        parallel: Processes and threads, in words.
        streamed_bytes: Size of the images streamed from the cache.
        supernets: Number of SuperNets and the reason, if the request did not set it.
        timing: Measurements behind the seconds, if any.
    """

    stages: tuple[StageCost, ...]
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
        """Return the seconds of one stage, without its parts; None if it is not planned or nothing was timed."""
        return next((stage.seconds for stage in self.stages if stage.name == name), None)

    def parts(self, name: str) -> list[StageCost]:
        """Return the costs of one stage: its own and those of its parts."""
        return [cost for cost in self.stages if name in (cost.name, cost.part_of)]

    def to_json(self) -> dict[str, Any]:
        return {
            "stages": [stage.to_json() for stage in self.stages],
            "disk_bytes": self.disk_bytes,
            "precision": self.precision,
            "parallel": self.parallel,
            "streamed_bytes": self.streamed_bytes,
            "supernets": self.supernets,
            "seconds": self.seconds,
            "memory_bytes": self.memory_bytes,
        }

    def lines(self) -> list[str]:
        """Return the plan as lines of text."""
        costs = [
            f"{s.label or s.name}: {s.amount or f'{s.steps:,} {s.unit}'}, {s.macs:.2e} MACs"
            + ("" if s.seconds is None else f", about {time_words(s.seconds)}")
            for s in self.stages
        ]
        memory, disk = f"{self.memory_bytes / 2**30:.1f} GiB of memory", f"{_size(self.disk_bytes)} on disk"
        if self.streamed_bytes:
            disk += f" and {_size(self.streamed_bytes)} of images in the cache"
        needs = f"{memory}, {disk}"
        if self.seconds is not None:
            needs = f"about {time_words(self.seconds)}, {needs}"
        reasons = [s.reason for s in self.stages if s.reason]
        return [*reasons, *costs, f"total: {needs}; {self.precision}, {self.parallel}"]


def plan(
    experiment: Experiment,
    stages: Sequence[str],
    trainings: Mapping[str, Trainings] | None = None,
    timing: Timing | None = None,
) -> Plan:
    """Estimate the cost of stages.

    Args:
        experiment: The experiment, with the precision and processes that the run will use.
        stages: Names of stages. Those without a noticeable cost, such as the report, are not part of the plan.
        trainings: The stand-alone trainings of a stage by its name, if known. By default, their number follows from the
            config, at the average cost.
        timing: Seconds of steps on this machine (``autotuning.timing`` or ``quick_timing``), needed for seconds.
    """
    planned: list[StageCost] = []
    disk = 2**20
    for one in map(graph.stage, stages):
        if one.plan is not None:
            planned += one.plan(experiment, timing or _UNTIMED, (trainings or {}).get(one.name))
        disk += one.disk(experiment) if one.disk is not None else 0
    parallel = _parallel_words(experiment, stages)
    streamed, reason = experiment.source.cached_bytes, experiment.supernets_reason
    return Plan(tuple(planned), disk, str(experiment.precision), parallel, streamed, reason, timing)


def _parallel_words(experiment: Experiment, stages: Sequence[str]) -> str:
    """Return the processes and threads of each kind of work, in words."""
    lines = []
    for work, choose in dict.fromkeys(one.parallel for one in map(graph.stage, graph.ordered(stages)) if one.parallel):
        parallel = choose(experiment)
        count = parallel.workers
        threads = f"{parallel.threads} thread{'' if parallel.threads == 1 else 's'}"
        lines.append(f"{work} in {count} process{'' if count == 1 else 'es'} with {threads}")
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
    fixed = sum(cost.seconds or 0.0 for cost in planned.stages if cost.unit == "images")
    if "images" in free and fixed > available / 4:
        least = 4 * len(experiment.source.classes) * 4
        images = max(int(len(experiment.training_images) * available / 4 / fixed), least)
        config = config.replace(images=min(images, len(experiment.training_images)))
        experiment, planned = _timed(config, experiment.source, stages)
    left = available - sum(cost.fixed_seconds or 0.0 for cost in planned.stages)
    lengths = {name: length for name in stages if (length := graph.stage(name).length)}
    weight = sum(length.share for length in lengths.values())
    for name, length in lengths.items():
        if length.setting in free:
            growing = sum((cost.seconds or 0.0) - (cost.fixed_seconds or 0.0) for cost in planned.parts(name))
            steps = int(length.steps(experiment) * left * length.share / weight / growing)
            if steps < 10:
                raise RequestError(
                    f"a time budget of {time_words(seconds)} allows only {max(steps, 0)} steps of {name}:"
                    " increase it, or use a smaller --width, fewer --images or fewer --retrain-seeds"
                )
            config = config.replace(**{length.setting: steps})
    if "supernets" in free and any(length.setting == "steps" for length in lengths.values()):
        most = max((config.search.steps or total_steps(experiment)) // STEPS_PER_SUPERNET, 1)
        config = config.replace(supernets=config.search.supernets and min(config.search.supernets, most))
    return config


def _timed(config: Config, source: Source | None, stages: Sequence[str]) -> tuple[Experiment, Plan]:
    """Return the experiment of a request and its plan, with timed steps."""
    experiment, _ = autotuning.prepare(config, source)
    return experiment, plan(experiment, stages, timing=autotuning.timing(experiment))
