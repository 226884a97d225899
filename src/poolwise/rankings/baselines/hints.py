"""Features of a configuration that need no training, for methods that learn their weight (``poolwise.selection.refine``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from poolwise.models.cost import Cost
from poolwise.spaces import Pooling

HINTS: dict[str, Callable[[Pooling, Cost], float]] = {
    "productive": lambda _, cost: float(cost.productive),
    "macs": lambda _, cost: float(np.log(cost.macs)),
    "last_stage": lambda pooling, _: float(np.log(pooling.stages[-1])),
}
"""productive and macs are the baselines of these names, MACs as their logarithm. last_stage: logarithm of the number of
layers at the last resolution. Late pooling adds productive convolutions, but leaves fewer layers to the last stage. This
feature was added after looking at both tables of the package, so they are not an independent test of it."""


def hints(costs: Mapping[Pooling, Cost]) -> dict[str, Callable[[Pooling], float]]:
    """Return the function that computes each hint, by name, for configurations in ``costs``."""
    return {name: _of(hint, costs) for name, hint in HINTS.items()}


def _of(hint: Callable[[Pooling, Cost], float], costs: Mapping[Pooling, Cost]) -> Callable[[Pooling], float]:
    return lambda pooling: hint(pooling, costs[pooling])
