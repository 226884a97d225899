"""The balanced mixture of SuperNets (Javan, Toews, Pedersoli, AutoML 2023). M = 1 is the single SuperNet."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from poolwise.errors import RequestError
from poolwise.searching import assignment as soft
from poolwise.space import Pooling, PoolingSpace

MAX_CONFIGURATIONS = 20_000  # scores are a dense [P, M] matrix


class BalancedMixture:
    """Draws configurations fairly and SuperNets from the balanced assignment.

    Args:
        space: configurations.
        supernets: M.
        steps: length of the search, over which the temperature rises.
        temperature: start and end.
        draw: ``rounds`` visits every configuration once before any a second time; ``iid`` draws independently.
        draws, assigns: generators of the configuration and of the SuperNet.
    """

    def __init__(
        self,
        space: PoolingSpace,
        supernets: int,
        steps: int,
        temperature: tuple[float, float],
        draw: str,
        draws: np.random.Generator,
        assigns: np.random.Generator,
    ):
        if space.size > MAX_CONFIGURATIONS:
            raise RequestError(
                f"the space has {space.size} configurations and this search holds a score for each: up to"
                f" {MAX_CONFIGURATIONS} are allowed; ask for fewer poolings"
            )
        self.space, self.supernets, self.steps, self.draw = space, supernets, steps, draw
        self._temperature, self._draws, self._assigns = temperature, draws, assigns
        self._scores = np.ones((len(space), supernets))
        self._round: list[int] = []
        self._step = 0
        self._asked: deque[tuple[int, int]] = deque()

    @property
    def scores(self) -> np.ndarray:
        return self._scores

    @property
    def temperature(self) -> float:
        return soft.temperature(self._step, self.steps, *self._temperature)

    def assignment(self) -> np.ndarray:
        return soft.balance(self._scores, self.temperature)

    def _next_configuration(self) -> int:
        if self.draw == "iid":
            return int(self._draws.integers(len(self.space)))
        if not self._round:
            self._round = self._draws.permutation(len(self.space)).tolist()
        return self._round.pop()

    def ask(self) -> tuple[Pooling, int]:
        a = self._next_configuration()
        chances_M = self.assignment()[a]
        m = int(np.searchsorted(np.cumsum(chances_M) / chances_M.sum(), self._assigns.random(), side="right"))
        self._asked.append((a, min(m, self.supernets - 1)))
        return self.space[a], self._asked[-1][1]

    def tell(self, pooling: Pooling, supernet: int, accuracy: float) -> None:
        a = self.space.index(pooling)
        answered = self._asked.popleft() if self._asked else None
        assert answered == (a, supernet), "tells must answer the asks in order"
        self._scores[a, supernet] = soft.moving_average(self._scores[a, supernet], accuracy)
        self._step += 1

    def state(self) -> dict[str, Any]:
        return {"scores": self._scores.tolist(), "round": list(self._round), "step": self._step}

    def restore(self, state: dict[str, Any]) -> None:
        self._scores = np.array(state["scores"], np.float64)
        self._round, self._step = list(state["round"]), int(state["step"])
        self._asked.clear()
