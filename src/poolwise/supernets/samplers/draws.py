"""Which configuration is next where all are equal: in fair rounds, or independently."""

from __future__ import annotations

from typing import Any

import numpy as np

from poolwise.spaces import uniform_below


class Rounds:
    """Every index of 0 .. size - 1 once a round, in shuffled order (strict fairness).

    The shuffle is that of Fisher and Yates, done one draw at a time. Only moved cards are held, so a round of 10^6
    costs what has been drawn of it.

    Args:
        size: number of indices.
        generator: where the order comes from.
    """

    def __init__(self, size: int, generator: np.random.Generator):
        self.size, self._generator = size, generator
        self._left, self._moved = 0, dict[int, int]()

    def next(self) -> int:
        """One index."""
        if self._left == 0:
            self._left, self._moved = self.size, {}
        place, last = uniform_below(self._generator, self._left), self._left - 1
        drawn, card = self._moved.get(place, place), self._moved.pop(last, last)
        if place != last:
            self._moved[place] = card
        self._left = last
        return drawn

    def state(self) -> dict[str, Any]:
        """Plain values."""
        return {"left": self._left, "moved": [[place, card] for place, card in self._moved.items()]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a ``state()``."""
        self._left, self._moved = int(state["left"]), {int(place): int(card) for place, card in state["moved"]}


class Independent:
    """Uniform and independent draws, with the interface of ``Rounds``."""

    def __init__(self, size: int, generator: np.random.Generator):
        self.size, self._generator = size, generator

    def next(self) -> int:
        """One index."""
        return uniform_below(self._generator, self.size)

    def state(self) -> dict[str, Any]:
        """Plain values: none."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to go back to."""


DRAWS: dict[str, type[Rounds] | type[Independent]] = {"rounds": Rounds, "iid": Independent}
