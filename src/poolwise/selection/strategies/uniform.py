"""Random search without repetition until every configuration was drawn (Li and Talwalkar, UAI 2019)."""

from __future__ import annotations

from poolwise.selection.strategies.base import Strategy, register
from poolwise.spaces import Pooling


@register("random")
class RandomSearch(Strategy):
    """Full trainings of uniformly sampled configurations."""

    stream = "RandomSearch"

    def _next(self) -> tuple[Pooling, int] | None:
        return self.uniform(self.streams["draw"]), self.steps
