"""Successive halving on short stand-alone trainings, each from scratch with its own schedule.

Source: Jamieson and Talwalkar (AISTATS 2016); Li et al., "Hyperband" (JMLR 2018), eta 3. A bracket trains n configurations
for a ninth of the steps, the best third for a third of them, the best ninth in full. n is the most whose bracket fits
into the compute even if the most expensive go on. What is left is spent on further brackets with fresh draws.
"""

from __future__ import annotations

import numpy as np

from poolwise import metrics
from poolwise.space import Pooling
from poolwise.trialing.base import Method, Task, register

ETA = 3
RUNGS = 3
_MOST = 2048  # configurations of one bracket


@register("successive-halving")
class SuccessiveHalving(Method):
    """Brackets of three rungs."""

    accuracies = False

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.lengths = [max(self.steps // ETA**rung, 1) for rung in reversed(range(RUNGS))]
        self._rung, self._queue, self._results = 0, list[Pooling](), list[tuple[float, Pooling]]()

    def _next(self) -> tuple[Pooling, int] | None:
        if not self._queue and self._results:
            kept = len(self._results) // ETA
            self._rung += 1
            best = sorted(self._results, key=lambda result: (-result[0], result[1]))[:kept]
            self._queue = [pooling for _, pooling in best] if self._rung < RUNGS else []
            self._results = []
        if not self._queue:
            self._rung, self._queue = 0, self._bracket()
        return (self._queue[0], self.lengths[self._rung]) if self._queue else None

    def _learn(self, pooling: Pooling, steps: int, accuracy: float) -> None:
        self._queue.pop(0)
        self._results.append((accuracy, pooling))

    def _bracket(self) -> list[Pooling]:
        """Distinct uniform draws, as many as fit; none where not one would come out at the top."""
        generator, drawn = self.streams["bracket"], dict[Pooling, None]()
        most = min(_MOST, self.space.size)
        while len(drawn) < most:
            drawn.setdefault(self.space.sample(generator)[0])
        candidates = list(drawn)
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            fits = self.spent + self._most_macs(candidates[:middle]) <= self.macs
            low, high = (middle, high) if fits else (low, middle - 1)
        return candidates[:low] if low >= min(ETA ** (RUNGS - 1), self.space.size) else []

    def _most_macs(self, candidates: list[Pooling]) -> int:
        """Multiply-adds of a bracket in which the most expensive go on."""
        dearest = sorted(candidates, key=lambda pooling: -self.cost(pooling, self.steps))
        return sum(
            sum(self.cost(pooling, length) for pooling in dearest[: len(dearest) // ETA**rung])
            for rung, length in enumerate(self.lengths)
        )

    def ranking(self) -> np.ndarray:
        """scores_P: rung that was reached (0, 1, 2) plus mean accuracy there; what was not trained has rung 0 and the mean
        of its neighbourhood there."""
        scores_P = metrics.fill(self.space, self.means(self.lengths[0]))
        for rung, length in enumerate(self.lengths):
            for place, mean in self.means(length).items():
                scores_P[place] = rung + mean
        return scores_P
