"""A network = stem + ordered layers + head.

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
    """BatchNorm of the search: batch statistics, no affine parameters, no running averages (as published)."""
    return nn.BatchNorm2d(channels, affine=False, track_running_stats=False)


def affine_norm(channels: int) -> nn.Module:
    """BatchNorm of the search's variants: batch statistics, affine parameters, no running averages."""
    return nn.BatchNorm2d(channels, track_running_stats=False)


def running_norm(channels: int) -> nn.Module:
    """BatchNorm of stand-alone training: affine, with running averages, what a deployed model has."""
    return nn.BatchNorm2d(channels)


class Strided(nn.Module):
    """A layer whose stride can be given per call: ``layer(features_BCHW, stride)``, by default its own ``stride``.

    The output has ceil(H / stride) x ceil(W / stride) pixels. At stride 1 the layer keeps the resolution.
    """

    stride: int = 1

    def strided(self) -> list[nn.Conv2d]:
        """The convolutions that run at the layer's stride."""
        raise NotImplementedError


def convolve(conv: nn.Conv2d, features_BCHW: Tensor, stride: int) -> Tensor:
    """``conv`` at another stride than its own, without changing it. A module's hooks see its own stride only."""
    if conv.stride == (stride, stride):
        return conv(features_BCHW)
    return F.conv2d(features_BCHW, conv.weight, conv.bias, stride, conv.padding, conv.dilation, conv.groups)


class PerDepth(nn.Module):
    """One place of a chain with a layer of its own for each number of downsamplings passed (its *depth*).

    Args:
        copies: depth -> layer; they may have modules in common, and cost the same.
    """

    def __init__(self, copies: Mapping[int, nn.Module]):
        super().__init__()
        self.copies = nn.ModuleDict({str(depth): layer for depth, layer in copies.items()})

    def at(self, depth: int) -> nn.Module:
        """The layer of this depth. RequestError where there is none."""
        if str(depth) not in self.copies:
            raise RequestError(
                f"a layer has weights of its own after {' or '.join(self.copies)} downsamplings and {depth} are asked for:"
                " only configurations of the space that the network was made for can run"
            )
        return self.copies[str(depth)]


class Chain(nn.Module):
    """Layers that run one after the other, none of which but the first changes the resolution, then a head.

    Args:
        layers: name and module of each, in order. On CIFAR the stem convolution is the first of them. A module may be a
            ``PerDepth`` (see ``variants``).
        head: features_BCHW -> logits_BK at any resolution.

    ``operator`` names how ``switch`` downsamples this network where nothing else is asked for, ``reduction`` says how many
    times the first layer makes images smaller by itself (an ImageNet stem); a registered family sets both.
    ``forward(images_BCHW)`` runs at full resolution; downsampling is the business of ``switch`` alone.
    """

    operator: str = "pool"
    reduction: int = 1

    def __init__(self, layers: Sequence[tuple[str, nn.Module]], head: nn.Module):
        super().__init__()
        self.names = [name for name, _ in layers]
        self.layers = nn.ModuleList(module for _, module in layers)
        self.head = head

    def __len__(self) -> int:
        return len(self.layers)

    def at(self, i: int, depth: int = 0) -> nn.Module:
        """Layer ``i`` as it runs when ``depth`` downsamplings are passed, those before it included."""
        layer = self.layers[i]
        return layer.at(depth) if isinstance(layer, PerDepth) else layer

    def every_layer(self) -> list[nn.Module]:
        """The layers with all their copies, those that are called when the chain runs."""
        places = [list(one.copies.values()) if isinstance(one, PerDepth) else [one] for one in self.layers]
        return [layer for copies in places for layer in copies]

    def whole(self, pooling: Pooling) -> nn.Module | None:
        """A copy, at ``pooling``, of the network that the chain is a view of; None where the chain is the network itself."""
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
    """The network in training mode, but for dropout and its kin, which would draw from the global generator."""
    network.train()
    for module in network.modules():
        name = type(module).__name__.lower()
        if "drop" in name or "stochasticdepth" in name:
            module.eval()
    return network


def create(build: Callable[..., Chain], generator: torch.Generator, **arguments: Any) -> Chain:
    """Build a chain on the CPU with weights drawn from ``generator`` alone; the global generator is not touched.

    Convolutions: He normal, fan-out. Linear: uniform in +-1/sqrt(fan-in), bias as well. Norms: torch's own reset.
    A ``build`` with a ``create`` of its own (``networks.others``) begins as its library does.
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
