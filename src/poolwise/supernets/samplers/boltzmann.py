"""Boltzmann exploration: one SuperNet; better configurations are drawn more often."""

from __future__ import annotations

from bisect import bisect_right, insort
from typing import Any

import numpy as np

from poolwise.spaces import uniform_below
from poolwise.supernets import assignment as soft
from poolwise.supernets.samplers.base import Sampler
from poolwise.supernets.samplers.registry import register
from poolwise.supernets.samplers.task import Task


@register("boltzmann", summary="Boltzmann exploration: one SuperNet, configurations drawn from softmax(T * score)")
class Boltzmann(Sampler):
    """Draw a configuration with ``p(a) ~ exp(T scores[a])``; the first ``warm_up`` share of the steps is uniform.

    Boltzmann exploration (Cesa-Bianchi, Gentile, Lugosi, Neu, NeurIPS 2017) over configurations; Javan, Toews, Pedersoli
    (AutoML 2023) compare with it, with and without the warm-up. All unvisited configurations have the score 1. They are
    one entry of the softmax, weighted by their number; one of them is then drawn uniformly.
    """

    single = True
    prefers = True
    warms_up = True

    def __init__(self, task: Task):
        super().__init__(task)
        self._sorted: list[int] = []  # indices of the visited configurations

    def _chances(self) -> np.ndarray:
        """Return chances_R, the probability of each row of the table. Row 0 stands for all unvisited configurations."""
        weights_R = self.table.weights
        logits_R = self.temperature * self.table.rows[:, 0] + np.log(np.maximum(weights_R, 1e-300))
        logits_R[weights_R == 0] = -np.inf
        return soft.softmax(logits_R[None])[0]

    def _draw_configuration(self) -> int:
        if self.in_warm_up:
            return uniform_below(self.task.draws, self.space.size)
        cumulated_R = np.cumsum(self._chances())
        row = int(np.searchsorted(cumulated_R / cumulated_R[-1], self.task.draws.random(), side="right"))
        if row == 0:
            return self._unvisited(uniform_below(self.task.draws, self.space.size - len(self._sorted)))
        return self.table.visited_at(min(row, len(self._sorted)))

    def _unvisited(self, k: int) -> int:
        """Return the index of the k-th unvisited configuration, counted from 0."""
        visited = self._sorted
        return k + bisect_right(range(len(visited)), k, key=lambda i: visited[i] - i)

    def _learn(self, a: int, m: int, accuracy: float) -> None:
        if len(self._sorted) < len(self.table):
            insort(self._sorted, a)

    def summary(self) -> dict[str, float]:
        """Return the temperature and the entropy of the draw in nats, which is ln P if uniform."""
        chances_R, weights_R = self._chances(), self.table.weights
        each_R = np.where(chances_R > 0, chances_R / np.maximum(weights_R, 1), 1.0)
        return {"temperature": self.temperature, "draw_entropy": max(float(-(chances_R @ np.log(each_R))), 0.0)}

    def _restore_extra(self, state: dict[str, Any]) -> None:
        self._sorted = sorted(self.table.visited())
