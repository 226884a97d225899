"""Downsample at one layer of an external network: by its stride if it is of a known kind, else by a pool before it.

What is set: strides, the padding of even kernels, the size of 2x2 pools, flags that enable a shortcut, modules without
parameters, and forward pre-hooks that pool. So names, shapes and values of parameters, classes and ``forward`` stay the
same. A shortcut without a convolution becomes ``MaxPool2d(1, 2)``, which keeps every second row and column.

Only a layer whose original state can be restored is moved by its stride. All others are moved by a pool before them,
and strides that they have stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import NoneType
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import nn

from poolwise.models.chain import StridePerCall

_POOLS = (nn.MaxPool2d, nn.AvgPool2d)


class Halving:
    """The downsamplings before one layer.

    Attributes:
        operator: ``stride`` or ``pool``.
    """

    operator: ClassVar[str] = "stride"

    @property
    def is_movable(self) -> bool:
        """Return whether ``place`` can set any number of downsamplings and later restore the current state."""
        raise NotImplementedError

    @property
    def halvings(self) -> int:
        """Return the current number of downsamplings. Only for a layer that is movable."""
        raise NotImplementedError

    def place(self, halvings: int) -> None:
        """Set the number of downsamplings. Only for a layer that is movable."""
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
    halving: Halving | None = None
    if isinstance(module, StridePerCall) and not prefer_pool:
        halving = LibraryLayer(module)
    elif _known_block(module) is not None:
        halving = _known_block(module)
    elif isinstance(module, nn.Conv2d) and not prefer_pool:
        halving = Convolution(module)
    return halving if halving is not None and halving.is_movable else Pooled(module, kind)


def is_known_block(module: nn.Module) -> bool:
    """Return whether ``module`` is a block of a kind whose stride can be set."""
    return _known_block(module) is not None


def _known_block(module: nn.Module) -> Residual | Inverted | None:
    return Residual.of(module) or Inverted.of(module)


def is_pool(module: nn.Module) -> bool:
    """Return whether ``module`` is a 2x2 pool with stride 2, or such a pool disabled by ``Pooled``."""
    if not isinstance(module, _POOLS) or axes(getattr(module, "dilation", 1)) != (1, 1):
        return False
    shape = (axes(module.kernel_size), axes(module.stride), axes(module.padding))
    return shape in (((2, 2), (2, 2), (0, 0)), ((1, 1), (1, 1), (0, 0)))


def unsupported_strides(modules: Iterable[nn.Module]) -> list[str]:
    """Return the strides of convolutions and pools that are not the same power of two on both axes, as text."""
    parts = [part for module in modules for part in module.modules() if isinstance(part, (nn.Conv2d, *_POOLS))]
    strides = [axes(part.stride) for part in parts if _power_of_two(part.stride) is None]
    return [str(height if height == width else (height, width)) for height, width in dict.fromkeys(strides)]


@contextmanager
def restored_on_error(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Restore all attributes, hooks and submodules of ``modules`` if this context raises."""
    saved = []
    for module in modules:
        attributes = dict(vars(module))
        contents = [(value, value.copy()) for value in attributes.values() if isinstance(value, dict)]
        saved.append((module, attributes, contents))
    try:
        yield
    except BaseException:
        for module, attributes, contents in saved:
            vars(module).clear()
            vars(module).update(attributes)
            for value, content in contents:  # in place: the handle of a hook refers to this very dict
                value.clear()
                value.update(content)
        raise


def axes(value: Any) -> tuple[Any, Any]:
    """Return a size that torch accepts as one number or as one per axis, as one per axis (height, width)."""
    sizes = tuple(value) if isinstance(value, Sequence) else (value,)
    return (sizes[0], sizes[-1])


def _power_of_two(stride: Any) -> int | None:
    """Return a stride as one number if it is the same power of two on both axes, else None."""
    height, width = axes(stride)
    return height if height == width and height > 0 and height & (height - 1) == 0 else None


def halvings_of(stride: Any) -> int:
    """Return the number of downsamplings that a stride stands for."""
    size = _power_of_two(stride)
    assert size is not None, f"a stride of {stride} is not a number of downsamplings"
    return size.bit_length() - 1


def _strided(block: nn.Module) -> set[nn.Module]:
    """Return the convolutions and pools of a block with a stride other than 1."""
    parts = [part for part in block.modules() if isinstance(part, (nn.Conv2d, *_POOLS))]
    return {part for part in parts if axes(part.stride) != (1, 1)}


def _states_stride(block: nn.Module, stride: int) -> bool:
    """Return whether the attribute ``stride`` of a block is its stride, or no number."""
    value = getattr(block, "stride", None)
    return type(value) not in (int, tuple) or axes(value) == (stride, stride)


