"""Regularized evolution: the oldest member of the population is removed, regardless of its accuracy.

Source: Real et al., "Regularized Evolution for Image Classifier Architecture Search" (AAAI 2019), algorithm 1. A
mutation moves one pooling by one layer. Population and tournament are small because budgets are tens of trainings.
Untrained neighbors are preferred, since repeating a training teaches little in a small space.
"""

from __future__ import annotations

from collections import deque

from poolwise.selection.strategies.base import Strategy, StrategyTask, register
from poolwise.spaces import Pooling

POPULATION = 8
TOURNAMENT = 3


@register("regularised-evolution")
class RegularisedEvolution(Strategy):
    """Full trainings of mutations of the best of a few randomly drawn members of the population."""

    stream = "RegularisedEvolution"

    def __init__(self, task: StrategyTask) -> None:
        super().__init__(task)
        self.population: deque[tuple[Pooling, float]] = deque(maxlen=POPULATION)

    def _next(self) -> tuple[Pooling, int] | None:
        generator = self.streams["evolve"]
        if len(self.population) < POPULATION:
            return self.uniform(generator), self.steps
        drawn = generator.choice(len(self.population), TOURNAMENT, replace=False)
        parent, _ = max((self.population[i] for i in drawn), key=lambda member: member[1])
        around = self.space.neighbours(parent) or [parent]
        children = [pooling for pooling in around if self.unseen(pooling)] or around
        return children[int(generator.integers(len(children)))], self.steps

    def _learn(self, pooling: Pooling, steps: int, accuracy: float) -> None:
        self.population.append((pooling, accuracy))
