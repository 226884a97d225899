"""The interface of every sampler: ask, train what it says, tell it how that went."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from poolwise.space import Pooling


class Sampler(Protocol):
    """Decides which configuration trains on which SuperNet. Knows no network.

    ``ask`` and ``tell`` alternate; a ``tell`` that does not answer the last ``ask`` is a programming error.
    """

    @property
    def scores(self) -> np.ndarray:
        """scores_PM float64: moving average of scoring accuracy."""

    def assignment(self) -> np.ndarray:
        """assignment_PM float64 at the present temperature."""

    def ask(self) -> tuple[Pooling, int]:
        """The next configuration and SuperNet."""

    def tell(self, pooling: Pooling, supernet: int, accuracy: float) -> None:
        """Scoring accuracy (0 to 1) of what ``ask`` returned, after its training step."""

    def state(self) -> dict[str, Any]:
        """Everything that ``restore`` needs to go on identically, as plain values (generators aside)."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a ``state()``."""