def _state_stride(block: nn.Module, stride: int) -> None:
    """Set the attribute ``stride`` of a block if it is a number."""
    value = getattr(block, "stride", None)
    if type(value) in (int, tuple):
        block.stride = stride if type(value) is int else (stride, stride)


class PoolBefore:
    """A forward pre-hook that pools a module's input. A class, so that it can be copied and pickled."""

    def __init__(self, kind: str, stride: int):
        self.kind, self.stride = kind, stride

    def __call__(self, _module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        pool = F.avg_pool2d if self.kind == "average" else F.max_pool2d
        return (pool(inputs[0], self.stride), *inputs[1:])


class Pooled(Halving):
    """Downsamples by pools before a module: the network's existing pool, if any, then a hook for the rest."""

    operator = "pool"

    def __init__(self, module: nn.Module, kind: str, pool: nn.Module | None = None):
        self.module, self.kind, self.pool = module, kind, pool

    @property
    def is_movable(self) -> bool:
        return True

    def _hooks(self) -> list[tuple[int, PoolBefore]]:
        hooks = self.module._forward_pre_hooks.items()
        return [(key, hook) for key, hook in hooks if isinstance(hook, PoolBefore)]

    @property
    def halvings(self) -> int:
        existing = 0 if self.pool is None else halvings_of(self.pool.stride)
        return existing + sum(halvings_of(hook.stride) for _, hook in self._hooks())

    def place(self, halvings: int) -> None:
        for key, _ in self._hooks():
            del self.module._forward_pre_hooks[key]
        if self.pool is not None:
            size = 2 if halvings else 1
            self.pool.kernel_size = self.pool.stride = size
            halvings = max(halvings - 1, 0)
        if halvings:
            self.module.register_forward_pre_hook(PoolBefore(self.kind, 2**halvings))


class StrideOfConv(Halving):
    """Downsamples by the stride of one convolution."""

    conv: nn.Conv2d

    @property
    def halvings(self) -> int:
        return halvings_of(self.conv.stride)


class Convolution(StrideOfConv):
    """A single convolution. The padding of an even kernel follows the stride.

    An even kernel has the output size floor(H / stride) at every stride up to its size, so it keeps the resolution at
    stride 1. The padding of an odd kernel does not change.
    """

    def __init__(self, conv: nn.Conv2d):
        self.conv = conv

    @property
    def is_movable(self) -> bool:
        stride = _power_of_two(self.conv.stride)
        if stride is None or (self.conv.padding == "same" and self._padding(1) is None):
            return False  # torch allows "same" only at stride 1
        if self._padding(stride) is None:
            return True
        return self.conv.padding == self._padding(stride) and self.conv.padding_mode == "zeros"

    def _padding(self, stride: int) -> tuple[int, int] | str | None:
        """Return the padding of an even kernel at ``stride``. None for an odd kernel."""
        conv = self.conv
        sizes = [step * (size - 1) + 1 for step, size in zip(conv.dilation, conv.kernel_size, strict=True)]
        if all(size % 2 for size in sizes):
            return None
        height, width = ((size - 1) // 2 if size % 2 else max(size - stride, 0) // 2 for size in sizes)
        return "same" if stride == 1 else (height, width)

    def place(self, halvings: int) -> None:
        stride = 2**halvings
        padding = self._padding(stride)
        self.conv.stride = (stride, stride)
        self.conv.padding = self.conv.padding if padding is None else padding


class LibraryLayer(Halving):
    """A layer of a family of this library."""

    def __init__(self, layer: StridePerCall):
        self.layer = layer

    @property
    def is_movable(self) -> bool:
        stride = _power_of_two(self.layer.stride)
        return stride is not None and all(axes(conv.stride) == (stride, stride) for conv in self.layer.strided_convs())

    @property
    def halvings(self) -> int:
        return halvings_of(self.layer.stride)

    def place(self, halvings: int) -> None:
        self.layer.stride = 2**halvings
        for conv in self.layer.strided_convs():
            conv.stride = (self.layer.stride, self.layer.stride)


class Residual(StrideOfConv):
    """A block whose shortcut is a module or None: ResNet, ResNeXt, RegNet, timm's ConvNeXt.

    Args:
        block: The block.
        conv: The convolution of the residual branch that takes the stride.
        name: Name of the attribute that holds the shortcut.
        identity: Type of the attribute for an identity shortcut: ``nn.Identity``, or the type of None.
    """

    def __init__(self, block: nn.Module, conv: nn.Conv2d, name: str, identity: type = NoneType):
        self.block, self.conv, self.name, self.identity = block, conv, name, identity

    @classmethod
    def of(cls, block: nn.Module) -> Residual | None:
        """Wrap the block if it is of this kind, else return None."""
        if _blurs(block):
            return None
        if _has_shortcut(block, "downsample") and hasattr(block, "conv2"):
            main = block.conv2 if hasattr(block, "conv3") else getattr(block, "conv1", None)
            identity = nn.Identity if hasattr(main, "conv") else NoneType  # timm's RegNet wraps convolution and norm
            main = getattr(main, "conv", main)
            return cls(block, main, "downsample", identity) if isinstance(main, nn.Conv2d) else None
        branch = getattr(getattr(block, "f", None), "b", None)
        if _has_shortcut(block, "proj") and isinstance(branch, nn.Sequential):
            return cls(block, branch[0], "proj") if len(branch) and isinstance(branch[0], nn.Conv2d) else None
        if _has_shortcut(block, "shortcut") and isinstance(getattr(block, "conv_dw", None), nn.Conv2d):
            return cls(block, block.conv_dw, "shortcut", nn.Identity)
        return None

    @property
    def _shortcut(self) -> nn.Module | None:
        return getattr(self.block, self.name)

    @property
    def _has_none(self) -> bool:
        """Return whether the block has no shortcut at all, not even an identity."""
        return self._shortcut is None and self.identity is nn.Identity

    def _convs(self) -> list[nn.Conv2d]:
        return [] if self._shortcut is None else [m for m in self._shortcut.modules() if isinstance(m, nn.Conv2d)]

    @property
    def _pools_first(self) -> bool:
        """Return whether the shortcut is an average pool, or an identity in its place, and a convolution (timm)."""
        shortcut = self._shortcut
        return isinstance(shortcut, nn.Sequential) and isinstance(shortcut[0], (nn.AvgPool2d, nn.Identity))

    @property
    def _strided_part(self) -> nn.Module | None:
        """Return the module of the shortcut that has the stride."""
        convs = self._convs()
        if not convs:
            return self._shortcut
        return self._shortcut[0] if self._pools_first else convs[0]  # type: ignore[index]

    def _pool_fits(self, stride: int) -> bool:
        """Return whether ``place`` would build the pool of the shortcut, if any, in the same way."""
        part = self._strided_part
        if not isinstance(part, _POOLS):
            return True
        size = 1 if isinstance(part, nn.MaxPool2d) else stride
        return axes(part.kernel_size) == (size, size) and axes(part.padding) == (0, 0)

    @property
    def is_movable(self) -> bool:
        stride, shortcut, convs = _power_of_two(self.conv.stride), self._shortcut, self._convs()
        if stride is None or not _states_stride(self.block, stride):
            return False
        strided = _strided(self.block)
        if any(axes(part.stride) != (stride, stride) for part in strided):
            return False
        if self._has_none:
            return strided == ({self.conv} if stride > 1 else set())
        known = bool(convs) or type(shortcut) is (self.identity if stride == 1 else nn.MaxPool2d)
        if stride == 1:
            return known and not strided and not isinstance(self._strided_part, _POOLS)
        return known and strided == {self.conv, self._strided_part} and self._pool_fits(stride)

    def place(self, halvings: int) -> None:
        if halvings == self.halvings:
            return
        stride, convs = 2**halvings, self._convs()
        self.conv.stride = (stride, stride)
        _state_stride(self.block, stride)
        if self._has_none:
            return
        if not convs:
            setattr(self.block, self.name, nn.MaxPool2d(1, stride) if stride > 1 else self.identity())
        elif self._pools_first:
            pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
            self._shortcut[0] = pool if stride > 1 else nn.Identity()  # type: ignore[index]
        else:
            convs[0].stride = (stride, stride)


class Inverted(StrideOfConv):
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
        spatial = [conv for conv in convs if max(conv.kernel_size) > 1]
        if flag is None or len(spatial) != 1 or _blurs(block):
            return None
        return cls(block, spatial[0], flag, convs[0].in_channels == convs[-1].out_channels)

    @property
    def is_movable(self) -> bool:
        stride = _power_of_two(self.conv.stride)
        if stride is None or not _states_stride(self.block, stride):
            return False
        enabled = getattr(self.block, self.flag) == (self.shortcut and stride == 1)
        return enabled and _strided(self.block) == ({self.conv} if stride > 1 else set())

    def place(self, halvings: int) -> None:
        stride = 2**halvings
        self.conv.stride = (stride, stride)
        setattr(self.block, self.flag, self.shortcut and stride == 1)
        _state_stride(self.block, stride)


def _has_shortcut(block: nn.Module, name: str) -> bool:
    """Return whether the attribute is a module, or None in place of one."""
    return hasattr(block, name) and isinstance(getattr(block, name), (nn.Module, NoneType))


def _blurs(block: nn.Module) -> bool:
    """Return whether the block uses timm's anti-aliasing, which is not supported here."""
    return not isinstance(getattr(block, "aa", None), (NoneType, nn.Identity))
