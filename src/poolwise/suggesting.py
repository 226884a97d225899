"""The best guess without any training: most productive convolutions, then most MACs, within a limit of cost.

How far such guesses were right is not promised but looked up: the same ranking is judged by every table of the package
that is of the same network (``Known``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

from poolwise import limiting, metrics
from poolwise.errors import RequestError
from poolwise.experiment import space_asked
from poolwise.networks.chain import create, running_norm
from poolwise.networks.cost import Cost, family_costs, sized
from poolwise.networks.switch import plain_model
from poolwise.rng import Streams
from poolwise.settings import Settings
from poolwise.space import LISTED, Pooling
from poolwise.tabular import COST, LATENCY, REACH, Tabular
from poolwise.training import Precision, choose_device
from poolwise.truth import tables

MAX_MACS = 1.0
DRAWN = 5000  # of a space that is too large to be priced whole


@dataclass(frozen=True)
class Known:
    """What the guess is worth on one table of stand-alone accuracies.

    Attributes:
        tau_b: Kendall tau-b of the guessed order with the truth, and its 95 % interval (bootstrap over configurations).
        regret: points of test accuracy that its first choice loses to the truly best within the limit.
        gain: points that its first choice has over the default.
    """

    table: str
    tau_b: float
    interval: tuple[float, float]
    regret: float
    gain: float


@dataclass(frozen=True)
class Guess(Tabular):
    """Configurations within the limit, best guess first, with their costs; and what such guesses were worth before.

    ``size`` is the number of configurations that there are, ``priced`` the number that was looked at.
    """

    COLUMNS: ClassVar[dict[str, str]] = {"pooling": "layers at each resolution", **COST, **REACH, **LATENCY}

    model: str
    default: Pooling
    limits: dict[str, float | None]
    latency_ms: dict[Pooling, float]
    costs: dict[Pooling, Cost]
    known: tuple[Known, ...]
    size: int
    priced: int

    @property
    def best(self) -> Pooling:
        return next(iter(self.costs))

    def to_rows(self) -> list[dict[str, Any]]:
        return [
            {"pooling": str(pooling), **cost.to_json(), "latency_ms": self.latency_ms.get(pooling)}
            for pooling, cost in self.costs.items()
        ]

    def to_json(self) -> dict[str, Any]:
        known = [asdict(one) for one in self.known]
        return {
            "guess": True,
            "model": self.model,
            "default": str(self.default),
            "limits": self.limits,
            "size": self.size,
            "priced": self.priced,
            "suggestions": self.to_rows(),
            "known": known,
        }


def suggest(
    model: str = "resnet20",
    *,
    width: int | None = None,
    image_size: int = 32,
    classes: int = 10,
    max_macs: float | None = MAX_MACS,
    max_params: float | None = None,
    max_memory: float | None = None,
    max_latency_ms: float | None = None,
    batch_size: int = 128,
    latency_batch: int = 1,
    device: str = "auto",
    poolings: Sequence[int] | None = None,
    max_configs: int | None = None,
) -> Guess:
    """Guess where the poolings of a family should stand.

    Args:
        max_macs: at most this many times the default's MACs; None for no limit.
        max_params: trainable parameters. max_memory: MiB of activations in a training step of ``batch_size`` images.
        max_latency_ms: of a forward pass of ``latency_batch`` images in float32, measured on ``device``.
        poolings: numbers of downsamplings (None: as many as the default has).
        max_configs: of more configurations, a uniform draw of so many; by default DRAWN of more than LISTED.

    Raises RequestError for an unknown family, and for a limit that no configuration keeps (naming the smallest).
    """
    known, where = sized(model, width), choose_device(device)
    limits = {
        "max_macs": max_macs,
        "max_params": max_params,
        "max_memory": max_memory,
        "max_latency_ms": max_latency_ms,
    }
    asked = Settings(model=model, poolings=None if poolings is None else tuple(poolings), max_configs=max_configs)
    space = space_asked(asked)
    if space.size > LISTED:
        space = space_asked(replace(asked, max_configs=DRAWN))
    priced = family_costs(model, width, image_size, classes, space)
    allowed = asked.pickable(map(str, priced))
    choices = {p: cost for p, cost in priced.items() if allowed is None or str(p) in allowed}

    def timed(poolings: list[Pooling]) -> dict[Pooling, float]:
        images_BCHW, precision = torch.zeros(latency_batch, 3, image_size, image_size), Precision.parse("float32")
        arguments: dict[str, Any] = {"classes": classes, "width": width or known.width, "norm": running_norm}
        chain = create(known.build, Streams(0).torch("init"), **arguments)
        return limiting.latencies(partial(plain_model, chain), poolings, images_BCHW, precision, where)

    found = limiting.within(choices, limits, batch_size, timed, latency_batch)
    order = _guessed({pooling: priced[pooling] for pooling in found.members})
    told = []
    for name in tables.names():
        table = tables.load(name)
        if table.about.get("model") == model:
            told.append(_known(table, known.default, {**limits, "max_latency_ms": None}, batch_size))
    return Guess(model, known.default, limits, found.latency_ms, order, tuple(told), space.whole.size, space.size)


def _guessed(within: Mapping[Pooling, Cost]) -> dict[Pooling, Cost]:
    """Best guess first; ties in the order of the space."""
    return dict(sorted(within.items(), key=lambda item: (-item[1].productive, -item[1].macs, item[0])))


def _known(table: tables.Table, default: Pooling, limits: dict[str, float | None], batch_size: int) -> Known:
    priced, truth_P = tables.costs(table), np.array(table.column(table.truth))
    try:
        members = limiting.within(priced, limits, batch_size, lambda _: {}).members
    except RequestError:  # the table's network is another size: nothing of it is within
        members = tuple(priced)
    within = _guessed({pooling: priced[pooling] for pooling in members})
    order = {pooling: place for place, pooling in enumerate(within)}
    feasible = [i for i, pooling in enumerate(table.space) if pooling in order]
    scores_P = np.array([-order[table.space[i]] for i in feasible], float)
    tau: dict[str, Any] = {"tau_b": metrics.kendall_tau_b}
    interval = metrics.bootstrap_interval(tau, scores_P, truth_P[feasible])["tau_b"]
    first = truth_P[table.space.index(next(iter(within)))]
    return Known(
        table.name,
        float(metrics.kendall_tau_b(scores_P, truth_P[feasible])),
        (float(interval[0]), float(interval[1])),
        metrics.regret(scores_P, truth_P[feasible]),
        float(first - truth_P[table.space.index(default)]),
    )
