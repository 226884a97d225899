"""Find the slots of an external network: the layers before which a downsampling may stand.

The network runs once on an example, with hooks that record each module call. A module is split into its children if
they run in sequence, each on the very tensor that the previous one returned. Any other module is a block and is not
split, nor is a module whose stride can be set (``strides``). A layer is a block or a convolution, with the modules up
to the next one. What runs before the first block is the stem, which stays unchanged. The stem is a separate layer,
unless it reduces the resolution by 4 or more: then it is part of the first layer, with the first block. The network's
code is not read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from poolwise.errors import RequestError
from poolwise.models.external.strides import (
    Halving,
    halving_of,
    is_known_block,
    is_pool,
    restored_on_error,
    unsupported_strides,
)
from poolwise.models.macs import multiply_adds
from poolwise.spaces import Pooling, PoolingSpace

_SMALL = 4  # reduction from which the stem is merged with the first block


@dataclass(frozen=True)
class Slot:
    """One layer, before which a downsampling may stand, in the network's current configuration.

    Attributes:
        name: Name of the layer's first module in ``named_modules``.
        resolution: Pixels along the shorter side of the input.
        channels: Channels of the input.
        macs: MACs for one image.
        halvings: Number of downsamplings before the layer.
        how: ``stride`` or ``pool``. Empty for the first layer, which never has a downsampling.
    """

    name: str
    resolution: int
    channels: int
    macs: int
    halvings: int
    how: str


@dataclass(frozen=True)
class Slots:
    """The result of ``slots``.

    Attributes:
        layers: In execution order.
        reduction: Factor by which the first layer reduces the resolution in every configuration.
        fixed: Module name -> why a downsampling of the network cannot be moved.
        in_place: Whether each layer, and then the head, modifies its input in place.
    """

    layers: tuple[Slot, ...]
    reduction: int
    fixed: dict[str, str]
    _halvings: tuple[Halving, ...] = field(repr=False)
    _modules: tuple[tuple[nn.Module, ...], ...] = field(repr=False)
    in_place: tuple[bool, ...] = field(repr=False)

    @property
    def parts(self) -> list[tuple[tuple[nn.Module, ...], Halving]]:
        """Return each layer's modules in execution order, pools before it first, and its ``Halving``."""
        return list(zip(self._modules, self._halvings, strict=True))

    @property
    def pooling(self) -> Pooling:
        """Return the configuration that the network has when ``slots`` runs."""
        positions = [i for i, slot in enumerate(self.layers) for _ in range(slot.halvings)]
        return Pooling.from_positions(positions, len(self.layers))

    @property
    def space(self) -> PoolingSpace:
        """Return all configurations with the same number of downsamplings."""
        return PoolingSpace(len(self.layers), self.pooling.poolings)

    def to_json(self) -> dict[str, Any]:
        layers = [asdict(slot) for slot in self.layers]
        space = {"pooling": str(self.pooling), "configurations": self.space.size}
        return {**space, "reduction": self.reduction, "layers": layers, "fixed": self.fixed}

    def place(self, pooling: Pooling) -> None:
        """Move the downsamplings. Raise RequestError if the number of layers differs. On an error nothing is changed."""
        if pooling.layers != len(self.layers):
            raise RequestError(
                f"pooling {pooling} is for {pooling.layers} layers and the network has {len(self.layers)}:"
                f" its stage lengths must add up to {len(self.layers)}"
            )
        depths = [0, *pooling.depths()]
        with restored_on_error(part for layer in self._modules for module in layer for part in module.modules()):
            for i, halving in enumerate(self._halvings[1:], start=1):
                halving.place(depths[i + 1] - depths[i])


@dataclass(eq=False)
class _Call:
    """One recorded module call, with the calls inside it."""

    name: str
    module: nn.Module
    input: Tensor | None
    output: Any = None
    parts: list[_Call] = field(default_factory=list)
    macs: int = 0
    versions: tuple[int, int] = (0, 0)  # tensor versions of input and output, which count in-place operations

    @property
    def convolves(self) -> bool:
        return any(isinstance(module, nn.Conv2d) for module in self.module.modules())

    @property
    def is_chain(self) -> bool:
        """Return whether the parts ran in sequence, each on the output of the previous one, with nothing in between."""
        at = (self.input, self.versions[0])
        for part in self.parts:
            if not _same(at, (part.input, part.versions[0])):
                return False
            at = (part.output, part.versions[1])
        return bool(self.parts) and _same(at, (self.output, self.versions[1]))


def _same(one: tuple[Any, int], other: tuple[Any, int]) -> bool:
    return one[0] is other[0] and one[1] == other[1]


def _version(value: Any) -> int:
    return value._version if isinstance(value, Tensor) else 0


