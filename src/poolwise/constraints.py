"""Cost limits: which configurations may be chosen. Others are never trained, except the default."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from poolwise.errors import RequestError
from poolwise.experiment import Experiment
from poolwise.models.cost import Cost
from poolwise.rng import Streams
from poolwise.spaces import LISTED, Pooling
from poolwise.training import Precision

MOST = LISTED  # largest space whose configurations are all checked
MOST_TIMED = 1_000
ROUNDS = 15
_UNITS = {
    "max_macs": "times the default's MACs",
    "max_params": "trainable parameters",
    "max_memory": "MiB of activations in a training step",
    "max_latency_ms": "ms per forward pass",
}


@dataclass(frozen=True)
class Feasible:
    """The configurations within the limits.

    Attributes:
        members: Configurations within every limit, in the order of the space.
        latency_ms: Median milliseconds of a forward pass for each timed configuration; empty without a latency limit.
        batch: Batch size of that pass.
    """

    members: tuple[Pooling, ...]
    latency_ms: dict[Pooling, float]
    batch: int

    def to_json(self) -> dict[str, Any]:
        return {
            "within": len(self.members),
            "latency_batch": self.batch,
            "latency_ms": {str(pooling): ms for pooling, ms in self.latency_ms.items()},
        }


def within(
    priced: Mapping[Pooling, Cost],
    limits: Mapping[str, float | None],
    batch_size: int,
    timed: Callable[[list[Pooling]], dict[Pooling, float]],
    latency_batch: int = 1,
) -> Feasible:
    """Select the configurations within all limits.

    Args:
        priced: Costs of all configurations.
        limits: Limits by name (``LIMITS``); None for no limit.
        batch_size: Images of a training step, for ``max_memory``.
        timed: Measures milliseconds. Called for configurations within the other limits if ``max_latency_ms`` is set.
        latency_batch: Images of a timed forward pass.

    Raises:
        RequestError: No configuration is within the limits, or there are too many configurations.
    """
    members = list(priced)
    if len(members) > MOST:
        raise RequestError(f"limits need the cost of all {len(members)} configurations: at most {MOST} are allowed")
    takes: dict[str, Callable[[Pooling], float]] = {
        "max_macs": lambda pooling: priced[pooling].macs_ratio,
        "max_params": lambda pooling: priced[pooling].parameters,
        "max_memory": lambda pooling: batch_size * priced[pooling].activation_bytes / 2**20,
    }
    for name, take in takes.items():
        members = _kept(members, name, limits.get(name), take)
    latency: dict[Pooling, float] = {}
    if limits.get("max_latency_ms") is not None:
        if len(members) > MOST_TIMED:
            raise RequestError(
                f"--max-latency-ms would time {len(members)} configurations: at most {MOST_TIMED} are allowed; add --max-macs"
            )
        latency = timed(members)
        members = _kept(members, "max_latency_ms", limits["max_latency_ms"], latency.__getitem__)
    return Feasible(tuple(members), latency, latency_batch)


def _kept(members: list[Pooling], name: str, limit: float | None, take: Callable[[Pooling], float]) -> list[Pooling]:
    if limit is None:
        return members
    kept = [pooling for pooling in members if take(pooling) <= limit]
    if not kept:
        smallest = min(members, key=take)
        raise RequestError(
            f"no configuration needs at most {limit:g} {_UNITS[name]}: the smallest is {smallest} with"
            f" {take(smallest):.4g}; use a larger --{name.replace('_', '-')}"
        )
    return kept


def latencies(
    build: Callable[[Pooling], nn.Module],
    poolings: list[Pooling],
    images_BCHW: Tensor,
    precision: Precision,
    device: torch.device,
) -> dict[Pooling, float]:
    """Measure the median milliseconds of a forward pass of each configuration over ROUNDS rounds.

    Each round times all configurations in a new random order, so that temporary slowdowns affect all of them alike.
    """
    networks = [precision.place(build(pooling), device).eval() for pooling in poolings]
    images = precision.images(images_BCHW.to(device))
    milliseconds, order = np.empty((ROUNDS + 1, len(networks))), Streams(0)["latency"]
    with torch.inference_mode(), precision.active(device):
        for turn in range(ROUNDS + 1):  # the first round warms up
            for place in order.permutation(len(networks)).tolist():
                _wait(device)
                started = time.perf_counter()
                networks[place](images)
                _wait(device)
                milliseconds[turn, place] = 1000 * (time.perf_counter() - started)
    median = np.median(milliseconds[1:], axis=0)
    return {pooling: float(ms) for pooling, ms in zip(poolings, median, strict=True)}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def limited(experiment: Experiment) -> tuple[Experiment, Feasible | None]:
    """Restrict an experiment to the default and the configurations within its limits, if it has any.

    The result is stored in the config (``only``), so that workers and resumed runs do not measure again.
    """
    limits = experiment.config.limits.active()
    if experiment.config.limits.only is not None or all(limit is None for limit in limits.values()):
        return experiment, None
    if experiment.space.size > MOST:
        raise RequestError(
            f"limits need the cost of all {experiment.space.size:,} configurations: at most {MOST:,} are allowed; sample some"
            " with --max-configs"
        )
    batch = experiment.config.limits.latency_batch

    def timed(poolings: list[Pooling]) -> dict[Pooling, float]:
        size = experiment.source.image_size
        images_BCHW = torch.zeros(batch, 3, size, size)
        return latencies(experiment.plain, poolings, images_BCHW, experiment.precision, experiment.device)

    priced = {pooling: experiment.cost(pooling) for pooling in experiment.space}
    feasible = within(priced, limits, experiment.config.training.batch_size, timed, batch)
    return experiment.with_settings(only=tuple(str(pooling) for pooling in feasible.members)), feasible
