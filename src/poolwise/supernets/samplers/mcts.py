"""Monte Carlo tree search over pooling positions: one SuperNet."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from poolwise.spaces import Pooling, uniform_below
from poolwise.supernets import assignment as soft
from poolwise.supernets.samplers.base import Sampler
from poolwise.supernets.samplers.registry import register
from poolwise.supernets.samplers.task import Task

EXPLORATION = 1.0


@register("mcts", summary="tree search over pooling positions with UCT: one SuperNet")
class TreeSearch(Sampler):
    """Descend from the first pooling position to the last and take the child with the highest UCT at each level.

    ``UCT = Q + C sqrt(ln N_parent / N)`` with C = 1 (Kocsis and Szepesvári, ECML 2006). Unvisited children come first, in
    random order. Each training updates all nodes on its path: N counts visits, and Q is the first accuracy, then the moving
    average ``0.9 Q + 0.1 accuracy``, because accuracies change as the weights are trained. The first ``warm_up`` share of
    the steps draws uniformly and updates the tree too. Only visited nodes are stored. Javan, Toews, Pedersoli (AutoML 2023)
    compare with tree search, with and without the warm-up.

    Pending asks count as visits in both N and N_parent, although their accuracy is not known yet, so that the asks of a
    block spread over the tree (WU-UCT: Liu et al., *Watch the Unobserved*, ICLR 2020).
    """

    single = True
    prefers = True
    warms_up = True

    def __init__(self, task: Task):
        super().__init__(task)
        self._nodes: dict[tuple[int, ...], tuple[float, int]] = {}  # first stages -> Q, N
        self._open: Counter[tuple[int, ...]] = Counter()  # pending asks that pass through a node

    def _draw_configuration(self) -> int:
        if self.in_warm_up:
            return uniform_below(self.task.draws, self.space.size)
        path: tuple[int, ...] = ()
        while sum(path) < self.space.layers:
            path = (*path, self._child(path))
        return self.space.index(Pooling(path))

    def _expect(self, a: int) -> None:
        self._open.update(self._passed(a))

    def _passed(self, a: int) -> list[tuple[int, ...]]:
        """Return the nodes on the path to a configuration, from the root. The last stage follows from the others."""
        stages = self.space[a].stages
        return [stages[:level] for level in range(len(stages))]

    def _child(self, path: tuple[int, ...]) -> int:
        choices = self.space.next_stages(path)
        if len(choices) == 1:
            return choices[0]
        fresh = [stage for stage in choices if (*path, stage) not in self._nodes]
        untried = [stage for stage in fresh if (*path, stage) not in self._open]
        if untried or len(fresh) == len(choices):
            among = untried or fresh
            return among[uniform_below(self.task.draws, len(among))]
        log_visits = math.log(self._nodes[path][1] + self._open[path])

        def uct(stage: int) -> float:
            child = (*path, stage)
            value, visits = self._nodes[child]
            return value + EXPLORATION * math.sqrt(log_visits / (visits + self._open[child]))

        return max((stage for stage in choices if (*path, stage) in self._nodes), key=uct)

    def _learn(self, a: int, m: int, accuracy: float) -> None:
        for node in self._passed(a):
            value, visits = self._nodes.get(node, (accuracy, 0))
            self._nodes[node] = (soft.moving_average(value, accuracy), visits + 1)
            self._open[node] -= 1
            if not self._open[node]:
                del self._open[node]

    def summary(self) -> dict[str, float]:
        """Return the number of nodes in the tree."""
        return {"nodes": float(len(self._nodes))}

    def _extra_state(self) -> dict[str, Any]:
        return {"nodes": [["-".join(map(str, path)), *node] for path, node in self._nodes.items()]}

    def _restore_extra(self, state: dict[str, Any]) -> None:
        self._nodes = {
            tuple(map(int, path.split("-"))) if path else (): (float(value), int(visits))
            for path, value, visits in state["nodes"]
        }
        self._open = Counter(node for group, _ in self._pending for a in group for node in self._passed(a))
