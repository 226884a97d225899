"""ResNets (He et al., 2016): a stem, then groups of residual blocks.

For small images, the stem is a 3x3 convolution and is the first layer. The ImageNet stem, a 7x7 convolution with stride
2 and a max-pool, is fixed and forms the first layer together with the first block. No later convolution has a stride
here: ``models.supernet`` decides where to downsample. The stride of a block applies to its first 3x3 convolution and to
its shortcut, as in torchvision. If the channels change, the shortcut is a 1x1 convolution (option B of the paper), the
variant whose MACs agree with the published ratios.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from poolwise.models.chain import Chain, Norm, PoolHead, StridePerCall, batch_norm, convolve
from poolwise.models.families.registry import register


class _Residual(StridePerCall):
    """Base class of both blocks: a shortcut, with a 1x1 convolution if the channels change."""

    shortcut: nn.Module

    @staticmethod
    def make_shortcut(inputs: int, outputs: int, norm: Norm) -> nn.Module:
        if inputs == outputs:
            return nn.Identity()
        return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), norm(outputs))

    def skip(self, features_BCHW: Tensor, stride: int) -> Tensor:
        """Return the shortcut at ``stride``. Without a convolution it keeps every ``stride``-th row and column."""
        if isinstance(self.shortcut, nn.Sequential):
            conv, norm = self.shortcut
            return norm(convolve(conv, features_BCHW, stride))
        return features_BCHW if stride == 1 else features_BCHW[..., ::stride, ::stride]

    def skip_convolutions(self) -> list[nn.Conv2d]:
        return [part for part in self.shortcut.modules() if isinstance(part, nn.Conv2d)]


class BasicBlock(_Residual):
    """Two 3x3 convolutions, the first with the stride, and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, norm: Norm):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, padding=1, bias=False)
        self.norm1 = norm(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.norm2 = norm(planes)
        self.act1 = nn.ReLU(inplace=True)
        self.act2 = nn.ReLU(inplace=True)
        self.shortcut = self.make_shortcut(inputs, planes, norm)

    def strided_convs(self) -> list[nn.Conv2d]:
        return [self.conv1, *self.skip_convolutions()]

    def forward(self, features_BCHW: Tensor, stride: int | None = None) -> Tensor:
        stride = stride or self.stride
        residual = self.act1(self.norm1(convolve(self.conv1, features_BCHW, stride)))
        residual = self.norm2(self.conv2(residual))
        return self.act2(residual + self.skip(features_BCHW, stride))


class Bottleneck(_Residual):
    """1x1, 3x3 (with the stride) and 1x1 convolutions, the last with four times the planes, and a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, norm: Norm):
        super().__init__()
        outputs = planes * self.expansion
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.norm1 = norm(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.norm2 = norm(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.norm3 = norm(outputs)
        self.act1 = nn.ReLU(inplace=True)
        self.act2 = nn.ReLU(inplace=True)
        self.act3 = nn.ReLU(inplace=True)
        self.shortcut = self.make_shortcut(inputs, outputs, norm)

    def strided_convs(self) -> list[nn.Conv2d]:
        return [self.conv2, *self.skip_convolutions()]

    def forward(self, features_BCHW: Tensor, stride: int | None = None) -> Tensor:
        stride = stride or self.stride
        residual = self.act1(self.norm1(self.conv1(features_BCHW)))
        residual = self.act2(self.norm2(convolve(self.conv2, residual, stride)))
        residual = self.norm3(self.conv3(residual))
        return self.act3(residual + self.skip(features_BCHW, stride))


def _chain(
    block: Callable[[int, int, Norm], nn.Module],
    expansion: int,
    groups: Sequence[int],
    classes: int,
    width: int,
    norm: Norm,
    imagenet: bool = False,
) -> Chain:
    """Build a stem, ``groups[g]`` blocks of ``width * 2**g`` planes for each g, and a head."""
    stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), norm(width), nn.ReLU(inplace=True))
    if imagenet:
        wide = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        stem = nn.Sequential(wide, norm(width), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1))
    layers: list[tuple[str, nn.Module]] = [("stem", stem)]
    channels = width
    for group, count in enumerate(groups):
        planes = width * 2**group
        for _ in range(count):
            layers.append((f"block{len(layers)}", block(channels, planes, norm)))
            channels = planes * expansion
    if imagenet:
        (_, first), (name, second), *others = layers
        layers = [(name, nn.Sequential(OrderedDict(stem=first, block=second))), *others]
    return Chain(layers, PoolHead(channels, classes))


@register(
    "resnet20", default="4-3-3", width=16, summary="ResNet20 for CIFAR: stem and 9 basic blocks, 16 to 64 channels"
)
def resnet20(classes: int = 10, width: int = 16, norm: Norm = batch_norm) -> Chain:
    """Build ResNet20 as a chain of 10 layers."""
    return _chain(BasicBlock, BasicBlock.expansion, (3, 3, 3), classes, width, norm)


@register(
    "resnet18", default="3-2-2-2", width=64, operator="stride",
    summary="ResNet18 for CIFAR: 3x3 stem and 8 basic blocks, 64 to 512 channels",
)  # fmt: skip
def resnet18(classes: int = 10, width: int = 64, norm: Norm = batch_norm) -> Chain:
    """Build ResNet18 as a chain of 9 layers."""
    return _chain(BasicBlock, BasicBlock.expansion, (2, 2, 2, 2), classes, width, norm)


@register(
    "resnet50", default="4-4-6-3", width=64, operator="stride",
    summary="ResNet50 for CIFAR: 3x3 stem and 16 bottlenecks, 64 to 2048 channels",
)  # fmt: skip
def resnet50(classes: int = 10, width: int = 64, norm: Norm = batch_norm) -> Chain:
    """Build ResNet50 as a chain of 17 layers."""
    return _chain(Bottleneck, Bottleneck.expansion, (3, 4, 6, 3), classes, width, norm)


@register(
    "resnet32", default="6-5-5", width=16, summary="ResNet32 for CIFAR: stem and 15 basic blocks, 16 to 64 channels"
)
def resnet32(classes: int = 10, width: int = 16, norm: Norm = batch_norm) -> Chain:
    """Build ResNet32 as a chain of 16 layers."""
    return _chain(BasicBlock, BasicBlock.expansion, (5, 5, 5), classes, width, norm)


@register(
    "resnet56", default="10-9-9", width=16, summary="ResNet56 for CIFAR: stem and 27 basic blocks, 16 to 64 channels"
)
def resnet56(classes: int = 10, width: int = 16, norm: Norm = batch_norm) -> Chain:
    """Build ResNet56 as a chain of 28 layers."""
    return _chain(BasicBlock, BasicBlock.expansion, (9, 9, 9), classes, width, norm)


@register(
    "resnet34", default="4-4-6-3", width=64, operator="stride",
    summary="ResNet34 for CIFAR: 3x3 stem and 16 basic blocks, 64 to 512 channels",
)  # fmt: skip
def resnet34(classes: int = 10, width: int = 64, norm: Norm = batch_norm) -> Chain:
    """Build ResNet34 as a chain of 17 layers."""
    return _chain(BasicBlock, BasicBlock.expansion, (3, 4, 6, 3), classes, width, norm)


@register(
    "resnet18-imagenet", default="2-2-2-2", width=64, operator="stride", reduction=4,
    summary="ResNet18 for ImageNet: stem fixed at a quarter of the resolution, and 8 basic blocks",
)  # fmt: skip
def resnet18_imagenet(classes: int = 1000, width: int = 64, norm: Norm = batch_norm) -> Chain:
    """Build ResNet18 with the ImageNet stem as a chain of 8 layers."""
    return _chain(BasicBlock, BasicBlock.expansion, (2, 2, 2, 2), classes, width, norm, imagenet=True)


@register(
    "resnet34-imagenet", default="3-4-6-3", width=64, operator="stride", reduction=4,
    summary="ResNet34 for ImageNet: stem fixed at a quarter of the resolution, and 16 basic blocks",
)  # fmt: skip
def resnet34_imagenet(classes: int = 1000, width: int = 64, norm: Norm = batch_norm) -> Chain:
    """Build ResNet34 with the ImageNet stem as a chain of 16 layers."""
    return _chain(BasicBlock, BasicBlock.expansion, (3, 4, 6, 3), classes, width, norm, imagenet=True)


@register(
    "resnet50-imagenet", default="3-4-6-3", width=64, operator="stride", reduction=4,
    summary="ResNet50 for ImageNet: stem fixed at a quarter of the resolution, and 16 bottlenecks",
)  # fmt: skip
def resnet50_imagenet(classes: int = 1000, width: int = 64, norm: Norm = batch_norm) -> Chain:
    """Build ResNet50 with the ImageNet stem as a chain of 16 layers."""
    return _chain(Bottleneck, Bottleneck.expansion, (3, 4, 6, 3), classes, width, norm, imagenet=True)
