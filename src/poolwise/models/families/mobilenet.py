"""MobileNetV2 for small images (Sandler et al., 2018): a stem, 17 inverted residuals and a head with a 1x1 convolution.

The 3x3 depthwise convolution of a block takes the block's stride. The default configuration keeps the last three of the
published downsamplings and omits those of the stem and the second group, which are too many for small images.
"""

from __future__ import annotations

from torch import Tensor, nn

from poolwise.models.chain import Chain, Norm, PoolHead, StridePerCall, batch_norm, convolve
from poolwise.models.families.registry import register

_GROUPS = (
    (1, 16, 1),
    (6, 24, 2),
    (6, 32, 3),
    (6, 64, 4),
    (6, 96, 3),
    (6, 160, 3),
    (6, 320, 1),
)  # expansion, channels, blocks
_STEM, _LAST = 32, 1280


class InvertedResidual(StridePerCall):
    """1x1 expansion, 3x3 depthwise convolution (which takes the stride), 1x1 projection, and an optional shortcut."""

    def __init__(self, inputs: int, outputs: int, expansion: int, shortcut: bool, norm: Norm):
        super().__init__()
        hidden = inputs * expansion
        self.shortcut = shortcut
        self.expand = nn.Sequential()
        if expansion > 1:
            self.expand = nn.Sequential(nn.Conv2d(inputs, hidden, 1, bias=False), norm(hidden), nn.ReLU6(inplace=True))
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.norm = norm(hidden)
        self.act = nn.ReLU6(inplace=True)
        self.project = nn.Sequential(nn.Conv2d(hidden, outputs, 1, bias=False), norm(outputs))

    def strided_convs(self) -> list[nn.Conv2d]:
        return [self.depthwise]

    def forward(self, features_BCHW: Tensor, stride: int | None = None) -> Tensor:
        stride = stride or self.stride
        hidden = convolve(self.depthwise, self.expand(features_BCHW), stride)
        residual = self.project(self.act(self.norm(hidden)))
        if not self.shortcut:
            return residual
        return residual + (features_BCHW if stride == 1 else features_BCHW[..., ::stride, ::stride])


class _Head(nn.Module):
    """The last 1x1 convolution, global average pooling and a linear classifier."""

    def __init__(self, inputs: int, channels: int, classes: int, norm: Norm):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(inputs, channels, 1, bias=False), norm(channels), nn.ReLU6(inplace=True))
        self.pool = PoolHead(channels, classes)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        return self.pool(self.conv(features_BCHW))


@register(
    "mobilenetv2", default="4-3-7-4", width=32, operator="stride",
    summary="MobileNetV2 for small images: stem and 17 inverted residuals with depthwise convolutions",
)  # fmt: skip
def mobilenetv2(classes: int = 10, width: int = 32, norm: Norm = batch_norm) -> Chain:
    """Build MobileNetV2 as a chain of 18 layers. ``width`` is the stem's; all other widths scale in proportion."""

    def scaled(channels: int) -> int:
        return max(round(channels * width / _STEM), 1)

    stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), norm(width), nn.ReLU6(inplace=True))
    layers: list[tuple[str, nn.Module]] = [("stem", stem)]
    inputs = width
    for expansion, channels, count in _GROUPS:
        for place in range(count):
            block = InvertedResidual(inputs, scaled(channels), expansion, place > 0, norm)
            layers.append((f"block{len(layers)}", block))
            inputs = scaled(channels)
    return Chain(layers, _Head(inputs, scaled(_LAST), classes, norm))