def slots(model: nn.Module, example: Tensor | None = None) -> Slots:
    """Find the layers of a network by running it once.

    Args:
        model: Any chain-like network for images. It runs in evaluation mode and is left unchanged.
        example: images_BCHW that the network accepts. By default two black images of 64 pixels, or of 224 if 64 fails.

    Raises:
        RequestError: The network cannot run the example, or it has no sequence of layers.
    """
    items = _body(_watched(model, example))
    layers = _layers(items)
    if len(layers) < 2:
        raise RequestError(
            f"{type(model).__name__}: no sequence of layers was found. Use a network whose body is a chain of convolutions or"
            " blocks, such as ResNet, VGG, MobileNet, EfficientNet, ConvNeXt, RegNet or DenseNet; transformers and networks"
            " with several branches are not supported"
        )
    return _slots_of(layers)


def apply(model: nn.Module, pooling: Pooling | str, example: Tensor | None = None) -> nn.Module:
    """Move the downsamplings of a network in place.

    Names, shapes and values of the parameters, the class and ``forward`` stay the same, so weights can be loaded before
    or after this call. A timm ``feature_info`` is updated.

    Args:
        model: See ``slots``.
        pooling: The configuration, such as ``5-3-2``.
        example: See ``slots``.

    Returns:
        The same network.

    Raises:
        RequestError: ``slots`` raises it, ``pooling`` has a different number of layers, or the network does not run
            with ``pooling``. The network is unchanged.
    """
    pooling = Pooling.parse(pooling) if isinstance(pooling, str) else pooling
    current = slots(model, example)
    with restored_on_error(model.modules()):
        current.place(pooling)
        try:
            root = _watched(model, example)
        except RequestError as error:
            needed = current.pooling.poolings
            hint = "" if pooling.poolings == needed else f"; use {needed} downsamplings"
            reason = " a network that flattens features or has a position embedding needs one final resolution"
            raise RequestError(
                f"{type(model).__name__} does not run with {pooling} ({error}):{reason}{hint}"
            ) from error
    info = getattr(model, "feature_info", None)
    _renew(getattr(info, "info", info), root)
    return model


def _renew(info: Any, root: _Call) -> None:
    """Update ``reduction``, a module's resolution relative to the image, in each entry of timm's ``feature_info``."""
    calls = {call.name: call for call in _every(root)}
    for entry in info if isinstance(info, list) else []:
        call = calls.get(str(entry.get("module"))) if isinstance(entry, dict) else None
        if call is not None and _is_image(call.output) and root.input is not None:
            entry["reduction"] = 2 ** _halved(root.input, call.output)


def _every(call: _Call) -> Iterator[_Call]:
    for part in call.parts:
        yield part
        yield from _every(part)


def _watched(model: nn.Module, example: Tensor | None) -> _Call:
    modes = {module: module.training for module in model.modules()}
    error: Exception | None = None
    try:
        model.eval()
        for images_BCHW in [example] if example is not None else [_black(model, 64), _black(model, 224)]:
            with _recording(model) as roots, torch.no_grad():
                try:
                    model(images_BCHW)
                    return roots[-1]
                except (RuntimeError, ValueError, AssertionError, TypeError, IndexError) as failure:
                    error = failure
    finally:
        for module, training in modes.items():
            module.training = training
    shape = "x".join(map(str, images_BCHW.shape))
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise RequestError(
        f"{type(model).__name__} does not run on images of {shape} ({reason}): pass an example that it accepts"
    )


def _black(model: nn.Module, size: int) -> Tensor:
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    like = next(model.parameters(), torch.zeros(()))
    channels = 3 if first is None else first.in_channels
    return torch.zeros(2, channels, size, size, device=like.device, dtype=like.dtype)


