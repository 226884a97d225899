"""ConvNeXt for small images (Liu et al., 2022): depthwise 7x7, LayerNorm, two 1x1 convolutions, layer scale, shortcut.

Between groups, a LayerNorm and a 2x2 convolution change the channels. They belong to the first block of the group, and
the 2x2 convolution takes that block's stride. In every other block the depthwise convolution takes the stride, and the
identity shortcut is subsampled. For images of 32 pixels, a 3x3 stem at full resolution replaces the published 4x4 stem.
All norms are LayerNorms, whatever BatchNorm is requested.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d

from poolwise.models.chain import Chain, Norm, StridePerCall, batch_norm, convolve
from poolwise.models.families.registry import register

_EPS = 1e-6


class LayerScale(nn.Module):
    """One learned factor per channel. It starts small, so that an untrained block is nearly the identity."""

    def __init__(self, channels: int):
        super().__init__()
        self.factor_C = nn.Parameter(torch.empty(channels))

    def reset_parameters(self) -> None:
        nn.init.constant_(self.factor_C, 1e-6)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        return features_BCHW * self.factor_C[:, None, None]


class Block(StridePerCall):
    """A ConvNeXt block, preceded by a LayerNorm and a 2x2 convolution if the channels change."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.change = nn.ModuleList()
        if inputs != outputs:
            self.change = nn.ModuleList([LayerNorm2d(inputs, eps=_EPS), nn.Conv2d(inputs, outputs, 2)])
        self.depthwise = nn.Conv2d(outputs, outputs, 7, padding=3, groups=outputs)
        self.norm = LayerNorm2d(outputs, eps=_EPS)
        self.expand = nn.Conv2d(outputs, 4 * outputs, 1)
        self.act = nn.GELU()
        self.project = nn.Conv2d(4 * outputs, outputs, 1)
        self.scale = LayerScale(outputs)

    def strided_convs(self) -> list[nn.Conv2d]:
        return [part for part in self.change if isinstance(part, nn.Conv2d)] or [self.depthwise]

    def forward(self, features_BCHW: Tensor, stride: int | None = None) -> Tensor:
        stride = stride or self.stride
        if self.change:
            features_BCHW, stride = self._changed(features_BCHW, stride), 1
        hidden = self.norm(convolve(self.depthwise, features_BCHW, stride))
        residual = self.scale(self.project(self.act(self.expand(hidden))))
        return residual + (features_BCHW if stride == 1 else features_BCHW[..., ::stride, ::stride])

    def _changed(self, features_BCHW: Tensor, stride: int) -> Tensor:
        """Change the channels, padding a row and a column of zeros where the last window would leave the features."""
        norm, conv = self.change
        assert isinstance(conv, nn.Conv2d)
        height, width = features_BCHW.shape[2:]
        missing = [int(stride == 1 or size % stride == 1) for size in (width, height)]
        return convolve(conv, F.pad(norm(features_BCHW), (0, missing[0], 0, missing[1])), stride)


class _Head(nn.Module):
    """Global average pooling, LayerNorm and a linear classifier."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=_EPS)
        self.linear = nn.Linear(channels, classes)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        return self.linear(self.norm(features_BCHW.mean(dim=(2, 3))))


@register(
    "convnext", default="3-2-6-2", width=40, operator="stride",
    summary="ConvNeXt-Atto for small images: 3x3 stem and 12 blocks with 7x7 depthwise convolutions, 40 to 320 channels",
)  # fmt: skip
def convnext(classes: int = 10, width: int = 40, norm: Norm = batch_norm) -> Chain:
    """Build ConvNeXt-Atto as a chain of 13 layers. ``norm`` is ignored."""
    stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), LayerNorm2d(width, eps=_EPS))
    layers: list[tuple[str, nn.Module]] = [("stem", stem)]
    inputs = width
    for group, count in enumerate((2, 2, 6, 2)):
        for _ in range(count):
            layers.append((f"block{len(layers)}", Block(inputs, width * 2**group)))
            inputs = width * 2**group
    return Chain(layers, _Head(inputs, classes))
