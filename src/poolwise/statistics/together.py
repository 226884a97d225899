"""One score from shared weights and short trainings, which err apart: both in equal parts, where both are more than noise.

Which of the two is nearer to the truth cannot be told from a few dozen configurations, and weights that are estimated from so
few lose more than equal ones (Dawes, "The robust beauty of improper linear models in decision making", American Psychologist
1979). The same goes for the count of productive convolutions beside them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from poolwise.spaces import Pooling
from poolwise.statistics.fusion import FEWEST, Fused, correlation, fuse, scale, standard
from poolwise.statistics.signal import Signal, by_chance, signal

_DOUBT = 0.01  # that noise is taken for more where shares are set


@dataclass(frozen=True)
class Together:
    """What two scores of the same configurations say.

    Attributes:
        scores: [P] float64 in the unit of the shared ones; not smoothed.
        own_P, shared_P: the two, as they came.
        own, shared: signs that short trainings, and that shared weights, are more than noise.
    """

    scores: np.ndarray
    own_P: np.ndarray
    shared_P: np.ndarray
    own: Signal
    shared: Signal

    @property
    def used(self) -> bool:
        """Short trainings count."""
        return self.own.found

    def __str__(self) -> str:
        verdict = "they are noise, and shared weights alone count"
        if self.own.found:
            verdict = "they count half" if self.shared.found else "they alone count, shared weights are noise"
        return f"{self.own}; {verdict}"


def together(
    poolings: Collection[Pooling], shared_P: Sequence[float] | np.ndarray, own_P: Sequence[float] | np.ndarray
) -> Together:
    """Put accuracies on shared weights and scores of short trainings together; each standardised over configurations.

    Where short trainings say nothing, or go against the shared weights beyond chance, the shared weights are alone.
    """
    own_P, shared_P = np.asarray(own_P, float), np.asarray(shared_P, float)
    own, shared = signal(poolings, own_P, shared_P), signal(poolings, shared_P, own_P)
    scores_P = _halves(own_P, [shared_P] if shared.found else [], shared_P) if own.found else shared_P
    return Together(scores_P, own_P, shared_P, own, shared)


def fuse_parts(
    poolings: Collection[Pooling],
    both: Together,
    count_P: Sequence[float] | np.ndarray | None,
    trials: Mapping[int, float] | None = None,
) -> Fused:
    """The estimate where short trainings count: half the say is theirs, the other half that of the other parts, equally.

    Those are shared weights, where they are more than noise, and the count, which both know nothing of how a configuration
    trains on its own. It is so where neighbouring placements predict scores and count beyond chance (99 %) and neither
    contradicts the other, or stand-alone trainings, beyond chance. Otherwise, and where short trainings are noise, ``fuse``
    decides how far to trust which. Arguments are those of ``fuse``.
    """
    if not both.used:
        return fuse(poolings, both.shared_P, count_P, trials=trials)
    apart = fuse(poolings, both.scores, count_P, trials=trials, own=True)
    if apart.count is None:
        return apart
    count_P = np.asarray(count_P, float)
    if not _sound(poolings, both.scores, count_P, trials or {}):
        return apart
    others = {**({"shared": both.shared_P} if both.shared.found else {}), "productive": count_P}
    whole = fuse(poolings, _halves(both.own_P, list(others.values()), both.shared_P), None, trials=trials, own=True)
    shares = {"short": 0.5, **dict.fromkeys(others, 0.5 / len(others))}
    return replace(
        whole,
        smoothed=apart.smoothed,
        scores=replace(apart.scores, weight=whole.scores.weight * (1 - shares["productive"])),
        count=replace(apart.count, weight=whole.scores.weight * shares["productive"]),
        agreement=apart.agreement,
        shares=shares,
    )


def _halves(own_P: np.ndarray, others: Sequence[np.ndarray], unit_P: np.ndarray) -> np.ndarray:
    """Own scores for one half and the mean of the others for the other, each standardised; in the unit of ``unit_P``."""
    told_P = standard(own_P)
    if others:
        told_P = (told_P + np.mean([standard(other_P) for other_P in others], axis=0)) / 2
    return unit_P.mean() + scale(unit_P) * told_P


def _sound(
    poolings: Collection[Pooling], scores_P: np.ndarray, count_P: np.ndarray, trials: Mapping[int, float]
) -> bool:
    """Scores and count are smooth and neither contradicts the other or trainings, beyond chance."""
    if len(trials) >= FEWEST:
        trained_P = np.array(list(trials.values()))
        against = -by_chance(len(trials), _DOUBT)
        if any(correlation(part_P[list(trials)], trained_P) < against for part_P in (scores_P, count_P)):
            return False
    return all(signal(poolings, *two, _DOUBT).smooth for two in ((scores_P, count_P), (count_P, scores_P)))
