"""Downsample at one layer of an external network: by its stride if it is of a known kind, else by a pool before it.

Only strides, flags and modules without parameters are set, as the constructors of torchvision and timm do. So names,
shapes and values of parameters, classes and ``forward`` stay the same. A shortcut without a convolution becomes
``MaxPool2d(1, 2)``, which keeps every second row and column.
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
        """Return the current number of downsamplings."""
        raise NotImplementedError

    def place(self, halvings: int) -> None:
        """Set the number of downsamplings."""
        raise NotImplementedError


def halving_of(module: nn.Module, pool: nn.Module | None, kind: str, prefer_pool: bool) -> Halving:
    """Return the ``Halving`` for the layer that starts with ``module``.

    Args:
        module: The first module of the layer.
        pool: A pool of the network before the layer, if any.
        kind: The kind of pool that the network uses, ``max`` or ``average``.
        prefer_pool: Whether layers that are not known blocks are downsampled by a pool instead of a stride.
    """
    if pool is not None:
        return Pooled(module, kind, pool)
    if isinstance(module, Strided) and not prefer_pool:
        return LibraryLayer(module)
    block = _block(module)
    if block is not None:
        return block
    if isinstance(module, nn.Conv2d) and not prefer_pool:
        return Convolution(module)
    return Pooled(module, kind)


def takes_stride(module: nn.Module) -> bool:
    """Return whether ``module`` is a block whose stride can be set."""
    return _block(module) is not None


def _block(module: nn.Module) -> Strides | None:
    """Return the ``Strides`` of a block whose stride can be set. None for other modules."""
    return Residual.of(module) or Inverted.of(module)


def is_pool(module: nn.Module) -> bool:
    """Return whether ``module`` is a 2x2 pool with stride 2, or such a pool disabled by ``Pooled``."""
    if not isinstance(module, _POOLS):
        return False
    shape = (one(module.kernel_size), one(module.stride), one(module.padding))
    return shape in ((2, 2, 0), (1, 1, 0))


def one(value: Any) -> int:
    """Return a size that torch accepts as one number or as one per axis, as one number."""
    return int(value[0] if isinstance(value, Sequence) else value)


def _halvings(stride: Any) -> int:
    return one(stride).bit_length() - 1


class PoolBefore:
    """A forward pre-hook that pools a module's input. A class, so that it can be copied and pickled."""

    def __init__(self, kind: str, stride: int):
        self.kind, self.stride = kind, stride

    def __call__(self, _module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        pool = F.avg_pool2d if self.kind == "average" else F.max_pool2d
        return (pool(inputs[0], self.stride), *inputs[1:])


class Pooled(Halving):
    """Downsamples by pools before a module: the network's existing pool, if any, then a hook for the rest."""

    how = "pool"

    def __init__(self, module: nn.Module, kind: str, pool: nn.Module | None = None):
        self.module, self.kind, self.pool = module, kind, pool

    def _hooks(self) -> list[tuple[int, PoolBefore]]:
        hooks = self.module._forward_pre_hooks.items()
        return [(key, hook) for key, hook in hooks if isinstance(hook, PoolBefore)]

    @property
    def halvings(self) -> int:
        existing = 0 if self.pool is None else _halvings(self.pool.stride)
        return existing + sum(_halvings(hook.stride) for _, hook in self._hooks())

    def place(self, halvings: int) -> None:
        for key, _ in self._hooks():
            del self.module._forward_pre_hooks[key]
        if self.pool is not None:
            size = 2 if halvings else 1
            self.pool.kernel_size = self.pool.stride = size
            halvings = max(halvings - 1, 0)
        if halvings:
            self.module.register_forward_pre_hook(PoolBefore(self.kind, 2**halvings))


class Strides(Halving):
    """Downsamples by the stride of one convolution."""

    conv: nn.Conv2d

    @property
    def halvings(self) -> int:
        return _halvings(self.conv.stride)


class Convolution(Strides):
    """A single convolution. At stride 1 an even kernel is padded, since it would reduce the resolution by one."""

    def __init__(self, conv: nn.Conv2d):
        self.conv = conv

    def place(self, halvings: int) -> None:
        stride = 2**halvings
        self.conv.stride = (stride, stride)
        if self.conv.kernel_size[0] % 2 == 0 and self.conv.padding in ((0, 0), "same"):
            self.conv.padding = "same" if stride == 1 else (0, 0)


class LibraryLayer(Halving):
    """A layer of a family of this library."""

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
    """A block whose shortcut is a module or None: ResNet, ResNeXt, RegNet, timm's ConvNeXt.

    Args:
        block: The block.
        conv: The convolution of the residual branch that takes the stride.
        name: Name of the attribute that holds the shortcut.
        plain: Type that the attribute holds for an identity shortcut: ``nn.Identity``, or None if it holds None.
    """

    def __init__(self, block: nn.Module, conv: nn.Conv2d, name: str, plain: type[nn.Identity] | None = None):
        self.block, self.conv, self.name, self.plain = block, conv, name, plain

    @classmethod
    def of(cls, block: nn.Module) -> Residual | None:
        """Wrap the block if it is of this kind, else return None."""
        if _blurs(block):
            return None
        if hasattr(block, "downsample") and hasattr(block, "conv2"):
            main = block.conv2 if hasattr(block, "conv3") else block.conv1
            plain = nn.Identity if hasattr(main, "conv") else None  # timm's RegNet wraps each convolution with its norm
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
            shortcut[0] = pool if stride > 1 else nn.Identity()  # like the average-pooled shortcuts of timm
        else:
            convs[0].stride = (stride, stride)


class Inverted(Strides):
    """A block whose shortcut is enabled by a flag: MobileNet, EfficientNet. At a stride above 1 it has no shortcut."""

    def __init__(self, block: nn.Module, conv: nn.Conv2d, flag: str, shortcut: bool):
        self.block, self.conv, self.flag, self.shortcut = block, conv, flag, shortcut

    @classmethod
    def of(cls, block: nn.Module) -> Inverted | None:
        """Wrap the block if it is of this kind, else return None."""
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
    """Return whether a block has as many output channels as input channels."""
    return convs[0].in_channels == convs[-1].out_channels


def _blurs(block: nn.Module) -> bool:
    """Return whether the block uses timm's anti-aliasing, which is not supported here."""
    return not isinstance(getattr(block, "aa", None), (type(None), nn.Identity))


class Unit(Strided):
    """A layer of an external network as a layer of a chain: modules that run in sequence, starting with its pools.

    Args:
        modules: The modules. They are used, not copied.
        halving: Sets the layer's downsamplings. None for the first layer, which has none.
        in_place: Whether the modules modify their input. They then get a copy, since other code may need the input.
    """

    def __init__(self, modules: Sequence[nn.Module], halving: Halving | None, in_place: bool):
        super().__init__()
        self.parts = nn.ModuleList(modules)
        self.halving, self.in_place = halving, in_place

    def strided(self) -> list[nn.Conv2d]:
        return []  # ``halving`` sets the strides

    def forward(self, features_BCHW: Tensor, stride: int | None = None) -> Tensor:
        self.place(_halvings(stride or self.stride))
        features_BCHW = features_BCHW.clone() if self.in_place else features_BCHW
        for part in self.parts:
            features_BCHW = part(features_BCHW)
        return features_BCHW

    def place(self, halvings: int) -> None:
        """Set the number of downsamplings before the layer."""
        if self.halving is not None and self.halving.halvings != halvings:
            self.halving.place(halvings)
