"""Draw configurations without preference: in shuffled rounds, or independently."""

from __future__ import annotations

from typing import Any

import numpy as np

from poolwise.spaces import uniform_below


class Rounds:
    """Draw every index of 0 .. size - 1 once per round, in shuffled order (strict fairness).

    A Fisher-Yates shuffle runs one draw at a time and stores only the indices that it has moved, so memory grows with the
    number of draws and not with ``size``.

    Args:
        size: Number of indices.
        generator: Random generator of the order.
    """

    def __init__(self, size: int, generator: np.random.Generator):
        self.size, self._generator = size, generator
        self._left, self._moved = 0, dict[int, int]()

    def next(self) -> int:
        """Return the next index."""
        if self._left == 0:
            self._left, self._moved = self.size, {}
        place, last = uniform_below(self._generator, self._left), self._left - 1
        drawn, card = self._moved.get(place, place), self._moved.pop(last, last)
        if place != last:
            self._moved[place] = card
        self._left = last
        return drawn

    def state(self) -> dict[str, Any]:
        """Return the state as JSON values, without the generator."""
        return {"left": self._left, "moved": [[place, card] for place, card in self._moved.items()]}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a result of ``state()``."""
        self._left, self._moved = int(state["left"]), {int(place): int(card) for place, card in state["moved"]}


class Independent:
    """Draw uniformly and independently, with the interface of ``Rounds``."""

    def __init__(self, size: int, generator: np.random.Generator):
        self.size, self._generator = size, generator

    def next(self) -> int:
        """Return the next index."""
        return uniform_below(self._generator, self.size)

    def state(self) -> dict[str, Any]:
        """Return an empty state."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Do nothing, because there is no state."""


DRAWS: dict[str, type[Rounds] | type[Independent]] = {"rounds": Rounds, "iid": Independent}
