"""A few well-chosen trainings, guided by a surrogate that weighs hints by how well the trainings confirm them.

The default is trained first. Then the strategy explores: it trains the configuration with the highest probability of
improvement over the current best, since with few trainings finding a better one matters more than covering the space.
In the last part it separates the best from its closest rival: whichever of the two has fewer trainings gets another one
(after Russo, "Simple Bayesian Algorithms for Best-Arm Identification", Operations Research 2020, but with a
deterministic leader and challenger).

If the budget is large enough, shorter trainings are tried beside full ones, and precede them once both agree.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from poolwise.rankings.smoothing import fill, smooth
from poolwise.selection.strategies.base import Strategy, StrategyTask, register
from poolwise.selection.strategies.surrogate import Surrogate
from poolwise.spaces import Pooling, positions

EXPLORING = 0.6  # fraction of the trainings spent on exploring
DOUBT = 0.05  # stop when the probability of a better configuration is below this
_FEWEST = 3  # minimum number of trainings before stopping
CANDIDATES = 1024  # number sampled from a larger space
REDUCTION = 3  # a shorter training has 1 / REDUCTION of the steps
ROOM = 12  # minimum budget, in full trainings, to try shorter ones
PAIRS = 4  # configurations trained at both lengths before their agreement is used
AGREE = 0.75  # minimum correlation for shorter trainings to precede full ones


@register("refine")
class Refine(Strategy):
    """Train the leader and the challenger of a surrogate (``strategies.surrogate``).

    Attributes:
        belief: Surrogate fitted to the trainings so far.
        candidates: Configurations that it covers: all, or a uniform sample of a large space.
    """

    stream = "Refine"
    batches = True

    def __init__(self, task: StrategyTask) -> None:
        super().__init__(task)
        self.candidates = self._drawn()
        self._place = {pooling: place for place, pooling in enumerate(self.candidates)}
        hints = [[hint(pooling) for pooling in self.candidates] for hint in task.hints.values()]
        reliability_J = [smooth(self.candidates, hint_P).reliability for hint_P in hints]
        positions_PS = np.array(positions(self.candidates), float)
        self.belief = Surrogate(positions_PS, np.array(hints, float), reliability_J, self.seed)

    def _drawn(self) -> list[Pooling]:
        if self.space.size <= CANDIDATES:
            return list(self.space)
        first = {self.task.default: None} if self.task.default else {}
        drawn = dict.fromkeys(self.space.sample(self.streams["candidates"], CANDIDATES))
        return sorted({**first, **drawn})

    def _next(self) -> tuple[Pooling, int] | None:
        default = self.task.default
        if default is not None and not self._trainings(default):
            return default, self.steps
        if not len(self.belief):
            return self.candidates[self._hinted()], self.steps
        with self._assumed_results():
            if self.sure:
                return None
            leader = self.leader
            better_P = self.belief.better(leader)
            if self._progress < EXPLORING:
                return self._exploring(better_P)
            rival = int(better_P.argmax())
            fewer = min((rival, leader), key=lambda place: self._trainings(self.candidates[place]))
            return self.candidates[fewer], self.steps

    def _exploring(self, better_P: np.ndarray) -> tuple[Pooling, int]:
        full_counts = np.array([self._trainings(pooling) for pooling in self.candidates])
        if not self._room:
            return self._promising(better_P, full_counts == 0), self.steps
        reduced_counts = np.array([self._trainings(pooling, self._reduced_steps) for pooling in self.candidates])
        pairs = int(((full_counts > 0) & (reduced_counts > 0)).sum())
        if pairs < PAIRS:  # first add a shorter training to every full one
            missing = (full_counts > 0) & (reduced_counts == 0)
            if missing.any():
                return self.candidates[int(np.flatnonzero(missing)[0])], self._reduced_steps
            return self._promising(better_P, full_counts == 0), self.steps
        new = self._promising(better_P, full_counts == 0)
        if self.belief.agreement >= AGREE and not reduced_counts[self._place[new]]:
            return new, self._reduced_steps
        return new, self.steps

    def _promising(self, better_P: np.ndarray, allowed: np.ndarray) -> Pooling:
        """Return the allowed configuration that is most likely to be better; consider all if none is allowed."""
        return self.candidates[int(np.where(allowed, better_P, -1.0).argmax() if allowed.any() else better_P.argmax())]

    def _hinted(self) -> int:
        """Return the candidate that the hints rank first, or a uniform sample without hints."""
        hinted_P = self.belief.hints_JP.sum(0)
        return int(hinted_P.argmax()) if hinted_P.any() else int(self.streams["first"].integers(len(self.candidates)))

    @property
    def _reduced_steps(self) -> int:
        return max(self.steps // REDUCTION, 1)

    @property
    def _room(self) -> bool:
        """Whether the budget is large enough for trying shorter trainings."""
        if self.task.trials is not None:
            return self.task.trials >= ROOM
        return self.macs >= ROOM * self.cost(self.candidates[len(self.candidates) // 2], self.steps)

    @property
    def _progress(self) -> float:
        return max(
            self.spent / self.macs if self.macs else 1.0, self.count / self.task.trials if self.task.trials else 0.0
        )

    def _trainings(self, pooling: Pooling, steps: int | None = None) -> int:
        """Return how many trainings of this length (by default the full one) were requested."""
        training = (pooling, steps or self.steps)
        return len(self.observed.get(training, ())) + sum(ask[:2] == training for ask in self.open)

    @contextlib.contextmanager
    def _assumed_results(self) -> Iterator[None]:
        """Assume that pending trainings yield their expected accuracy, so that the next proposal differs."""
        for ask in self.open:
            place = self._place[ask.pooling]
            self.belief.tell(place, float(self.belief.mean_P[place]), ask.steps < self.steps)
        try:
            yield
        finally:
            for _ in self.open:
                self.belief.without_last()

    @property
    def leader(self) -> int:
        """Index among the candidates of the fully trained one with the highest expected accuracy."""
        trained = {place for place, reduced in zip(self.belief.places, self.belief.reduced, strict=True) if not reduced}
        return max(trained, key=lambda place: (self.belief.mean_P[place], -place))

    def doubt(self, margin: float) -> float:
        """Return the probability that some configuration is truly better than the leader by over ``margin`` points."""
        generator = np.random.Generator(np.random.PCG64([self.seed, len(self.belief)]))
        drawn = self.belief.draws(np.arange(len(self.candidates)), generator)
        return float((drawn.max(1) > drawn[:, self.leader] + margin).mean())

    @property
    def sure(self) -> bool:
        """Whether a configuration better than the leader by the margin is unlikely to exist."""
        margin = self.task.margin
        return margin is not None and len(self.belief) >= _FEWEST and self.doubt(margin) < DOUBT

    def _learn(self, pooling: Pooling, steps: int, accuracy: float) -> None:
        self.belief.tell(self._place[pooling], 100 * accuracy, steps < self.steps)

    def ranking(self) -> np.ndarray:
        """Return scores_P: expected accuracies, where no untrained configuration exceeds the leader."""
        if not len(self.belief):
            return np.zeros(self.space.size)
        expected_P, trained = (
            self.belief.mean_P / 100,
            [self._place[p] for p, steps in self.observed if steps == self.steps],
        )
        capped_P = expected_P.copy()
        if trained:
            capped_P = np.minimum(expected_P, expected_P[self.leader] - 1e-9)
            capped_P[trained] = expected_P[trained]
        if self.space.size == len(self.candidates):
            return capped_P
        places = {self.space.index(pooling): float(capped_P[place]) for pooling, place in self._place.items()}
        return fill(self.space, places)
