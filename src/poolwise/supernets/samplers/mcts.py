"""Monte-Carlo tree search over pooling positions: one SuperNet."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from poolwise.spaces import Pooling, uniform_below
from poolwise.supernets import assignment as soft
from poolwise.supernets.samplers.base import Sampler, Task
from poolwise.supernets.samplers.registry import register

EXPLORATION = 1.0


@register("mcts", summary="tree search over pooling positions with UCT: one SuperNet")
class TreeSearch(Sampler):
    """Descends from the first pooling position to the last and takes at each level the child of highest UCT.

    ``UCT = Q + C sqrt(ln N_parent / N)`` with C = 1 (Kocsis and Szepesvári, ECML 2006). Children without a visit come
    first, in random order. Every node on the path of what was trained is updated: N counts, Q is the first accuracy and
    then the moving average ``0.9 Q + 0.1 accuracy``, because the weights change and old accuracies with them. The
    first ``warm_up`` share of the steps draws uniformly and updates the tree as well. The tree holds nodes that were
    visited and no others. Javan, Toews, Pedersoli (AutoML 2023) compare with tree search, with and without the start.

    Asks that wait for their answer count as visits in both N of UCT, though their accuracy is not known yet, so that the
    asks of a block spread out (WU-UCT: Liu et al., *Watch the Unobserved*, ICLR 2020).
    """

    single = True
    prefers = True
    warms_up = True

    def __init__(self, task: Task):
        super().__init__(task)
        self._nodes: dict[tuple[int, ...], tuple[float, int]] = {}  # first stages -> Q, N
        self._open: Counter[tuple[int, ...]] = Counter()  # asks without an answer that pass a node

    def _draw_configuration(self) -> int:
        if self.warming:
            a = uniform_below(self.task.draws, self.space.size)
        else:
            path: tuple[int, ...] = ()
            while sum(path) < self.space.layers:
                path = (*path, self._child(path))
            a = self.space.index(Pooling(path))
        self._open.update(self._passed(a))
        return a

    def _passed(self, a: int) -> list[tuple[int, ...]]:
        """Nodes on the path to a configuration, from the root; the last stage follows from the others."""
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
        """How many nodes the tree has."""
        return {"nodes": float(len(self._nodes))}

    def _own_state(self) -> dict[str, Any]:
        return {"nodes": [["-".join(map(str, path)), *node] for path, node in self._nodes.items()]}

    def _restore_own(self, state: dict[str, Any]) -> None:
        self._nodes = {
            tuple(map(int, path.split("-"))) if path else (): (float(value), int(visits))
            for path, value, visits in state["nodes"]
        }
        self._open = Counter(node for a, _ in self._asked for node in self._passed(a))
