"""Successive halving on stand-alone trainings, each from scratch with its own schedule.

Source: Jamieson and Talwalkar (AISTATS 2016); Li et al., "Hyperband" (JMLR 2018), eta 3. A bracket trains
configurations for a ninth of the steps, the best third of them for a third, and the best third of those in full. As in
the original, each rung gets an equal share of the compute, which determines how many configurations start. Compute that
is left after a bracket goes into further brackets with new samples.
"""

from __future__ import annotations

import numpy as np

from poolwise.rankings.smoothing import fill
from poolwise.selection.strategies.base import Strategy, StrategyTask, register
from poolwise.spaces import Pooling

ETA = 3
RUNGS = 3
_MOST = 2048  # maximum number of configurations in a bracket


@register("successive-halving")
class SuccessiveHalving(Strategy):
    """Brackets of three rungs.

    If a third of the compute does not pay for three of the shortest trainings, all rungs are shortened by a factor of 3
    until it does.
    """

    stream = "SuccessiveHalving"
    accuracies = False

    def __init__(self, task: StrategyTask) -> None:
        super().__init__(task)
        self._rung, self._queue, self._results = 0, list[Pooling](), list[tuple[float, Pooling]]()
        top = self.steps
        while top >= ETA**RUNGS and len(self._within(self._drawn("lengths")[:ETA], self._lengths(top)[0], RUNGS)) < ETA:
            top //= ETA
        self.lengths = self._lengths(top)

    def _next(self) -> tuple[Pooling, int] | None:
        if not self._queue and self._results:
            best = sorted(self._results, key=lambda result: (-result[0], result[1]))
            kept = [pooling for _, pooling in best[: -(-len(best) // ETA)]]
            self._rung, self._results = self._rung + 1, []
            if self._rung < RUNGS:
                self._queue = self._within(kept, self.lengths[self._rung], RUNGS - self._rung)
        if not self._queue:
            self._rung, self._queue = 0, self._within(self._drawn("bracket"), self.lengths[0], RUNGS)
        return (self._queue[0], self.lengths[self._rung]) if self._queue else None

    def _learn(self, pooling: Pooling, steps: int, accuracy: float) -> None:
        self._queue.pop(0)
        self._results.append((accuracy, pooling))

    def _drawn(self, stream: str) -> list[Pooling]:
        """Return distinct uniform samples, or the full space in random order if it is small."""
        generator, drawn = self.streams[stream], dict[Pooling, None]()
        while len(drawn) < min(_MOST, self.space.size):
            drawn.setdefault(self.space.sample(generator)[0])
        return list(drawn)

    @staticmethod
    def _lengths(top: int) -> list[int]:
        return [max(top // ETA**rung, 1) for rung in reversed(range(RUNGS))]

    def _within(self, candidates: list[Pooling], steps: int, rungs: int) -> list[Pooling]:
        """Return the candidates that fit into one of ``rungs`` equal shares of the remaining compute.

        Candidates are taken in order; those that are too expensive are skipped.
        """
        share, taken = (1 - self._used()) / rungs, list[Pooling]()
        for pooling in candidates:
            price = self._part(self.cost(pooling, steps), steps / self.steps)
            if price <= share + 1e-12:
                share -= price
                taken.append(pooling)
        return taken

    def _used(self) -> float:
        """Return the spent fraction of the compute or of the trials, whichever is larger."""
        return self._part(self.spent, self.count)

    def _part(self, macs: int, trainings: float) -> float:
        return max(macs / max(self.macs, 1), trainings / self.task.trials if self.task.trials else 0.0)

    def ranking(self) -> np.ndarray:
        """Return scores_P: highest rung reached (0, 1, 2) plus mean accuracy there.

        Untrained configurations get rung 0 and the mean accuracy of their neighborhood there.
        """
        scores_P = fill(self.space, self.means(self.lengths[0]))
        for rung, length in enumerate(self.lengths):
            for place, mean in self.means(length).items():
                scores_P[place] = rung + mean
        return scores_P
