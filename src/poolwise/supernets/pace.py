"""Estimate the remaining steps of a search whose length is given in MACs."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

_LAST_STEPS = 100  # recent steps whose mean cost predicts the cost of future steps


class Pace:
    """Predict the remaining steps of a search with a fixed number of MACs.

    A sampler may favor expensive or cheap configurations. Future steps are therefore assumed to cost as much as recent
    ones. At the start, the mean ``macs / steps`` is used.

    Args:
        macs: MACs of all steps.
        steps: Expected number of steps.

    Attributes:
        last: MACs of each recent step.
    """

    def __init__(self, macs: int, steps: int):
        self.macs = macs
        self.last: deque[int] = deque([macs // steps] * _LAST_STEPS, maxlen=_LAST_STEPS)

    def steps_left(self, spent: int, new: Sequence[int]) -> int:
        """Return how many steps the remaining MACs allow.

        Args:
            spent: MACs of all steps so far.
            new: MACs of each step since the last call.
        """
        self.last.extend(new)
        return max(self.macs - spent, 0) * len(self.last) // sum(self.last)
