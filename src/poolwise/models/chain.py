"""A network as a chain: stem, ordered layers and head.

Shapes: images_BCHW, features_BCHW, logits_BK (B batch, C channels, H, W resolution, K classes).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolwise.errors import RequestError
from poolwise.spaces import Pooling

Norm = Callable[[int], nn.Module]


def batch_norm(channels: int) -> nn.Module:
    """Return the default BatchNorm of the search: batch statistics only, no affine parameters (as published)."""
    return nn.BatchNorm2d(channels, affine=False, track_running_stats=False)


def affine_norm(channels: int) -> nn.Module:
    """Return the BatchNorm of a search with affine norms: batch statistics, affine parameters, no running averages."""
    return nn.BatchNorm2d(channels, track_running_stats=False)


def running_norm(channels: int) -> nn.Module:
    """Return the BatchNorm of stand-alone training and deployment: affine parameters and running averages."""
    return nn.BatchNorm2d(channels)


class StridePerCall(nn.Module):
    """A layer that takes its stride per call: ``layer(features_BCHW, stride)``. The default is its ``stride``.

    In the families of this library, the output has ceil(H / stride) x ceil(W / stride) pixels, and the layer keeps the
    resolution at stride 1. A layer of an external network may round down (``models.external.chain_adapter.Unit``).
    """

    stride: int = 1

    def strided_convs(self) -> list[nn.Conv2d]:
        """Return the convolutions that run at the layer's stride."""
        raise NotImplementedError


def convolve(conv: nn.Conv2d, features_BCHW: Tensor, stride: int) -> Tensor:
    """Run ``conv`` at ``stride`` without changing it. Its hooks run only if ``stride`` equals ``conv.stride``."""
    if conv.stride == (stride, stride):
        return conv(features_BCHW)
    return F.conv2d(features_BCHW, conv.weight, conv.bias, stride, conv.padding, conv.dilation, conv.groups)


class PerDepth(nn.Module):
    """A position in a chain with a separate layer for each *depth*, the number of downsamplings passed.

    Args:
        copies: Depth -> layer. The layers may share modules. All must cost the same.
    """

    def __init__(self, copies: Mapping[int, nn.Module]):
        super().__init__()
        self.copies = nn.ModuleDict({str(depth): layer for depth, layer in copies.items()})

    def at(self, depth: int) -> nn.Module:
        """Return the layer for this depth. Raise RequestError if there is none."""
        if str(depth) not in self.copies:
            raise RequestError(
                f"a layer has weights for {' or '.join(self.copies)} downsamplings and not for {depth}:"
                " use a configuration of the space that the network was built for"
            )
        return self.copies[str(depth)]


class Chain(nn.Module):
    """Layers that run in sequence, then a head. Only the first layer may change the resolution.

    ``forward(images_BCHW)`` runs without downsampling, which ``models.supernet`` adds.

    Args:
        layers: Name and module of each layer, in order. On CIFAR the first is the stem convolution. A module may be a
            ``PerDepth`` (see ``models.sharing``).
        head: features_BCHW -> logits_BK at any resolution.

    Attributes:
        operator: The default downsampling operator, ``pool`` or ``stride``. A registered family sets it.
        operators: The supported operators.
        reduction: Factor by which the first layer alone reduces the resolution, such as 4 for an ImageNet stem. A
            registered family sets it.
    """

    operator: str = "pool"
    operators: tuple[str, ...] = ("pool", "stride")
    reduction: int = 1

    def __init__(self, layers: Sequence[tuple[str, nn.Module]], head: nn.Module):
        super().__init__()
        self.names = [name for name, _ in layers]
        self.layers = nn.ModuleList(module for _, module in layers)
        self.head = head

    def __len__(self) -> int:
        return len(self.layers)

    def at(self, i: int, depth: int = 0) -> nn.Module:
        """Return layer ``i`` for ``depth``: the number of downsamplings passed, those in its own slot included."""
        layer = self.layers[i]
        return layer.at(depth) if isinstance(layer, PerDepth) else layer

    def every_layer(self) -> list[nn.Module]:
        """Return all layers, with every copy of a ``PerDepth`` layer."""
        places = [list(one.copies.values()) if isinstance(one, PerDepth) else [one] for one in self.layers]
        return [layer for copies in places for layer in copies]

    def as_module(self, pooling: Pooling) -> nn.Module | None:
        """Return a copy, at ``pooling``, of the external network that this chain wraps. None if it wraps none."""
        return None

    def forward(self, images_BCHW: Tensor) -> Tensor:
        features_BCHW = images_BCHW
        for i in range(len(self)):
            features_BCHW = self.at(i)(features_BCHW)
        return self.head(features_BCHW)


class PoolHead(nn.Module):
    """Global average pooling and a linear classifier."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        return self.linear(features_BCHW.mean(dim=(2, 3)))


def learning(network: nn.Module) -> nn.Module:
    """Set training mode, except for dropout and stochastic depth, which would draw from the global generator.

    Returns:
        The same network.
    """
    network.train()
    for module in network.modules():
        name = type(module).__name__.lower()
        if "drop" in name or "stochasticdepth" in name:
            module.eval()
    return network


def create(build: Callable[..., Chain], generator: torch.Generator, **arguments: Any) -> Chain:
    """Build a chain on the CPU with weights drawn only from ``generator``. The global generator is not used.

    Convolutions: He normal, fan-out, bias zero. Linear: uniform in +-1/sqrt(fan-in), also for the bias. Other modules:
    ``reset_parameters``. A ``build`` with a ``create`` method (``models.external.networks``) initializes by itself.
    """
    if hasattr(build, "create"):
        return build.create(generator, **arguments)
    with torch.device("meta"):
        chain = build(**arguments)
    chain.to_empty(device="cpu")
    for module in chain.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels // module.groups * math.prod(module.kernel_size)
            _fill(module.weight, generator, math.sqrt(2 / fan_out), normal=True)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            _fill(module.weight, generator, bound, normal=False)
            if module.bias is not None:
                _fill(module.bias, generator, bound, normal=False)
        elif hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return chain


@torch.no_grad()
def _fill(parameter: Tensor, generator: torch.Generator, scale: float, *, normal: bool) -> None:
    if normal:
        parameter.normal_(0, scale, generator=generator)
    else:
        parameter.uniform_(-scale, scale, generator=generator)
