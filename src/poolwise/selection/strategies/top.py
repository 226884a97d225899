"""Train the configurations of a ranking in order, best first."""

from __future__ import annotations

from poolwise.selection.strategies.base import Strategy, StrategyTask, register
from poolwise.spaces import Pooling

_CANDIDATES = 1024  # number sampled from a larger space


@register("top")
class Top(Strategy):
    """Full trainings in the order of the first hint, or in random order without hints; the default comes first."""

    stream = "Top"
    batches = True

    def __init__(self, task: StrategyTask) -> None:
        super().__init__(task)
        generator = self.streams["order"]
        small = self.space.size <= _CANDIDATES
        members = list(self.space) if small else sorted(dict.fromkeys(self.space.sample(generator, _CANDIDATES)))
        self._order = [members[i] for i in generator.permutation(len(members))]
        for hint in list(task.hints.values())[:1]:
            self._order.sort(key=lambda pooling: -hint(pooling))
        if task.default is not None:
            self._order.sort(key=lambda pooling: pooling != task.default)

    def _next(self) -> tuple[Pooling, int] | None:
        return self._order[round(self.count) % len(self._order)], self.steps
