"""How one layer of anyone's network takes a downsampling: by its own stride where that is known, else by a pool before it.

What is set are strides, flags and parameterless modules that torchvision's and timm's constructors set as well, so names,
shapes and values of parameters, classes and ``forward`` stay what they are. A shortcut without a convolution keeps every
second row and column: ``MaxPool2d(1, 2)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from poolwise.models.chain import Strided

_POOLS = (nn.MaxPool2d, nn.AvgPool2d)


class Halving:
    """The downsamplings before one layer.

    Attributes:
        how: ``stride`` or ``pool``.
    """

    how: ClassVar[str] = "stride"

    @property
    def halvings(self) -> int:
        """How many stand there now."""
        raise NotImplementedError

    def place(self, halvings: int) -> None:
        """Put so many there."""
        raise NotImplementedError


def halving_of(module: nn.Module, pool: nn.Module | None, kind: str, prefer_pool: bool) -> Halving:
    """How the layer that begins with ``module`` takes downsamplings.

    Args:
        pool: a pool of the network itself that stands before the layer.
        kind: ``max`` or ``average``, what pools the network has.
        prefer_pool: single convolutions take pools, as others in the network do, and not a stride.
    """
    if pool is not None:
        return Pooled(module, kind, pool)
    if isinstance(module, Strided) and not prefer_pool:
        return House(module)
    block = _block(module)
    if block is not None:
        return block
    if isinstance(module, nn.Conv2d) and not prefer_pool:
        return Convolution(module)
    return Pooled(module, kind)


def takes_stride(module: nn.Module) -> bool:
    """Whether this is a block whose stride can be set."""
    return _block(module) is not None


def _block(module: nn.Module) -> Strides | None:
    """The module as a block whose stride can be set; None for any other."""
    return Residual.of(module) or Inverted.of(module)


def is_pool(module: nn.Module) -> bool:
    """A 2x2 pool with stride 2, or one that was switched off here."""
    if not isinstance(module, _POOLS):
        return False
    shape = (one(module.kernel_size), one(module.stride), one(module.padding))
    return shape in ((2, 2, 0), (1, 1, 0))


def one(value: Any) -> int:
    """A size that torch takes as a number or as one for each axis."""
    return int(value[0] if isinstance(value, Sequence) else value)


def _halvings(stride: Any) -> int:
    return one(stride).bit_length() - 1


class PoolBefore:
    """A hook that pools what a module is given; it can be copied, compared and pickled."""

    def __init__(self, kind: str, stride: int):
        self.kind, self.stride = kind, stride

    def __call__(self, _module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        pool = F.avg_pool2d if self.kind == "average" else F.max_pool2d
        return (pool(given[0], self.stride), *given[1:])


class Pooled(Halving):
    """Pools before a module: the network's own where it has one there, all others by a hook."""

    how = "pool"

    def __init__(self, module: nn.Module, kind: str, own: nn.Module | None = None):
        self.module, self.kind, self.own = module, kind, own

    def _hooks(self) -> list[tuple[int, PoolBefore]]:
        hooks = self.module._forward_pre_hooks.items()
        return [(key, hook) for key, hook in hooks if isinstance(hook, PoolBefore)]

    @property
    def halvings(self) -> int:
        own = 0 if self.own is None else _halvings(self.own.stride)
        return own + sum(_halvings(hook.stride) for _, hook in self._hooks())

    def place(self, halvings: int) -> None:
        for key, _ in self._hooks():
            del self.module._forward_pre_hooks[key]
        if self.own is not None:
            size = 2 if halvings else 1
            self.own.kernel_size = self.own.stride = size
            halvings = max(halvings - 1, 0)
        if halvings:
            self.module.register_forward_pre_hook(PoolBefore(self.kind, 2**halvings))


class Strides(Halving):
    """By the stride of one convolution."""

    conv: nn.Conv2d

    @property
    def halvings(self) -> int:
        return _halvings(self.conv.stride)


class Convolution(Strides):
    """A convolution on its own; at stride 1 an even kernel, which would make features smaller by one, is padded."""

    def __init__(self, conv: nn.Conv2d):
        self.conv = conv

    def place(self, halvings: int) -> None:
        stride = 2**halvings
        self.conv.stride = (stride, stride)
        if self.conv.kernel_size[0] % 2 == 0 and self.conv.padding in ((0, 0), "same"):
            self.conv.padding = "same" if stride == 1 else (0, 0)


class House(Halving):
    """A layer of this library's own families."""

    def __init__(self, layer: Strided):
        self.layer = layer

    @property
    def halvings(self) -> int:
        return _halvings(self.layer.stride)

    def place(self, halvings: int) -> None:
        self.layer.stride = 2**halvings
        for conv in self.layer.strided():
            conv.stride = (self.layer.stride, self.layer.stride)


