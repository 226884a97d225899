"""VGG with BatchNorm for small images (Simonyan and Zisserman, 2015): 3x3 convolutions without shortcuts.

A layer is a convolution with its norm and ReLU. The head averages over all pixels, so the published max-pool after the
last layer is omitted. The other four are the poolings of the default configuration. Channels double at layers 2, 4 and
7 (counted from 0) in every configuration, so all configurations have the same weights.
"""

from __future__ import annotations

from torch import nn

from poolwise.models.chain import Chain, Norm, PoolHead, batch_norm
from poolwise.models.families.registry import register


@register(
    "vgg16", default="2-2-3-3-3", width=64,
    summary="VGG16 with BatchNorm for CIFAR: 13 convolutions without shortcuts, 64 to 512 channels",
)  # fmt: skip
def vgg16(classes: int = 10, width: int = 64, norm: Norm = batch_norm) -> Chain:
    """Build the 13 convolutions of VGG16 as a chain of 13 layers."""
    layers: list[tuple[str, nn.Module]] = []
    inputs = 3
    for count, factor in ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8)):
        for _ in range(count):
            conv = nn.Conv2d(inputs, factor * width, 3, padding=1, bias=False)
            parts = nn.Sequential(conv, norm(factor * width), nn.ReLU(inplace=True))
            layers.append((f"conv{len(layers) + 1}", parts))
            inputs = factor * width
    return Chain(layers, PoolHead(inputs, classes))
