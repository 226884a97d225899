"""Run many configurations on one batch and compute each shared prefix of layers only once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from torch import Tensor

from poolwise.models.supernet import SwitchableNet, check_fits
from poolwise.spaces import Pooling


def walk(
    network: SwitchableNet, poolings: Sequence[Pooling], images_BCHW: Tensor
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield the logits of every configuration, computing each shared prefix once.

    The walk goes depth first through the trie of prefixes. The branch with the most poolings goes first. When the
    branch without a further pooling runs last, nothing else needs its input. So at most one activation per number of
    poolings is alive, each a quarter of the previous size, plus what the current layer needs. The logits are bitwise
    equal to those of separate forward passes, since the operations are the same. The caller sets gradient mode and
    precision. With gradients, autograd keeps the activations of all branches until the backward pass, which runs through
    each shared prefix once too: the gradient of the mean loss is the mean of the gradients (``training.step.train_group``).

    Yields:
        The indices into ``poolings`` of one group of equal configurations, and their logits_BK, in trie order.

    Raises:
        RequestError: A configuration has a different number of layers than ``network``.
    """
    depths = [tuple(pooling.depths()) for pooling in poolings]

    def branches(layer: int, members: list[int]) -> list[list[int]]:
        """Group ``members``, which agree before ``layer``, by their prefix up to it, fewest poolings first."""
        return [list(group) for _, group in groupby(members, key=lambda a: depths[a][: layer + 1])]

    for pooling in poolings:
        check_fits(network.chain, pooling)
    waiting = [(0, images_BCHW, group) for group in branches(0, sorted(range(len(poolings)), key=lambda a: depths[a]))]
    while waiting:
        layer, features_BCHW, members = waiting.pop()
        # rebinding the name frees the input once no waiting branch refers to it
        features_BCHW = network.layer(depths[members[0]][: layer + 1], features_BCHW)
        if layer + 1 == len(network):
            yield members, network.chain.head(features_BCHW)
        else:
            waiting += [(layer + 1, features_BCHW, group) for group in branches(layer + 1, members)]
