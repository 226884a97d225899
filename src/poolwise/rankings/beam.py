"""A beam over pooling positions: what is scored of a space that is too large to be scored whole. Knows no network.

The space is a tree: the first pooling position, the second, and so on. A node stands for all configurations that begin as
it does, and is worth what the best of its members that were scored is worth. Level by level, the ``width`` best nodes are
kept, every next position of each is tried, and of each node so made the same number of members is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from poolwise.spaces import Pooling, PoolingSpace, uniform_below

MEMBERS_PER_NODE = 2  # configurations scored of each node that is opened
_Stages = tuple[int, ...]


def beam(
    space: PoolingSpace,
    width: int,
    score: Callable[[Sequence[Pooling]], np.ndarray],
    generator: np.random.Generator,
    first: Sequence[Pooling] = (),
) -> dict[Pooling, float]:
    """Everything that was scored, in the order of the space.

    Args:
        width: nodes that are kept of a level; with as many as the widest level has, all members are scored.
        score: scores of configurations, higher is better; called once a level with what was not scored before.
        generator: draws the members that stand for a node.
        first: what is scored in any case.
    """
    told: dict[Pooling, float] = {}

    def learn(poolings: Sequence[Pooling]) -> None:
        new = sorted(set(poolings) - set(told))
        if new:
            told.update(zip(new, map(float, score(new)), strict=True))

    learn(list(first))
    nodes: list[_Stages] = [()]
    while nodes:
        opened = [(*node, stage) for node in nodes for stage in space.next_stages(node)]
        learn([pooling for node in opened for pooling in _members(space, node, generator)])
        best = _best(told, opened)
        inner = [node for node in opened if space.completions(node) > 1]
        nodes = sorted(inner, key=lambda node: (-best[node], node))[:width]
    return {pooling: told[pooling] for pooling in sorted(told)}


def _members(space: PoolingSpace, node: _Stages, generator: np.random.Generator) -> list[Pooling]:
    """Up to MEMBERS_PER_NODE members of a node, uniformly drawn; they follow each other in the order of the space."""
    first, count = space.below(node), space.completions(node)
    if count <= MEMBERS_PER_NODE:
        return [space[first + i] for i in range(count)]
    return [space[first + uniform_below(generator, count)] for _ in range(MEMBERS_PER_NODE)]


def _best(told: dict[Pooling, float], nodes: Sequence[_Stages]) -> dict[_Stages, float]:
    """The best score of what was scored in each node, all of one level."""
    best = dict.fromkeys(nodes, -np.inf)
    level = len(nodes[0]) if nodes else 0
    for pooling, value in told.items():
        node = pooling.stages[:level]
        if node in best:
            best[node] = max(best[node], value)
    return best
