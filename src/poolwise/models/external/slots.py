"""The layers of anyone's network before which a downsampling may stand.

The network is run once on an example, watched from outside. A module whose parts run one after the other, each on the
very tensor that the one before returned, is opened; any other is a block and stays whole, and so does one whose stride
can be set (``halving``). A layer is a block, or a convolution with what follows it up to the next. What runs before the
first block is the stem, which stays as it is: a layer of its own, or, where it makes images four times smaller or more,
part of the first layer together with the first block. Nothing of the network's code is read or changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from poolwise.errors import RequestError
from poolwise.models.external.strides import Halving, halving_of, is_pool, takes_stride
from poolwise.models.macs import multiply_adds
from poolwise.spaces import Pooling, PoolingSpace

_SMALL = 4  # times smaller than the image, behind a stem that is no layer of its own


@dataclass(frozen=True)
class Slot:
    """One layer, before which a downsampling may stand, as the network is now.

    Attributes:
        name: of its first module, as ``named_modules`` calls it.
        resolution, channels: of what it is given: pixels along the shorter side, and channels.
        macs: multiply-adds of one image.
        halvings: downsamplings that stand before it.
        how: ``stride`` or ``pool``; empty for the first layer, which never has one.
    """

    name: str
    resolution: int
    channels: int
    macs: int
    halvings: int
    how: str


@dataclass(frozen=True)
class Slots:
    """What ``slots`` found.

    Attributes:
        layers: in the order in which they run.
        reduction: how many times smaller than the image the first layer's output is, whatever the placement.
        fixed: name -> why a downsampling that is in the network stays where it is.
        in_place: whether each layer, and what follows the last, changes the very tensor that it is given.
    """

    layers: tuple[Slot, ...]
    reduction: int
    fixed: dict[str, str]
    _halvings: tuple[Halving, ...] = field(repr=False)
    _modules: tuple[tuple[nn.Module, ...], ...] = field(repr=False)
    in_place: tuple[bool, ...] = field(repr=False)

    @property
    def parts(self) -> list[tuple[tuple[nn.Module, ...], Halving]]:
        """Of each layer the modules that run one after the other, pools before it first, and how it takes downsamplings."""
        return list(zip(self._modules, self._halvings, strict=True))

    @property
    def pooling(self) -> Pooling:
        """The placement that the network has now."""
        positions = [i for i, slot in enumerate(self.layers) for _ in range(slot.halvings)]
        return Pooling.from_positions(positions, len(self.layers))

    @property
    def space(self) -> PoolingSpace:
        """All placements of as many downsamplings."""
        return PoolingSpace(len(self.layers), self.pooling.poolings)

    def to_json(self) -> dict[str, Any]:
        layers = [asdict(slot) for slot in self.layers]
        space = {"pooling": str(self.pooling), "configurations": self.space.size}
        return {**space, "reduction": self.reduction, "layers": layers, "fixed": self.fixed}

    def place(self, pooling: Pooling) -> None:
        """Move the downsamplings. RequestError, and nothing changed, where ``pooling`` is for another number of layers."""
        if pooling.layers != len(self.layers):
            raise RequestError(
                f"pooling {pooling} is for {pooling.layers} layers and the network has {len(self.layers)}:"
                f" its stage lengths must add up to {len(self.layers)}"
            )
        depths = [0, *pooling.depths()]
        for i, halving in enumerate(self._halvings[1:], start=1):
            halving.place(depths[i + 1] - depths[i])


@dataclass(eq=False)
class _Call:
    """A module at work, with the modules that worked within it."""

    name: str
    module: nn.Module
    given: Tensor | None
    returned: Any = None
    parts: list[_Call] = field(default_factory=list)
    macs: int = 0
    versions: tuple[int, int] = (0, 0)  # of what was given and returned, which count what is done to a tensor in place

    @property
    def convolves(self) -> bool:
        return any(isinstance(module, nn.Conv2d) for module in self.module.modules())

    @property
    def is_chain(self) -> bool:
        """Its parts ran one after the other, each on what the one before returned, and nothing else happened."""
        at = (self.given, self.versions[0])
        for part in self.parts:
            if not _same(at, (part.given, part.versions[0])):
                return False
            at = (part.returned, part.versions[1])
        return bool(self.parts) and _same(at, (self.returned, self.versions[1]))


def _same(one: tuple[Any, int], other: tuple[Any, int]) -> bool:
    return one[0] is other[0] and one[1] == other[1]


def _version(value: Any) -> int:
    return value._version if isinstance(value, Tensor) else 0


def slots(model: nn.Module, example: Tensor | None = None) -> Slots:
    """Find the layers of a network by running it once.

    Args:
        model: any chain-like network for images; it is run in evaluation mode and left as it was.
        example: images_BCHW as the network takes them; by default one black image of 64 pixels (224 where that is too small).

    Raises RequestError where the network cannot run the example, or where no sequence of layers is found in it.
    """
    items = _body(_watched(model, example))
    layers = _layers(items)
    if len(layers) < 2:
        table = [name for name, _ in model.named_parameters() if "pos_embed" in name]
        raise RequestError(
            f"{type(model).__name__}: no sequence of layers that work on images one after the other was found. Networks are taken"
            " whose body is a chain of convolutions or blocks (ResNet, VGG, MobileNet, EfficientNet, ConvNeXt, RegNet, DenseNet"
            " and the like); transformers and networks with several branches are not"
            + (f". It has a fixed table of positions, {table[0]}" if table else "")
        )
    return _found(layers)


def apply(model: nn.Module, pooling: Pooling | str, example: Tensor | None = None) -> nn.Module:
    """Move the downsamplings of a network; returns the network itself.

    Names, shapes and values of its parameters, its class and ``forward`` stay as they are, so weights load before or after
    it as always. A ``feature_info`` as timm's models have is brought up to date.

    Args:
        model: as for ``slots``.
        pooling: layers at each resolution, as ``slots(model).pooling`` is written.
        example: as for ``slots``.

    Raises RequestError, and changes nothing, where ``slots`` does, ``pooling`` is for another number of layers, or the
    network does not run with it.
    """
    pooling = Pooling.parse(pooling) if isinstance(pooling, str) else pooling
    found = slots(model, example)
    found.place(pooling)
    try:
        root = _watched(model, example)
    except RequestError as error:
        found.place(found.pooling)
        kept = (
            ""
            if pooling.poolings == found.pooling.poolings
            else f"; with {found.pooling.poolings} downsamplings it runs"
        )
        why = " a network that flattens features before a linear layer, or has a table of positions, takes one resolution there"
        raise RequestError(f"{type(model).__name__} does not run with {pooling} ({error}):{why}{kept}") from error
    info = getattr(model, "feature_info", None)
    if info is not None:
        _renew(getattr(info, "info", info), root)
    return model


def _renew(info: Any, root: _Call) -> None:
    """Write how many times smaller than the image each module's features are now into timm's ``feature_info``."""
    calls = {call.name: call for call in _every(root)}
    for entry in info:
        call = calls.get(entry.get("module", ""))
        if call is not None and _is_image(call.returned) and root.given is not None:
            entry["reduction"] = 2 ** _halved(root.given, call.returned)


def _every(call: _Call) -> Iterator[_Call]:
    for part in call.parts:
        yield part
        yield from _every(part)


def _watched(model: nn.Module, example: Tensor | None) -> _Call:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    error: Exception | None = None
    try:
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
    told = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise RequestError(f"{type(model).__name__} cannot run images of {shape} ({told}): give an example that it takes")


def _black(model: nn.Module, size: int) -> Tensor:
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    like = next(model.parameters(), torch.zeros(()))
    channels = 3 if first is None else first.in_channels
    return torch.zeros(2, channels, size, size, device=like.device, dtype=like.dtype)


@contextmanager
def _recording(model: nn.Module) -> Iterator[list[_Call]]:
    """Calls of ``model`` inside, each a tree."""
    names = {module: name for name, module in model.named_modules()}
    roots: list[_Call] = []
    stack: list[_Call] = []

    def begin(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        alone = len(given) == 1 and not named and isinstance(given[0], Tensor)
        call = _Call(names[module], module, given[0] if alone else None)  # what is given more is no chain
        call.versions = (_version(call.given), 0)
        (stack[-1].parts if stack else roots).append(call)
        stack.append(call)

    def end(module: nn.Module, _given: tuple[Any, ...], returned: Any) -> None:
        call = stack.pop()
        call.returned, call.versions = returned, (call.versions[0], _version(returned))
        call.macs = sum(part.macs for part in call.parts) + multiply_adds(module, returned)

    handles = [m.register_forward_pre_hook(begin, prepend=True, with_kwargs=True) for m in names] + [
        m.register_forward_hook(end) for m in names
    ]
    try:
        yield roots
    finally:
        for handle in handles:
            handle.remove()


def _body(root: _Call) -> list[_Call]:
    """Blocks and single modules that run one after the other on features_BCHW, from the image on."""
    blocks = set(_block_classes(root))

    def opened(call: _Call) -> Iterator[_Call]:
        if call.parts and type(call.module) not in blocks and not takes_stride(call.module) and call.is_chain:
            for part in call.parts:
                yield from opened(part)
        else:
            yield call

    found: list[_Call] = []
    at = root.given
    for part in root.parts:
        if part.given is not at:
            break
        for call in opened(part):
            if not _is_image(call.returned) or "Adaptive" in type(call.module).__name__ or _is_head(call):
                return found
            found.append(call)
        at = part.returned
    return found


def _block_classes(call: _Call) -> Iterator[type]:
    """Classes of which some module is no chain: such modules are blocks, also those that happen to be one."""
    for part in call.parts:
        if part.parts and not part.is_chain:
            yield type(part.module)
        yield from _block_classes(part)


def _is_head(call: _Call) -> bool:
    """A block of an unknown kind that leaves one pixel of many (timm's VGG)."""
    if not call.parts or takes_stride(call.module) or not _is_image(call.given):
        return False
    return _side(call.given) > 1 == _side(call.returned)


def _is_image(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 4


def _layers(items: list[_Call]) -> list[list[_Call]]:
    """Runs of modules, each from a block or a convolution on; what runs before the first block is the stem."""
    layers: list[list[_Call]] = []
    for call in items:
        if call.convolves or not layers:
            layers.append([])
        layers[-1].append(call)
    first = next((i for i, layer in enumerate(layers) if layer[0].parts and layer[0].convolves), 0)
    stem = [call for layer in layers[:first] for call in layer]
    if stem and _side(stem[0].given) >= _SMALL * _side(stem[-1].returned):
        return [[*stem, *layers[first]], *layers[first + 1 :]]
    return [layer for layer in [stem, *layers[first:]] if layer]


def _side(features_BCHW: Any) -> int:
    return min(features_BCHW.shape[2:])


def _halved(before: Any, after: Any) -> int:
    return max(round(math.log2(_side(before) / max(_side(after), 1))), 0)


def _found(layers: list[list[_Call]]) -> Slots:
    pools = [call for layer in layers for call in layer[1:] if is_pool(call.module)]
    pooled = [call for call in pools if call not in layers[0] or call is layers[0][-1]]
    kind = "average" if any(isinstance(call.module, nn.AvgPool2d) for call in pooled) else "max"
    told, halvings, fixed = [], [], dict[str, str]()
    modules = [[call.module for call in layer] for layer in layers]
    for i, layer in enumerate(layers):
        before = layers[i - 1][-1].module if i else None
        pool = before if before is not None and is_pool(before) else None
        halving = halving_of(layer[0].module, pool, kind, prefer_pool=bool(pooled))
        if pool is not None:
            modules[i].insert(0, modules[i - 1].pop())
        given, returned = layer[0].given, layer[-1].returned
        if is_pool(layer[-1].module):
            returned = layer[-1].given  # it stands before the next layer
        if i and _halved(given, returned) and not halving.halvings:
            fixed[layer[0].name] = f"{type(layer[0].module).__name__} makes features smaller in a way that is not known"
        told.append(
            Slot(
                layer[0].name,
                _side(given),
                given.shape[1],  # type: ignore[union-attr]
                sum(call.macs for call in layer),
                halving.halvings if i else 0,
                halving.how if i else "",
            )
        )
        halvings.append(halving)
    stem = layers[0]
    last = stem[-1].given if is_pool(stem[-1].module) else stem[-1].returned
    reduction = 2 ** _halved(stem[0].given, last)
    if is_pool(layers[-1][-1].module):
        fixed[layers[-1][-1].name] = "it stands behind the last layer"
    if reduction > 1:
        fixed[stem[0].name] = f"the stem makes images {reduction} times smaller"
    given = [layer[0].given for layer in layers] + [layers[-1][-1].returned]
    versions = [layer[0].versions[0] for layer in layers] + [layers[-1][-1].versions[1]]
    changed = tuple(_version(tensor) > version for tensor, version in zip(given, versions, strict=True))
    parts = tuple(tuple(own) for own in modules)
    return Slots(tuple(told), reduction, fixed, tuple(halvings), parts, changed)
