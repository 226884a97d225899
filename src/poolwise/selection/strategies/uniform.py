"""Random search: uniform draws, none twice before all were drawn (Li and Talwalkar, UAI 2019, why it is a method)."""

from __future__ import annotations

from poolwise.selection.strategies.base import Method, register
from poolwise.spaces import Pooling


@register("random")
class RandomSearch(Method):
    """Full trainings of uniform draws."""

    stream = "RandomSearch"

    def _next(self) -> tuple[Pooling, int] | None:
        return self.uniform(self.streams["draw"]), self.steps
