"""One score from shared weights and short trainings, which err apart: both in equal parts, where both are more than noise.

Which of the two is nearer to the truth cannot be told from a few dozen configurations, and weights that are estimated from so
few lose more than equal ones (Dawes, "The robust beauty of improper linear models in decision making", American Psychologist
1979).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from poolwise.metrics.fusion import scale, standard
from poolwise.metrics.signal import Signal, signal
from poolwise.space import Pooling


@dataclass(frozen=True)
class Together:
    """What two scores of the same configurations say.

    Attributes:
        scores: [P] float64 in the unit of the shared ones; not smoothed.
        own, shared: signs that short trainings, and that shared weights, are more than noise.
    """

    scores: np.ndarray
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
    shared_P = np.asarray(shared_P, float)
    own, shared = signal(poolings, own_P, shared_P), signal(poolings, shared_P, own_P)
    if not own.found:
        return Together(shared_P, own, shared)
    told_P = standard(np.asarray(own_P, float))
    if shared.found:
        told_P = (told_P + standard(shared_P)) / 2
    return Together(shared_P.mean() + scale(shared_P) * told_P, own, shared)
