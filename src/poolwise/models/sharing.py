"""Weight sharing within one SuperNet. The options ``norm`` and ``sharing`` can be combined.

The *depth* of a layer is the number of downsamplings from the image to the layer's output. This rule holds for both
operators. With ``stride``, every part of a block has the depth of the block's output, even parts before the strided
convolution.

- ``norm``: BatchNorm always uses batch statistics during the search.
  ``batch`` has no affine parameters (as published). ``affine`` has a scale and a shift for each norm and depth, as
  slimmable networks have for each width (Yu et al., "Slimmable Neural Networks", ICLR 2019). ``recalibrated`` has
  affine parameters that all configurations share, and ranks with running averages (``models.recalibration``).
- ``sharing``: ``full`` has one set of weights for all configurations. ``resolution`` has one for each layer and depth,
  including the affine parameters of norms. The head runs after all downsamplings and is always shared.

All copies of a layer start from the same weights. A copy that a configuration does not use gets no gradient, so the
optimizer step skips it, including momentum and weight decay.
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
    """Build a SuperNet for the configurations of ``space``.

    Args:
        build: Builds the plain chain with the given norm.
        space: The configurations that the SuperNet can run.
        norm: ``batch``, ``affine`` or ``recalibrated`` (see the module docstring).
        sharing: ``full`` or ``resolution`` (see the module docstring).
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
    """Return a copy of the layer for each depth. Copy ``everything``, or only the norms and share all other weights."""
    shared = [] if everything else list(without_norms(layer))
    return PerDepth({depth: copy.deepcopy(layer, {id(part): part for part in shared}) for depth in depths})


def without_norms(layer: nn.Module) -> Iterator[nn.Module | nn.Parameter]:
    """Yield everything that has weights, except BatchNorm: modules without children, and parameters of the others.

    Modules are shared rather than their parameters because a shared module stays shared when it moves to a device.
    """
    for part in layer.modules():
        if next(part.children(), None) is not None:
            yield from part.parameters(recurse=False)
        elif next(part.parameters(), None) is not None and not isinstance(part, nn.BatchNorm2d):
            yield part
