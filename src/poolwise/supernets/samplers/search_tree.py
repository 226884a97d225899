"""A binary tree with one configuration in each leaf, and draws from it by UCT and a softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from poolwise.supernets import assignment as soft

EXPLORATION = 1.0  # C
TEMPERATURE = 0.7  # T


class SearchTree:
    """Descend from the root by ``softmax(UCT / T)`` over two children, ``UCT = Q + C sqrt(ln N_parent / N)``.

    N counts the visits of a node. Q is the first accuracy of a visit, then the moving average ``0.9 Q + 0.1 accuracy``. UCT
    of an unvisited child is infinite, so it is drawn first; of two, either is equally likely.

    Pending draws count as visits, although their accuracy is not known yet, so that those of a block spread over the tree
    (WU-UCT: Liu et al., ICLR 2020). A child with only pending draws has no Q: its sibling goes first.

    Args:
        children: The two children of each inner node. With P leaves, nodes 0 to P - 1 are the leaves, and P + i is inner node
            i, as in ``scipy.cluster.hierarchy``. Children come before their parent, so the root is the last node.
    """

    def __init__(self, children: Sequence[tuple[int, int]]):
        self.children = [(int(left), int(right)) for left, right in children]
        self.leaves = len(self.children) + 1
        nodes = self.leaves + len(self.children)
        self._parents: list[int | None] = [None] * nodes
        for i, pair in enumerate(self.children):
            for child in pair:
                self._parents[child] = self.leaves + i
        self.values: list[float | None] = [None] * nodes  # Q
        self.visits = [0] * nodes  # N without pending draws
        self.pending = [0] * nodes

    def draw(self, generator: np.random.Generator) -> int:
        """Draw a leaf. ``expect`` counts it as pending."""
        node = self.leaves + len(self.children) - 1
        while node >= self.leaves:
            left, right = self.children[node - self.leaves]
            node = left if generator.random() < self._chance_of_left(node) else right
        return node

    def expect(self, leaf: int) -> None:
        """Count a draw of ``leaf`` as pending."""
        for node in self._path(leaf):
            self.pending[node] += 1

    def update(self, leaf: int, accuracy: float) -> None:
        """Replace a pending draw of ``leaf`` by a visit with this accuracy, in all nodes from the leaf to the root."""
        for node in self._path(leaf):
            value = self.values[node]
            self.values[node] = accuracy if value is None else soft.moving_average(value, accuracy)
            self.visits[node] += 1
            self.pending[node] -= 1

    def chances(self) -> np.ndarray:
        """Return chances_P, the probability that the next draw returns each leaf."""
        chances = np.ones(self.leaves + len(self.children))
        for i in reversed(range(len(self.children))):
            (left, right), node = self.children[i], self.leaves + i
            chances[left] = chances[node] * self._chance_of_left(node)
            chances[right] = chances[node] - chances[left]
        return chances[: self.leaves]

    def state(self) -> dict[str, Any]:
        """Return the tree as JSON values, without pending draws."""
        return {"children": [list(pair) for pair in self.children], "values": self.values, "visits": self.visits}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> SearchTree:
        """Return the tree of a result of ``state()``."""
        tree = cls(state["children"])
        tree.values = [None if value is None else float(value) for value in state["values"]]
        tree.visits = [int(count) for count in state["visits"]]
        return tree

    def _path(self, leaf: int) -> list[int]:
        """Return the nodes from a leaf to the root."""
        path, node = [leaf], self._parents[leaf]
        while node is not None:
            path.append(node)
            node = self._parents[node]
        return path

    def _chance_of_left(self, node: int) -> float:
        left, right = self.children[node - self.leaves]
        before, after = self._turn(left), self._turn(right)
        value_of_left, value_of_right = self.values[left], self.values[right]
        if before != after:
            return float(before < after)
        if value_of_left is None or value_of_right is None:
            return 0.5
        log_visits = math.log(self.visits[node] + self.pending[node])
        difference = value_of_right + self._bonus(right, log_visits) - value_of_left - self._bonus(left, log_visits)
        return 1 / (1 + math.exp(difference / TEMPERATURE))

    def _turn(self, node: int) -> int:
        """Return 0 for a node that was never drawn, 1 for a visited one, 2 for one with only pending draws."""
        if self.values[node] is not None:
            return 1
        return 2 if self.pending[node] else 0

    def _bonus(self, node: int, log_visits: float) -> float:
        return EXPLORATION * math.sqrt(log_visits / (self.visits[node] + self.pending[node]))
