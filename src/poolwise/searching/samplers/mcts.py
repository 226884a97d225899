"""Monte-Carlo tree search over pooling positions: one SuperNet."""

from __future__ import annotations

import math
from typing import Any

from poolwise.searching import assignment as soft
from poolwise.searching.samplers.base import Sampler, Task
from poolwise.searching.samplers.registry import register
from poolwise.space import Pooling, uniform_below

EXPLORATION = 1.0


@register("mcts", summary="tree search over pooling positions with UCT: one SuperNet")
class TreeSearch(Sampler):
    """Descends from the first pooling position to the last and takes at each level the child of highest UCT.

    ``UCT = Q + C sqrt(ln N_parent / N)`` with C = 1 (Kocsis and Szepesvári, ECML 2006). Children without a visit come
    first, in random order. Every node of the path of what was trained is updated: N counts, Q is the first accuracy and then
    the moving average ``0.9 Q + 0.1 accuracy`` (a moving average because the weights, and so the accuracies, change;
    Su et al., CVPR 2021). The first ``warm_up`` share of the steps draws uniformly and updates the tree as well. The tree
    holds nodes that were visited and no others.
    """

    single = True
    warms_up = True

    def __init__(self, task: Task):
        super().__init__(task)
        self._nodes: dict[tuple[int, ...], tuple[float, int]] = {}  # first stages -> Q, N

    def _choose(self) -> tuple[int, int]:
        if self.warming:
            return uniform_below(self.task.draws, self.space.size), 0
        path: tuple[int, ...] = ()
        while len(path) <= self.space.poolings:
            path = (*path, self._child(path))
        return self.space.index(Pooling(path)), 0

    def _child(self, path: tuple[int, ...]) -> int:
        choices = self.space.next_stages(path)
        if len(choices) == 1:
            return choices[0]
        fresh = [stage for stage in choices if (*path, stage) not in self._nodes]
        if fresh:
            return fresh[uniform_below(self.task.draws, len(fresh))]
        log_visits = math.log(self._nodes[path][1])

        def uct(stage: int) -> float:
            child = (*path, stage)
            value, visits = self._nodes[child]
            return value + EXPLORATION * math.sqrt(log_visits / visits)

        return max(choices, key=uct)

    def _learn(self, a: int, m: int, accuracy: float) -> None:
        stages = self.space[a].stages
        for level in range(self.space.poolings + 1):
            value, visits = self._nodes.get(stages[:level], (accuracy, 0))
            self._nodes[stages[:level]] = (soft.moving_average(value, accuracy), visits + 1)

    def summary(self) -> dict[str, float]:
        """How many nodes the tree has."""
        return {"nodes": float(len(self._nodes))}

    def _own_state(self) -> dict[str, Any]:
        return {"nodes": [["-".join(map(str, path)), *node] for path, node in self._nodes.items()]}

    def _restore_own(self, state: dict[str, Any]) -> None:
        self._nodes = {
            tuple(map(int, path.split("-"))) if path else (): (float(value), int(visits))
            for path, value, visits in state["nodes"]
        }
