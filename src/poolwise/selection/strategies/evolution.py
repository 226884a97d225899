"""Regularised evolution: the oldest dies, whatever it was worth.

Source: Real et al., "Regularized Evolution for Image Classifier Architecture Search" (AAAI 2019), algorithm 1. The
mutation moves one pooling by one layer. Population and tournament are small, as budgets of tens of trainings ask for;
a configuration that was not trained yet is preferred among the neighbours, since a repeat teaches little in small spaces.
"""

from __future__ import annotations

from collections import deque

from poolwise.selection.strategies.base import Method, Task, register
from poolwise.spaces import Pooling

POPULATION = 8
TOURNAMENT = 3


@register("regularised-evolution")
class RegularisedEvolution(Method):
    """Full trainings of children of the best of a few random members of the population."""

    stream = "RegularisedEvolution"

    def __init__(self, task: Task) -> None:
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
