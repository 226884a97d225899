"""Features of a configuration that need no training, for methods that learn their weight (``poolwise.selection.refine``).

A hint is a function of the configuration and its cost, or a baseline that needs images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from poolwise.errors import RequestError, did_you_mean
from poolwise.experiment import Experiment
from poolwise.models.cost import Cost
from poolwise.rankings.baselines.counted import COUNTED
from poolwise.rankings.baselines.untrained import untrained, zero_cost_names
from poolwise.spaces import Pooling

HINTS: dict[str, Callable[[Pooling, Cost], float]] = {
    "productive": lambda _, cost: float(cost.productive),
    "macs": lambda _, cost: float(np.log(cost.macs)),
    "last_stage": lambda pooling, _: float(np.log(pooling.stages[-1])),
    "receptive_field": lambda _, cost: COUNTED["receptive_field"](cost),
    "rf_refinement": lambda _, cost: COUNTED["rf_refinement"](cost),
}
"""Hints that need no images. productive, macs, receptive_field and rf_refinement are the baselines of these names, MACs as
their logarithm. last_stage: logarithm of the number of layers at the last resolution. Late pooling adds productive
convolutions, but leaves fewer layers to the last stage. This feature was added after looking at both tables of the package,
so they are not an independent test of it."""


class Hints(NamedTuple):
    """Hints by name, as functions of a configuration, and the MACs that they took."""

    functions: dict[str, Callable[[Pooling], float]]
    macs: int


def hint_names() -> list[str]:
    """Return the names of all hints, those that need images last."""
    return [*HINTS, *zero_cost_names()]


def hints(names: Iterable[str], experiment: Experiment, poolings: Sequence[Pooling]) -> Hints:
    """Compute hints of ``poolings``. Zero-cost proxies are scored with the seed of the run.

    Raises:
        RequestError: A name is unknown, or the network lacks what a proxy needs.
    """
    functions: dict[str, Callable[[Pooling], float]] = {}
    macs, known = 0, hint_names()
    costs = {pooling: experiment.cost(pooling) for pooling in poolings}
    for name in names:
        if name in HINTS:
            values = {pooling: HINTS[name](pooling, cost) for pooling, cost in costs.items()}
        elif name in known:
            scores_P, spent = untrained(experiment, name, seed=experiment.config.seed, poolings=poolings)
            values, macs = dict(zip(poolings, scores_P.tolist(), strict=True)), macs + spent
        else:
            raise RequestError(f"unknown hint {name!r}{did_you_mean(name, known)}. Known: {', '.join(known)}")
        functions[name] = values.__getitem__
    return Hints(functions, macs)
