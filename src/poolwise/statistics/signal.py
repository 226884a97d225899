"""Whether the scores of weights that a configuration shares with none say anything."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from poolwise.spaces import Pooling
from poolwise.statistics.fusion import correlation
from poolwise.statistics.smoothing import reliabilities

CHANCE = 0.05  # that noise is taken for more, for each of the two signs
_ORDERS = 199  # random orders of the scores that tell what noise looks like


@dataclass(frozen=True)
class Signal:
    """Two signs that scores are more than noise, each with the figure that noise stays below, with 95 % unless told otherwise.

    Attributes:
        agreement, chance: correlation with scores that err in another way.
        reliability, noise: share of the variance that neighbouring placements predict.
    """

    agreement: float
    chance: float
    reliability: float
    noise: float

    @property
    def found(self) -> bool:
        """Either sign is enough, but smooth scores that go against the other ones beyond chance are no sign of the truth."""
        return self.agreement > self.chance or self.smooth

    @property
    def smooth(self) -> bool:
        """The second sign."""
        return self.agreement > -self.chance and self.reliability > self.noise

    def __str__(self) -> str:
        return (
            f"agree with scores on shared weights by {self.agreement:.2f} (chance up to {self.chance:.2f}), and neighbours"
            f" predict {100 * self.reliability:.0f} % of their variance (chance up to {100 * self.noise:.0f} %)"
        )


def by_chance(pairs: int, level: float = CHANCE) -> float:
    """The correlation of so many pairs, at least 4, that noise is above with a probability of ``level`` (Fisher's z)."""
    return float(np.tanh(NormalDist().inv_cdf(1 - level) / np.sqrt(pairs - 3)))


def signal(
    poolings: Collection[Pooling],
    own_P: Sequence[float] | np.ndarray,
    shared_P: Sequence[float] | np.ndarray,
    level: float = CHANCE,
) -> Signal:
    """Look for signs of the truth in ``own_P``, at least 4 scores: by Fisher's z, and by random orders of the same scores.

    ``level``: probability that noise is taken for more, by each of the two.
    """
    own_P = np.asarray(own_P, float)
    assert len(own_P) > 3, "Fisher's z needs four pairs"
    generator = np.random.default_rng(0)
    orders_PN = np.stack([own_P, *(generator.permutation(own_P) for _ in range(_ORDERS))], axis=1)
    own, *noise = reliabilities(poolings, orders_PN)
    return Signal(
        correlation(own_P, np.asarray(shared_P, float)),
        by_chance(len(own_P), level),
        float(own),
        float(np.quantile(noise, 1 - level)),
    )
