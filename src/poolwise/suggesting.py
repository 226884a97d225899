"""The best guess without any training: most productive convolutions, then most MACs, within a limit of cost.

How far such guesses were right is not promised but looked up: the same ranking is judged by every table of the package
that is of the same network (``Known``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from poolwise import metrics
from poolwise.errors import RequestError
from poolwise.networks import family
from poolwise.networks.cost import Cost, family_costs
from poolwise.space import Pooling
from poolwise.truth import tables

MAX_MACS = 1.0


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
class Guess:
    """Configurations within the limit, best guess first, with their costs; and what such guesses were worth before."""

    model: str
    default: Pooling
    max_macs: float | None
    costs: dict[Pooling, Cost]
    known: tuple[Known, ...]

    @property
    def best(self) -> Pooling:
        return next(iter(self.costs))

    def to_json(self) -> dict[str, Any]:
        rows = [{"pooling": str(pooling), **cost.to_json()} for pooling, cost in self.costs.items()]
        known = [asdict(one) for one in self.known]
        return {
            "guess": True,
            "model": self.model,
            "default": str(self.default),
            "max_macs": self.max_macs,
            "suggestions": rows,
            "known": known,
        }


def suggest(
    model: str = "resnet20",
    *,
    width: int | None = None,
    image_size: int = 32,
    classes: int = 10,
    max_macs: float | None = MAX_MACS,
) -> Guess:
    """Guess where the poolings of a family should stand.

    Args:
        max_macs: at most this many times the default's MACs; None for no limit.

    Raises RequestError for an unknown family, and for a limit that no configuration keeps (naming the smallest).
    """
    default = family(model).default
    within = _guessed(family_costs(model, width, image_size, classes), max_macs)
    known = []
    for name in tables.names():
        table = tables.load(name)
        if table.about.get("model") == model:
            known.append(_known(table, default, max_macs))
    return Guess(model, default, max_macs, within, tuple(known))


def _guessed(costs: Mapping[Pooling, Cost], max_macs: float | None) -> dict[Pooling, Cost]:
    """What is within the limit, best guess first; ties in the order of the space."""
    within = {pooling: cost for pooling, cost in costs.items() if max_macs is None or cost.macs_ratio <= max_macs}
    if not within:
        smallest = min(costs, key=lambda pooling: costs[pooling].macs)
        raise RequestError(
            f"no configuration takes at most {max_macs:g} times the default's MACs: the smallest is {smallest}"
            f" with {costs[smallest].macs_ratio:.3f}"
        )
    return dict(sorted(within.items(), key=lambda item: (-item[1].productive, -item[1].macs, item[0])))


def _known(table: tables.Table, default: Pooling, max_macs: float | None) -> Known:
    within, truth_P = _guessed(tables.costs(table), max_macs), np.array(table.column(table.truth))
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
