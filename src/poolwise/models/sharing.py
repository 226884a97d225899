"""What the configurations of one SuperNet share: two settings, ``norm`` and ``sharing``, which can be combined.

The *depth* of a layer is the number of downsamplings passed when it runs, those before it included: the depth of its
output. That is the one rule for both operators; with ``stride``, a norm behind the strided convolution belongs to the
depth after it, and so do the parts of the block before that convolution.

- ``norm``: BatchNorm uses batch statistics while searching, whatever the setting.
  ``batch`` has no affine parameters (as published). ``affine`` has a scale and a shift for each norm and depth, as each
  width has in slimmable networks (Yu et al., "Slimmable Neural Networks", ICLR 2019). ``recalibrated`` has affine
  parameters that all configurations share, and ranks with running averages (``networks.recalibration``).
- ``sharing``: ``full`` has one set of weights for all. ``resolution`` has one for each layer and depth, affine parameters
  of norms among them; the head, which runs after all downsamplings, has one.

All copies of a layer begin with the same weights, those that the layer has without copies. A copy that a configuration
does not use has no gradient, and the optimizer leaves it, its momentum and its weight decay alone in that step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

from torch import nn

from poolwise.models.chain import Chain, Norm, PerDepth, affine_norm, batch_norm
from poolwise.models.supernet import SwitchableNet
from poolwise.spaces import PoolingSpace

NORMS: dict[str, Norm] = {"batch": batch_norm, "affine": affine_norm, "recalibrated": affine_norm}


def supernet(build: Callable[[Norm], Chain], space: PoolingSpace, norm: str, sharing: str) -> SwitchableNet:
    """A SuperNet for the configurations of ``space``.

    Args:
        build: makes the plain chain with norms of the given kind.
        norm, sharing: see the top of this file; the values are those of ``Config``.
    """
    chain = build(NORMS[norm])
    if sharing == "full" and norm != "affine":
        return SwitchableNet(chain)
    layers = [
        (name, _copies(chain.layers[i], space.depths_at(i), everything=sharing == "resolution"))
        for i, name in enumerate(chain.names)
    ]
    varied = Chain(layers, chain.head)
    varied.operator, varied.reduction = chain.operator, chain.reduction
    return SwitchableNet(varied)


def _copies(layer: nn.Module, depths: list[int], *, everything: bool) -> PerDepth:
    """The layer for each depth: ``everything`` copied, or the norms alone, the other weights being the same objects."""
    shared = [] if everything else list(without_norms(layer))
    return PerDepth({depth: copy.deepcopy(layer, {id(part): part for part in shared}) for depth in depths})


def without_norms(layer: nn.Module) -> Iterator[nn.Module | nn.Parameter]:
    """What has weights and is no BatchNorm: whole modules where they have no parts, since moving these to a device keeps
    them one; bare parameters of the others."""
    for part in layer.modules():
        if next(part.children(), None) is not None:
            yield from part.parameters(recurse=False)
        elif next(part.parameters(), None) is not None and not isinstance(part, nn.BatchNorm2d):
            yield part