class Residual(Strides):
    """A block with a shortcut that is a module or missing: ResNet, ResNeXt, RegNet, timm's ConvNeXt.

    Args:
        block: the block.
        conv: the convolution of its residual branch that takes the stride.
        name: of the attribute that holds the shortcut.
        plain: what the attribute holds where the shortcut is the features themselves: an Identity, or None.
    """

    def __init__(self, block: nn.Module, conv: nn.Conv2d, name: str, plain: type[nn.Identity] | None = None):
        self.block, self.conv, self.name, self.plain = block, conv, name, plain

    @classmethod
    def of(cls, block: nn.Module) -> Residual | None:
        """The block as one of these; None for any other."""
        if _blurs(block):
            return None
        if hasattr(block, "downsample") and hasattr(block, "conv2"):
            main = block.conv2 if hasattr(block, "conv3") else block.conv1
            plain = nn.Identity if hasattr(main, "conv") else None  # timm's RegNet keeps a convolution with its norm
            main = getattr(main, "conv", main)
            return cls(block, main, "downsample", plain) if isinstance(main, nn.Conv2d) else None
        if hasattr(block, "proj") and hasattr(getattr(block, "f", None), "b"):
            return cls(block, block.f.b[0], "proj")
        if hasattr(block, "conv_dw") and hasattr(block, "shortcut") and isinstance(block.conv_dw, nn.Conv2d):
            return cls(block, block.conv_dw, "shortcut", nn.Identity)
        return None

    def place(self, halvings: int) -> None:
        if halvings == self.halvings:
            return
        stride = 2**halvings
        self.conv.stride = (stride, stride)
        if isinstance(getattr(self.block, "stride", None), (int, tuple)):
            self.block.stride = stride
        shortcut = getattr(self.block, self.name)
        if shortcut is None and self.plain is not None:
            return  # this block has no shortcut at all
        convs = [] if shortcut is None else [m for m in shortcut.modules() if isinstance(m, nn.Conv2d)]
        if not convs:
            plain = self.plain and self.plain()
            setattr(self.block, self.name, nn.MaxPool2d(1, stride) if stride > 1 else plain)
        elif isinstance(shortcut, nn.Sequential) and isinstance(shortcut[0], (nn.AvgPool2d, nn.Identity)):
            pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
            shortcut[0] = pool if stride > 1 else nn.Identity()  # as timm's average-pooled shortcuts
        else:
            convs[0].stride = (stride, stride)


class Inverted(Strides):
    """A block whose shortcut is a flag: MobileNet, EfficientNet. As built, it has none at a stride above 1."""

    def __init__(self, block: nn.Module, conv: nn.Conv2d, flag: str, shortcut: bool):
        self.block, self.conv, self.flag, self.shortcut = block, conv, flag, shortcut

    @classmethod
    def of(cls, block: nn.Module) -> Inverted | None:
        """The block as one of these; None for any other."""
        flag = next(
            (name for name in ("use_res_connect", "has_skip") if isinstance(getattr(block, name, None), bool)), None
        )
        convs = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
        spatial = [conv for conv in convs if conv.kernel_size[0] > 1]
        if flag is None or len(spatial) != 1 or _blurs(block):
            return None
        same = _outer(convs)
        at_one = bool(getattr(block, flag)) if _halvings(spatial[0].stride) == 0 else same
        return cls(block, spatial[0], flag, at_one)

    def place(self, halvings: int) -> None:
        stride = 2**halvings
        self.conv.stride = (stride, stride)
        setattr(self.block, self.flag, self.shortcut and stride == 1)
        if isinstance(getattr(self.block, "stride", None), int):
            self.block.stride = stride


def _outer(convs: Sequence[nn.Conv2d]) -> bool:
    """Whether a block gives as many channels as it is given."""
    return convs[0].in_channels == convs[-1].out_channels


def _blurs(block: nn.Module) -> bool:
    """Whether the block smooths what its stride drops (timm's anti-aliasing), which is not known here."""
    return not isinstance(getattr(block, "aa", None), (type(None), nn.Identity))


class Unit(Strided):
    """A layer of someone's network for a chain: modules that run one after the other, the first of which are its pools.

    Args:
        modules: used, not copied.
        halving: what moves the layer's downsamplings; None for the first layer, which has none.
        in_place: the modules change what they are given, so they get a copy: others may need it.
    """

    def __init__(self, modules: Sequence[nn.Module], halving: Halving | None, in_place: bool):
        super().__init__()
        self.parts = nn.ModuleList(modules)
        self.halving, self.in_place = halving, in_place

    def strided(self) -> list[nn.Conv2d]:
        return []  # their strides are the halving's

    def forward(self, features_BCHW: Tensor, stride: int | None = None) -> Tensor:
        self.place(_halvings(stride or self.stride))
        features_BCHW = features_BCHW.clone() if self.in_place else features_BCHW
        for part in self.parts:
            features_BCHW = part(features_BCHW)
        return features_BCHW

    def place(self, halvings: int) -> None:
        """Put so many downsamplings before the layer."""
        if self.halving is not None and self.halving.halvings != halvings:
            self.halving.place(halvings)
