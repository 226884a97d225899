"""Draw configurations without preference: in shuffled rounds, or independently; one at a time, or in groups.

A group holds consecutive indices. The order of a space sorts configurations by their stages, which is the depth-first order of
the tree of prefixes, so consecutive ones share the longest prefixes. The order counts as cyclic: the last index is followed by
the first, so that every index has as many neighbors as any other. (Such a group shares the first layer at least.)
"""

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

    @property
    def starts(self) -> bool:
        """Whether the next index is the first of a round."""
        return self._left == 0

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


class GroupRounds:
    """Draw groups of consecutive indices, every index of 0 .. size - 1 once per round, in shuffled order (strict fairness).

    A round has ``ceil(size / most)`` groups, whose sizes differ by at most 1. The order is cyclic, and each round cuts it at
    another random place, so that the members of the groups change between rounds.

    Args:
        size: Number of indices.
        most: Maximum number of indices in a group.
        generator: Random generator of the places and of the order of the groups.
    """

    def __init__(self, size: int, most: int, generator: np.random.Generator):
        self.size, self.groups, self._generator = size, -(-size // most), generator
        self._order, self._offset = Rounds(self.groups, generator), 0

    def next(self) -> list[int]:
        """Return the indices of the next group."""
        if self._order.starts:
            self._offset = uniform_below(self._generator, self.size)
        group = self._order.next()
        first, end = group * self.size // self.groups, (group + 1) * self.size // self.groups
        return consecutive(self._offset + first, end - first, self.size)

    def state(self) -> dict[str, Any]:
        """Return the state as JSON values, without the generator."""
        return {"offset": self._offset, "order": self._order.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a result of ``state()``."""
        self._offset = int(state["offset"])
        self._order.restore(state["order"])


def group_sizes(size: int, most: int) -> dict[int, int]:
    """Return the sizes of the groups of a round, and how many groups have each."""
    groups = -(-size // most)
    least, larger = divmod(size, groups)
    return {least: groups - larger, **({least + 1: larger} if larger else {})}


def consecutive(first: int, count: int, size: int) -> list[int]:
    """Return ``count`` consecutive indices of the cyclic order of 0 .. size - 1, at most all of them."""
    return [(first + i) % size for i in range(min(count, size))]


DRAWS: dict[str, type[Rounds] | type[Independent]] = {"rounds": Rounds, "iid": Independent}
