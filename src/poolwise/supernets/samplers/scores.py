"""Moving averages of scoring accuracy, stored for visited configurations only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from poolwise.supernets import assignment as soft


class Scores:
    """Scores of P configurations on M SuperNets. All unvisited configurations share one row of ones.

    Args:
        size: P.
        supernets: M.

    Attributes:
        rows: scores_RM, float64, R = 1 + visited configurations. Row 0 is shared; each further row is one visited
            configuration.
        weights: weights_R, float64, number of configurations per row (0 for row 0 once all are visited).
    """

    def __init__(self, size: int, supernets: int):
        self.size = size
        self._visited: list[int] = []
        self._places: dict[int, int] = {}
        self._rows = np.ones((16, supernets))
        self._weights = np.ones(16)
        self._weights[0] = size

    def __len__(self) -> int:
        """Return the number of visited configurations."""
        return len(self._visited)

    @property
    def rows(self) -> np.ndarray:
        return self._rows[: len(self) + 1]

    @property
    def weights(self) -> np.ndarray:
        return self._weights[: len(self) + 1]

    def place(self, a: int) -> int:
        """Return the row of a configuration; 0, the shared row, if it is not visited."""
        return self._places.get(a, 0)

    def of(self, indices: Sequence[int]) -> np.ndarray:
        """Return scores_NM of configurations by index."""
        return self._rows[[self.place(a) for a in indices]]

    def visited(self) -> list[int]:
        """Return the indices of the visited configurations, in the order of their rows."""
        return list(self._visited)

    def visited_at(self, row: int) -> int:
        """Return the index of the configuration in a row above 0."""
        return self._visited[row - 1]

    def update(self, a: int, m: int, accuracy: float) -> None:
        """Move the average of configuration ``a`` on SuperNet ``m`` towards ``accuracy``."""
        row = self._places.get(a) or self._add(a)
        self._rows[row, m] = soft.moving_average(float(self._rows[row, m]), accuracy)

    def copy_first(self) -> None:
        """Copy the scores of the first SuperNet to all others."""
        self._rows[:] = self._rows[:, :1]

    def used(self) -> int:
        """Return the number of SuperNets that have a score other than the initial 1."""
        return int((self.rows != 1).any(axis=0).sum())

    def double(self) -> None:
        """Double the number of SuperNets. New ones get copies of the existing scores."""
        self._rows = np.tile(self._rows, 2)

    def _add(self, a: int) -> int:
        self._visited.append(a)
        row = self._places[a] = len(self)
        if row == len(self._rows):
            self._rows = np.concatenate([self._rows, np.ones_like(self._rows)])
            self._weights = np.concatenate([self._weights, np.ones_like(self._weights)])
        self._weights[0] = self.size - len(self)
        return row

    def state(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return {"visited": self.visited(), "rows": self.rows[1:].tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a result of ``state()``."""
        supernets = self._rows.shape[1]
        self._visited = [int(a) for a in state["visited"]]
        self._places = {a: row for row, a in enumerate(self._visited, start=1)}
        known_RM = np.array(state["rows"], np.float64).reshape(len(self), supernets)
        self._rows = np.concatenate([np.ones((1, supernets)), known_RM, np.ones((16, supernets))])
        self._weights = np.ones(len(self._rows))
        self._weights[0] = self.size - len(self)
