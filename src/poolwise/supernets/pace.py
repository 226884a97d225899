"""How many steps a search has left where its length is given in multiply-adds."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

_LAST_STEPS = 100  # steps whose mean cost is expected of those to come


class Pace:
    """Predict the remaining steps of a search of a fixed number of multiply-adds.

    A sampler may prefer expensive or cheap configurations, so future steps are expected to cost what the last ones did; at
    first the mean.

    Args:
        macs: multiply-adds of all steps.
        steps: expected number of steps.

    Attributes:
        last: multiply-adds of the last steps.
    """

    def __init__(self, macs: int, steps: int):
        self.macs = macs
        self.last: deque[int] = deque([macs // steps] * _LAST_STEPS, maxlen=_LAST_STEPS)

    def steps_left(self, spent: int, new: Sequence[int]) -> int:
        """Return how many steps the rest pays for.

        Args:
            spent: multiply-adds of all steps so far.
            new: multiply-adds of each step since the last call.
        """
        self.last.extend(new)
        return max(self.macs - spent, 0) * len(self.last) // sum(self.last)
