"""Few trainings where they tell most: a surrogate of all configurations, its hints trusted as far as trainings bear them out.

The default is trained first. While there is much to find, the configuration goes next that is most probably better than
the best so far (probability of improvement: few trainings ask for finding something better, not for the map). In the last
part, the best and its likeliest rival are told apart: whichever of the two has fewer trainings gets another one (after
Russo, "Simple Bayesian Algorithms for Best-Arm Identification", Operations Research 2020, with the leader and the
challenger taken, not drawn).

Where there is room for it, shorter trainings are tried beside whole ones, and go ahead of them once they agree.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from poolwise.rankings.smoothing import fill, smooth
from poolwise.selection.strategies.base import Method, Task, register
from poolwise.selection.strategies.surrogate import Surrogate
from poolwise.spaces import Pooling, positions

EXPLORING = 0.6  # share of the trainings that look for something better
DOUBT = 0.05  # probability of something better, below which nothing more is asked
_FEWEST = 3  # trainings before that is believed
CANDIDATES = 1024  # of a space that is larger
SHORT = 3  # a shorter training has a SHORTth of the steps
ROOM = 12  # whole trainings that there is room for, before shorter ones are tried
PAIRS = 4  # configurations trained at both lengths, before their agreement is believed
AGREE = 0.75  # correlation from which shorter trainings go ahead of whole ones


@register("refine")
class Refine(Method):
    """Leader and challenger of a surrogate (``trialing.surrogate``).

    Attributes:
        belief: what is known by now.
        candidates: the configurations that it is about: all, or in a large space a uniform draw.
    """

    stream = "Refine"
    batches = True

    def __init__(self, task: Task) -> None:
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
        begin = self.task.default
        if begin is not None and not self._trainings(begin):
            return begin, self.steps
        if not len(self.belief):
            return self.candidates[self._hinted()], self.steps
        with self._pretended():
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
        whole = np.array([self._trainings(pooling) for pooling in self.candidates])
        if not self._room:
            return self._promising(better_P, whole == 0), self.steps
        short = np.array([self._trainings(pooling, self._short) for pooling in self.candidates])
        pairs = int(((whole > 0) & (short > 0)).sum())
        if pairs < PAIRS:  # every whole training gets its shorter one
            lacking = (whole > 0) & (short == 0)
            if lacking.any():
                return self.candidates[int(np.flatnonzero(lacking)[0])], self._short
            return self._promising(better_P, whole == 0), self.steps
        new = self._promising(better_P, whole == 0)
        if self.belief.agreement >= AGREE and not short[self._place[new]]:
            return new, self._short
        return new, self.steps

    def _promising(self, better_P: np.ndarray, allowed: np.ndarray) -> Pooling:
        """The likeliest of what is allowed to be better; of all where nothing is allowed."""
        return self.candidates[int(np.where(allowed, better_P, -1.0).argmax() if allowed.any() else better_P.argmax())]

    def _hinted(self) -> int:
        """Where the hints alone would begin; a uniform draw without any."""
        hinted_P = self.belief.hints_JP.sum(0)
        return int(hinted_P.argmax()) if hinted_P.any() else int(self.streams["first"].integers(len(self.candidates)))

    @property
    def _short(self) -> int:
        return max(self.steps // SHORT, 1)

    @property
    def _room(self) -> bool:
        """Whether shorter trainings can pay: what they cost to try is little of the whole."""
        if self.task.trials is not None:
            return self.task.trials >= ROOM
        return self.macs >= ROOM * self.cost(self.candidates[len(self.candidates) // 2], self.steps)

    @property
    def _progress(self) -> float:
        return max(
            self.spent / self.macs if self.macs else 1.0, self.count / self.task.trials if self.task.trials else 0.0
        )

    def _trainings(self, pooling: Pooling, steps: int | None = None) -> int:
        """Trainings of a length (the whole one) that were asked for."""
        wanted = (pooling, steps or self.steps)
        return len(self.told.get(wanted, ())) + sum(ask[:2] == wanted for ask in self.open)

    @contextlib.contextmanager
    def _pretended(self) -> Iterator[None]:
        """What was asked for and not told yet comes out as expected, so that the next one looks elsewhere."""
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
        """Place among the candidates of the trained one with the highest expected accuracy."""
        trained = {place for place, short in zip(self.belief.places, self.belief.short, strict=True) if not short}
        return max(trained, key=lambda place: (self.belief.mean_P[place], -place))

    def doubt(self, margin: float) -> float:
        """Probability that a configuration is truly better than the leader by more than ``margin`` points."""
        generator = np.random.Generator(np.random.PCG64([self.seed, len(self.belief)]))
        drawn = self.belief.draws(np.arange(len(self.candidates)), generator)
        return float((drawn.max(1) > drawn[:, self.leader] + margin).mean())

    @property
    def sure(self) -> bool:
        """Nothing is left that is probably better by the margin."""
        margin = self.task.margin
        return margin is not None and len(self.belief) >= _FEWEST and self.doubt(margin) < DOUBT

    def _learn(self, pooling: Pooling, steps: int, accuracy: float) -> None:
        self.belief.tell(self._place[pooling], 100 * accuracy, steps < self.steps)

    def ranking(self) -> np.ndarray:
        """scores_P: expected accuracies; none that was not trained is above the leader."""
        if not len(self.belief):
            return np.zeros(self.space.size)
        expected_P, trained = (
            self.belief.mean_P / 100,
            [self._place[p] for p, steps in self.told if steps == self.steps],
        )
        capped_P = expected_P.copy()
        if trained:
            capped_P = np.minimum(expected_P, expected_P[self.leader] - 1e-9)
            capped_P[trained] = expected_P[trained]
        if self.space.size == len(self.candidates):
            return capped_P
        places = {self.space.index(pooling): float(capped_P[place]) for pooling, place in self._place.items()}
        return fill(self.space, places)