@contextmanager
def _recording(model: nn.Module) -> Iterator[list[_Call]]:
    """Record the calls of ``model`` inside this context. Yield the list of call trees."""
    names = {module: name for name, module in model.named_modules()}
    roots: list[_Call] = []
    stack: list[_Call] = []

    def before_call(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        single = len(inputs) == 1 and not keywords and isinstance(inputs[0], Tensor)
        call = _Call(names[module], module, inputs[0] if single else None)  # None: not part of a chain
        call.versions = (_version(call.input), 0)
        (stack[-1].parts if stack else roots).append(call)
        stack.append(call)

    def after_call(module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        call = stack.pop()
        call.output, call.versions = output, (call.versions[0], _version(output))
        call.macs = sum(part.macs for part in call.parts) + multiply_adds(module, output)

    with ExitStack() as hooks:
        for module in names:
            hooks.callback(module.register_forward_pre_hook(before_call, prepend=True, with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(after_call).remove)
        yield roots


def _body(root: _Call) -> list[_Call]:
    """Return the blocks and single modules that run in sequence on features_BCHW, starting from the image."""
    blocks = set(_block_classes(root))

    def opened(call: _Call) -> Iterator[_Call]:
        if call.parts and type(call.module) not in blocks and not is_known_block(call.module) and call.is_chain:
            for part in call.parts:
                yield from opened(part)
        else:
            yield call

    items: list[_Call] = []
    at = root.input
    for part in root.parts:
        if part.input is not at:
            break
        for call in opened(part):
            if not _is_image(call.output) or "Adaptive" in type(call.module).__name__ or _is_head(call):
                return items
            items.append(call)
        at = part.output
    return items


def _block_classes(call: _Call) -> Iterator[type]:
    """Yield the classes of modules that are not chains. All modules of such a class are treated as blocks."""
    for part in call.parts:
        if part.parts and not part.is_chain:
            yield type(part.module)
        yield from _block_classes(part)


def _is_head(call: _Call) -> bool:
    """Return whether a block of unknown kind reduces its input to one pixel (as in timm's VGG)."""
    if not call.parts or is_known_block(call.module) or not _is_image(call.input):
        return False
    return _side(call.input) > 1 == _side(call.output)


def _is_image(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 4


def _layers(items: list[_Call]) -> list[list[_Call]]:
    """Group calls into layers. Each starts at a block or convolution. What runs before the first block is the stem."""
    layers: list[list[_Call]] = []
    for call in items:
        if call.convolves or not layers:
            layers.append([])
        layers[-1].append(call)
    first = next((i for i, layer in enumerate(layers) if layer[0].parts and layer[0].convolves), 0)
    stem = [call for layer in layers[:first] for call in layer]
    if stem and _side(stem[0].input) >= _SMALL * _side(stem[-1].output):
        return [[*stem, *layers[first]], *layers[first + 1 :]]
    return [layer for layer in [stem, *layers[first:]] if layer]


def _side(features_BCHW: Any) -> int:
    return min(features_BCHW.shape[2:])


def _halved(before: Any, after: Any) -> int:
    return max(round(math.log2(_side(before) / max(_side(after), 1))), 0)


def _fixed_way(modules: list[nn.Module], features_BCHW: Any, output_BCHW: Any, halving: Halving) -> str:
    """Return in which way a layer reduces the resolution if it cannot be moved, else an empty string."""
    strides = unsupported_strides(modules)
    if strides and features_BCHW.shape[2:] != output_BCHW.shape[2:]:
        return f"by a stride of {' and '.join(strides)}, which is not the same power of two on both axes"
    lowered = _halved(features_BCHW, output_BCHW) and not halving.halvings
    return "in a way that is not supported" if lowered else ""


def _slots_of(layers: list[list[_Call]]) -> Slots:
    pools = [call for layer in layers for call in layer[1:] if is_pool(call.module)]
    pooled = [call for call in pools if call not in layers[0] or call is layers[0][-1]]
    kind = "average" if any(isinstance(call.module, nn.AvgPool2d) for call in pooled) else "max"
    layer_slots, halvings, fixed = [], [], dict[str, str]()
    modules = [[call.module for call in layer] for layer in layers]
    for i, layer in enumerate(layers):
        before = layers[i - 1][-1].module if i else None
        pool = before if before is not None and is_pool(before) else None
        halving = halving_of(layer[0].module, pool, kind, prefer_pool=bool(pooled))
        if pool is not None:
            modules[i].insert(0, modules[i - 1].pop())
        features_BCHW, output_BCHW = layer[0].input, layer[-1].output
        if is_pool(layer[-1].module):
            output_BCHW = layer[-1].input  # the pool belongs to the next layer
        way = _fixed_way(modules[i], features_BCHW, output_BCHW, halving) if i else ""
        if way:
            fixed[layer[0].name] = f"{type(layer[0].module).__name__} reduces the resolution {way}"
        layer_slots.append(
            Slot(
                layer[0].name,
                _side(features_BCHW),
                features_BCHW.shape[1],  # type: ignore[union-attr]
                sum(call.macs for call in layer),
                halving.halvings if i else 0,
                halving.operator if i else "",
            )
        )
        halvings.append(halving)
    stem = layers[0]
    last = stem[-1].input if is_pool(stem[-1].module) else stem[-1].output
    reduction = 2 ** _halved(stem[0].input, last)
    if is_pool(layers[-1][-1].module):
        fixed[layers[-1][-1].name] = "it comes after the last layer"
    if reduction > 1:
        fixed[stem[0].name] = f"the stem reduces the resolution by {reduction}"
    tensors = [layer[0].input for layer in layers] + [layers[-1][-1].output]
    versions = [layer[0].versions[0] for layer in layers] + [layers[-1][-1].versions[1]]
    changed = tuple(_version(tensor) > version for tensor, version in zip(tensors, versions, strict=True))
    parts = tuple(tuple(group) for group in modules)
    return Slots(tuple(layer_slots), reduction, fixed, tuple(halvings), parts, changed)
