"""The balanced mixture of SuperNets (Javan, Toews, Pedersoli, AutoML 2023). M = 1 is the single SuperNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from poolwise.supernets import assignment as soft
from poolwise.supernets.samplers.base import Sampler, Task, draw_from
from poolwise.supernets.samplers.draws import DRAWS
from poolwise.supernets.samplers.registry import register


@register("mixture", summary="balanced mixture of SuperNets: soft assignment, every SuperNet equally likely on average")
class BalancedMixture(Sampler):
    """Draw configurations as ``Task.draw`` specifies and SuperNets from ``p(m|a) = softmax_m(T scores[a,m] + v_m)``.

    The potentials v of each step are the initial guess for the next, so balancing takes only a few Newton steps.
    """

    warms_up = True
    doubles = True

    def __init__(self, task: Task):
        super().__init__(task)
        self._draw = DRAWS[task.draw](self.space.size, task.draws)
        self._potentials_M = np.zeros(self.supernets)

    def _balance(self) -> soft.Assignment:
        """Return the assignment of every row of the table at the current temperature."""
        return soft.balance(self.table.rows, self.temperature, self.table.weights, self._potentials_M)

    def _assignment(self, indices: Sequence[int]) -> np.ndarray:
        return self._balance().probabilities_RM[[self.table.place(a) for a in indices]]

    def _draw_configuration(self) -> int:
        return self._draw.next()

    @property
    def in_rounds(self) -> bool:
        return self.task.draw == "rounds"

    def _draw_supernet(self, a: int) -> int:
        return self._draw_group_supernet([a])

    def _draw_group_supernet(self, indices: Sequence[int]) -> int:
        """Return a SuperNet drawn from the mean of the rows p(m|a) of these configurations."""
        probabilities_RM, self._potentials_M = self._balance()
        return draw_from(probabilities_RM[[self.table.place(a) for a in indices]].mean(axis=0), self.task.assigns)

    def double(self) -> None:
        super().double()
        self._potentials_M = np.tile(self._potentials_M, 2)

    def summary(self) -> dict[str, float]:
        """Return the temperature, and the mean entropy and imbalance of the assignment in nats, over all configurations.

        Return only the temperature while the first SuperNet trains alone.
        """
        if self.first_trains_alone:
            return {"temperature": self.temperature}
        rows_RM, weights_R = self._balance().probabilities_RM, self.table.weights
        return {
            "temperature": self.temperature,
            "entropy": soft.entropy(rows_RM, weights_R),
            "imbalance": soft.imbalance(rows_RM, weights_R),
        }

    def _extra_state(self) -> dict[str, Any]:
        return {"draw": self._draw.state(), "potentials": self._potentials_M.tolist()}

    def _restore_extra(self, state: dict[str, Any]) -> None:
        self._draw.restore(state["draw"])
        self._potentials_M = np.array(state["potentials"], np.float64)
