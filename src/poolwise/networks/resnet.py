"""ResNet for CIFAR (He et al., 2016, section 4.2): 3x3 stem, three groups of basic blocks, channels w, 2w, 4w.

No convolution has a stride: where the resolution halves is decided in ``switch``. Where the channels grow, the
shortcut is a 1x1 convolution (the paper's option B), the variant whose MACs agree with the published ratios.
"""

from __future__ import annotations

from torch import Tensor, nn

from poolwise.networks.chain import Chain, Norm, PoolHead, batch_norm
from poolwise.networks.registry import register


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; a 1x1 convolution is in the shortcut where the channels change."""

    def __init__(self, inputs: int, outputs: int, norm: Norm):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = norm(outputs)
        self.act1 = nn.ReLU(inplace=True)
        self.act2 = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), norm(outputs))

    def forward(self, features_BCHW: Tensor) -> Tensor:
        residual = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(features_BCHW)))))
        return self.act2(residual + self.shortcut(features_BCHW))


@register(
    "resnet20", default="4-3-3", width=16, summary="ResNet20 for CIFAR: stem and 9 basic blocks, 16 to 64 channels"
)
def resnet20(classes: int = 10, width: int = 16, norm: Norm = batch_norm) -> Chain:
    """ResNet20 as a chain of 10 layers."""
    stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), norm(width), nn.ReLU(inplace=True))
    layers: list[tuple[str, nn.Module]] = [("stem", stem)]
    channels = width
    for group in range(3):
        for _ in range(3):
            outputs = width * 2**group
            layers.append((f"block{len(layers)}", BasicBlock(channels, outputs, norm)))
            channels = outputs
    return Chain(layers, PoolHead(channels, classes))
