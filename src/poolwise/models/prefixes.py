"""All configurations of one batch, each prefix that they share computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from torch import Tensor

from poolwise.models.supernet import SwitchableNet, check_fits
from poolwise.spaces import Pooling


def walk(
    network: SwitchableNet, poolings: Sequence[Pooling], images_BCHW: Tensor
) -> Iterator[tuple[list[int], Tensor]]:
    """Indices into ``poolings`` of equal configurations, and their logits_BK, for every one of them.

    Walks the trie of prefixes depth first, so each prefix is computed once. The branch with most poolings goes first: where
    the one without a further pooling is taken, nothing else waits for the activation before it. So at any time one
    activation a number of poolings so far is alive, each a quarter of the one before, and what the layer at work needs.
    The logits equal those of one forward pass a configuration to the bit, since the operations are the same. Gradients
    and precision are the caller's; the order is that of the trie.
    """
    depths = [tuple(pooling.depths()) for pooling in poolings]

    def branches(layer: int, members: list[int]) -> list[list[int]]:
        """``members``, which agree before ``layer``, by their prefix up to it; fewest poolings first."""
        return [list(group) for _, group in groupby(members, key=lambda a: depths[a][: layer + 1])]

    for pooling in poolings:
        check_fits(network.chain, pooling)
    waiting = [(0, images_BCHW, own) for own in branches(0, sorted(range(len(poolings)), key=lambda a: depths[a]))]
    while waiting:
        layer, features_BCHW, members = waiting.pop()
        # the name goes over to the output, so the input is gone with the last branch that waits for it
        features_BCHW = network.layer(depths[members[0]][: layer + 1], features_BCHW)
        if layer + 1 == len(network):
            yield members, network.chain.head(features_BCHW)
        else:
            waiting += [(layer + 1, features_BCHW, own) for own in branches(layer + 1, members)]
