"""Equally short stand-alone trainings of all configurations, smoothed over neighboring positions.

Every configuration is trained for the same number of steps with a complete learning rate schedule: as many steps as the
compute allows, at most a full training. Compute left after full trainings of all goes into further seeds of all.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from poolwise.rankings.smoothing import fill, smooth
from poolwise.selection.strategies.base import Strategy, register
from poolwise.spaces import Pooling


@register("short-all")
class ShortAll(Strategy):
    """Trainings of one length for all configurations, in random order."""

    stream = "ShortAll"

    @cached_property
    def length(self) -> int:
        """Steps of each training; 0 if the compute does not allow one step of each."""
        low, high = 0, self.steps
        while low < high:
            middle = (low + high + 1) // 2
            fits = sum(self.cost(pooling, middle) for pooling in self.space) <= self.macs
            low, high = (middle, high) if fits else (low, middle - 1)
        return low

    @cached_property
    def _round_macs(self) -> int:
        return sum(self.cost(pooling, self.length) for pooling in self.space)

    @cached_property
    def _order(self) -> list[int]:
        return self.streams["order"].permutation(self.space.size).tolist()

    def _next(self) -> tuple[Pooling, int] | None:
        if self.length == 0:
            return None
        done = sum(map(len, self.observed.values()))
        turn, place = divmod(done, self.space.size)
        if place == 0 and (turn + 1) * self._round_macs > self.macs:
            return None  # an unfinished round would favor the configurations that come first
        return self.space[self._order[place]], self.length

    def ranking(self) -> np.ndarray:
        """Return scores_P: mean accuracies, missing ones filled in, then smoothed (``rankings.smoothing``)."""
        return smooth(self.space, fill(self.space, self.means(self.length))).scores
