"""Adapt an external network to the ``Chain`` interface, so that it can be searched like a family of this library.

``slots`` finds the layers, and each layer's ``Halving`` sets its downsamplings. The head is the network's ``forward``
with the layers skipped. The chain is a view of the network: it owns no other weights and keeps their names.
"""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from poolwise.config import Config
from poolwise.errors import RequestError
from poolwise.models.chain import Chain, StridePerCall
from poolwise.models.external.slots import Slots, slots
from poolwise.models.external.strides import Halving, halvings_of
from poolwise.spaces import Pooling


class Unit(StridePerCall):
    """A layer of an external network as a layer of a chain: modules that run in sequence, starting with its pools.

    A layer that is moved by a pool or has an even kernel has floor(H / stride) x floor(W / stride) output pixels.

    Args:
        modules: The modules. They are used, not copied.
        halving: Sets the layer's downsamplings. None for the first layer, which has none.
        in_place: Whether the modules modify their input. They then get a copy, since other code may need the input.
    """

    def __init__(self, modules: Sequence[nn.Module], halving: Halving | None, in_place: bool):
        super().__init__()
        self.parts = nn.ModuleList(modules)
        self.halving, self.in_place = halving, in_place

    def strided_convs(self) -> list[nn.Conv2d]:
        return []  # ``halving`` sets the strides

    def forward(self, features_BCHW: Tensor, stride: int | None = None) -> Tensor:
        self.place(halvings_of(stride or self.stride))
        features_BCHW = features_BCHW.clone() if self.in_place else features_BCHW
        for part in self.parts:
            features_BCHW = part(features_BCHW)
        return features_BCHW

    def place(self, halvings: int) -> None:
        """Set the number of downsamplings before the layer."""
        if self.halving is not None and self.halving.halvings != halvings:
            self.halving.place(halvings)


class Tail(nn.Module):
    """The head of an external network: its ``forward`` with the layers skipped.

    Args:
        model: The network. Its modules outside the layers become submodules of the tail.
        layers: All modules that run in layers, repeated once per call.
        in_place: Whether the head modifies its input in place. It then gets a copy.
    """

    def __init__(self, model: nn.Module, layers: Sequence[nn.Module], in_place: bool):
        super().__init__()
        self.in_place = in_place
        self.parts = nn.ModuleList(_outside(model, set(layers)))
        self._model = (model,)  # a tuple hides the network's weights from nn.Module
        self._calls = Counter(layers)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        with _passed_over(self._calls):
            return self._model[0](features_BCHW.clone() if self.in_place else features_BCHW)


def _outside(module: nn.Module, layers: set[nn.Module]) -> Iterator[nn.Module]:
    if layers.isdisjoint(module.modules()):
        yield module
    elif module not in layers:
        for part in module.children():
            yield from _outside(part, layers)


class _Pass:
    """A ``forward`` that returns its input for the first ``times`` calls, then calls the module's own ``forward``."""

    def __init__(self, module: nn.Module, times: int):
        self.forward, self.times = module.forward, times

    def __call__(self, features_BCHW: Tensor) -> Tensor:
        self.times -= 1
        return features_BCHW if self.times >= 0 else self.forward(features_BCHW)


@contextmanager
def _passed_over(calls: Mapping[nn.Module, int]) -> Iterator[None]:
    """Skip the first ``calls[module]`` calls of each module inside this context, and disable its hooks."""
    hooks = [(module, module._forward_pre_hooks, module._forward_hooks) for module in calls]
    forwards = {module: vars(module)["forward"] for module in calls if "forward" in vars(module)}
    try:
        for module, times in calls.items():
            module._forward_pre_hooks, module._forward_hooks = OrderedDict(), OrderedDict()
            module.forward = _Pass(module, times)
        yield
    finally:
        for module, before, after in hooks:
            module._forward_pre_hooks, module._forward_hooks = before, after
            module.__dict__.pop("forward", None)
        for module, forward in forwards.items():
            module.forward = forward


class ExternalChain(Chain):
    """A chain that is a view of an external network.

    Args:
        model: The network. It is used, not copied, and every pass moves its downsamplings.
        model_slots: The layers of the network.
    """

    operator = "stride"
    operators = ("stride",)

    def __init__(self, model: nn.Module, model_slots: Slots):
        nn.Module.__init__(self)
        self.model = model
        self.names = [slot.name for slot in model_slots.layers]
        self.reduction = model_slots.reduction
        units = [
            Unit(modules, halving if i else None, model_slots.in_place[i])
            for i, (modules, halving) in enumerate(model_slots.parts)
        ]
        # bypass nn.Module, which would register the network's weights a second time
        self.__dict__["layers"] = units
        self.__dict__["head"] = Tail(
            model, [module for modules, _ in model_slots.parts for module in modules], model_slots.in_place[-1]
        )

    def as_module(self, pooling: Pooling) -> nn.Module:
        twin, depths = copy.deepcopy(self), [0, *pooling.depths()]
        for i, unit in enumerate(twin.layers):
            assert isinstance(unit, Unit)
            unit.place(depths[i + 1] - depths[i])
        return twin.model

    def use_batch_statistics(self) -> None:
        """Make all BatchNorms use batch statistics, as in a search. Scale and shift stay unchanged."""
        for norm in self.model.modules():
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                norm.track_running_stats = False
                norm.running_mean = norm.running_var = norm.num_batches_tracked = None


def chained(model: nn.Module, example: Tensor) -> ExternalChain:
    """Return the network as a chain of the layers that ``slots`` finds. Raise RequestError if it finds none."""
    return ExternalChain(model, slots(model, example))


@torch.no_grad()
def check_same(chain: ExternalChain, pooling: Pooling, example: Tensor) -> None:
    """Raise RequestError unless running the layers and the head in sequence is bitwise equal to the network."""
    model = chain.as_module(pooling).eval()
    twin = copy.deepcopy(chain).eval()
    features_BCHW, depths = example, [0, *pooling.depths()]
    expected = model(example)
    for i, unit in enumerate(twin.layers):
        features_BCHW = unit(features_BCHW, 2 ** (depths[i + 1] - depths[i]))
    logits = twin.head(features_BCHW)
    if not isinstance(expected, Tensor) or not torch.equal(logits, expected):
        raise RequestError(
            f"{type(chain.model).__name__} cannot be searched: it is not a sequence of layers and a head (its head uses features"
            " of earlier layers, or its output is not a tensor); poolwise.apply can still move its downsamplings"
        )


def check_settings(config: Config) -> None:
    """Raise RequestError if the config has an option that only families of this library support."""
    limits = {
        "width": (config.model.width is not None, "the width is fixed; omit it"),
        "norm": (config.search.norm == "affine", "affine copies layers; use batch or recalibrated"),
        "sharing": (config.search.sharing == "resolution", "resolution copies layers; use full"),
        "compile": (config.hardware.compile != "off", "strides change between calls; use off"),
    }
    for name, (unsupported, advice) in limits.items():
        if unsupported:
            value = config.get(name)
            raise RequestError(f"{name} {value} is not supported by the external network {config.model.name}: {advice}")
