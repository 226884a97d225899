"""Beam search over pooling positions, for spaces that are too large to score every configuration. No network is used.

The space is a tree: level 1 is the first pooling position, level 2 the second, and so on. A node stands for all
configurations that start with its positions; its value is the best score among its scored members. At each level the
``width`` best nodes are expanded by every next position, and the same number of members of each new node is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from poolwise.spaces import Pooling, PoolingSpace, uniform_below

MEMBERS_PER_NODE = 2  # configurations scored per expanded node
_Stages = tuple[int, ...]


def beam(
    space: PoolingSpace,
    width: int,
    score: Callable[[Sequence[Pooling]], np.ndarray],
    generator: np.random.Generator,
    first: Sequence[Pooling] = (),
) -> dict[Pooling, float]:
    """Return the scores of all configurations that a beam search scored, in the order of the space.

    Args:
        space: The space to search.
        width: Nodes kept per level. At the size of the widest level, all configurations are scored.
        score: Scores configurations, higher is better. Called at most once per level with those not scored before.
        generator: Draws the members that represent a node.
        first: Configurations that are always scored.
    """
    scores: dict[Pooling, float] = {}

    def score_new(poolings: Sequence[Pooling]) -> None:
        new = sorted(set(poolings) - set(scores))
        if new:
            scores.update(zip(new, map(float, score(new)), strict=True))

    score_new(list(first))
    nodes: list[_Stages] = [()]
    while nodes:
        opened = [(*node, stage) for node in nodes for stage in space.next_stages(node)]
        score_new([pooling for node in opened for pooling in _members(space, node, generator)])
        best = _best(scores, opened)
        inner = [node for node in opened if space.completions(node) > 1]
        nodes = sorted(inner, key=lambda node: (-best[node], node))[:width]
    return {pooling: scores[pooling] for pooling in sorted(scores)}


def _members(space: PoolingSpace, node: _Stages, generator: np.random.Generator) -> list[Pooling]:
    """Draw up to MEMBERS_PER_NODE members of a node uniformly. Members of a node are contiguous in the space."""
    first, count = space.below(node), space.completions(node)
    if count <= MEMBERS_PER_NODE:
        return [space[first + i] for i in range(count)]
    return [space[first + uniform_below(generator, count)] for _ in range(MEMBERS_PER_NODE)]


def _best(scores: dict[Pooling, float], nodes: Sequence[_Stages]) -> dict[_Stages, float]:
    """Return the best score among the scored members of each node. All ``nodes`` are of one level."""
    best = dict.fromkeys(nodes, -np.inf)
    level = len(nodes[0]) if nodes else 0
    for pooling, value in scores.items():
        node = pooling.stages[:level]
        if node in best:
            best[node] = max(best[node], value)
    return best
