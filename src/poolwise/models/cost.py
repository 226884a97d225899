"""What every configuration costs, before any training.

All costs are sums over layers of what a layer costs between the resolution before it and the one after it, so a table of
(layer, halvings before, halvings after), each entry read off one forward pass of the modules that ``plain_model`` would
build, prices any configuration of any space under either operator. The passes run on torch's meta device: shapes and
autograd's bookkeeping without numbers, so they take no time at any image size.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from poolwise.errors import RequestError
from poolwise.models.chain import Chain, PerDepth, batch_norm, create
from poolwise.models.external.strides import PoolBefore, Unit, one
from poolwise.models.families.registry import Family
from poolwise.models.lookup import family
from poolwise.models.macs import multiply_adds
from poolwise.models.supernet import check_fits, check_operator, downsampled
from poolwise.rng import Streams
from poolwise.spaces import Pooling, PoolingSpace
from poolwise.storage.tables import Table, shape

_Step = tuple[int, int, int]  # layer, halvings before it, halvings after it
_BATCH = 2  # images in the measuring pass; more than one so that batch statistics exist


@dataclass(frozen=True)
class Cost:
    """Costs of one configuration at one image size.

    Attributes:
        macs: multiply-adds of convolutions and linear layers, one image, forward.
        macs_ratio: the same divided by the default configuration's.
        parameters: trainable numbers (the same for every configuration).
        activation_bytes: float32 bytes that training holds for the backward pass at its peak, per image.
        receptive_field: pixels of the input, along one axis, that one feature before the head sees.
        productive: productive convolutions, those of kernel > 1 whose input receptive field is smaller than the
            image (Richter et al., "Should You Go Deeper?", ICMLA 2021).
    """

    macs: int
    macs_ratio: float
    parameters: int
    activation_bytes: int
    receptive_field: int
    productive: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _LayerCost:
    """One layer between two resolutions, its downsampling included."""

    output: Tensor  # on the meta device: what the next layer is given
    macs: int = 0
    activation_bytes: int = 0  # that it holds, its input aside
    input_bytes: int = 0  # of its input, if it holds that
    holds_output: bool = False
    windows: list[_Window] = field(default_factory=list)  # in the order in which they run


@dataclass(frozen=True)
class _Window:
    """A spatial convolution or a pooling: how far it reaches in its input, and its stride."""

    reach: int  # (kernel - 1) * dilation
    stride: int
    convolution: bool


class CostModel:
    """Prices configurations of one chain at one (square) image size.

    Args:
        chain: stride-free and without copies by depth, which cost what the plain network does; its weights do not
            matter and it is not kept.
        image_size: pixels along one side.
        default: the configuration that ratios refer to.
        operator: ``pool`` or ``stride`` (see ``switch``); by default the chain's own.
        most: downsamplings of any configuration that is priced; by default those of ``default``.

    Raises RequestError where the image is too small for so many poolings, or the chain cannot be downsampled by the
    operator.
    """

    def __init__(
        self, chain: Chain, image_size: int, default: Pooling, operator: str | None = None, most: int | None = None
    ):
        check_fits(chain, default)
        if any(isinstance(layer, PerDepth) for layer in chain.layers):
            raise RequestError("costs are those of the plain network: give a chain without copies by depth")
        self.operator = check_operator(chain, operator)
        self.chain = copy.deepcopy(chain).to("meta")
        self.image_size, self.default = image_size, default
        self.parameters = sum(p.numel() for p in chain.parameters())
        self.most = max(default.poolings, most or 0)
        smallest = chain.reduction * 2**self.most
        if image_size < smallest:
            raise RequestError(
                f"images of {image_size}x{image_size} pixels are too small for {self.most} poolings:"
                f" at least {smallest}x{smallest} are needed; use larger images or fewer poolings"
            )
        self._images = torch.zeros(_BATCH, _input_channels(chain), image_size, image_size, device="meta")
        self._table: dict[_Step, _LayerCost] = {}
        self._default_macs = self._macs(default)

    def _entry(self, step: _Step) -> _LayerCost:
        """Cost of a step, measured when it is first asked for; the head is the step behind the last layer."""
        if step not in self._table:
            i, before, after = step
            last = i == len(self.chain)
            parts = [self.chain.head] if last else downsampled(self.chain.layers[i], after - before, self.operator)
            try:
                self._table[step] = _measure(nn.Sequential(*parts), self._input(i, before))
            except (RuntimeError, ValueError, NotImplementedError) as error:
                what = "the head" if last else f"layer {self.chain.names[i]}"
                raise RequestError(
                    f"{what} does not run on images of {self.image_size}x{self.image_size} pixels after {after} downsamplings"
                    f" {_why(error)}"
                    + (": a head that flattens features takes one resolution, that of its own number" if last else "")
                ) from error
        return self._table[step]

    def _input(self, i: int, depth: int) -> Tensor:
        """What layer ``i`` sees after ``depth`` halvings, all of them taken at layer 1: where does not matter to shapes."""
        if i == 0:
            return self._images
        return self._entry((i - 1, depth if i > 2 else 0, depth)).output

    def _macs(self, pooling: Pooling) -> int:
        return sum(self._entry(step).macs for step in _steps(pooling))

    def prefix_macs(self, poolings: Iterable[Pooling], supernets: int = 1) -> int:
        """Multiply-adds, for one image, of running all of ``poolings`` with each common prefix computed once.

        This is what ranking them on one SuperNet takes (``networks.walk``); the sum of ``self(pooling).macs``
        is what one forward pass a configuration takes. With several ``supernets`` it is the most that ranking can take,
        however the configurations are divided among them: each prefix on as many SuperNets as can need it.
        """
        prefixes: Counter[tuple[_Step, ...]] = Counter()
        for pooling in poolings:
            check_fits(self.chain, pooling)
            steps = _steps(pooling)
            prefixes.update(tuple(steps[: i + 1]) for i in range(len(steps)))
        return sum(self._entry(prefix[-1]).macs * min(count, supernets) for prefix, count in prefixes.items())

    def __call__(self, pooling: Pooling) -> Cost:
        """Cost of one configuration with at most ``most`` poolings."""
        check_fits(self.chain, pooling)
        assert pooling.poolings <= self.most, "more poolings than the image size was checked for"
        receptive_field, jump, productive = 1, 1, 0
        held, counted = self._images[0].numel() * self._images.element_size(), True
        for step in _steps(pooling):
            entry = self._entry(step)
            held += entry.activation_bytes + (0 if counted else entry.input_bytes)
            counted = entry.holds_output
            for window in entry.windows:
                productive += int(window.convolution and receptive_field < self.image_size)
                receptive_field += window.reach * jump
                jump *= window.stride
        macs = self._macs(pooling)
        return Cost(macs, macs / self._default_macs, self.parameters, held, receptive_field, productive)


def sized(model: str, width: int | None) -> Family:
    """The family called ``model``; RequestError where a width is given that it cannot have."""
    known = family(model)
    if width is not None and known.width is None:
        raise RequestError(f"width is of this library's own families and {model} has its own: leave it out")
    return known


def family_costs(
    model: str, width: int | None, image_size: int, classes: int, space: PoolingSpace | None = None
) -> dict[Pooling, Cost]:
    """Costs of every configuration of a family, or of a ``space`` of its placements, in the order of the space."""
    known = sized(model, width)
    space = known.space if space is None else space
    arguments = {"classes": classes, "width": width or known.width, "norm": batch_norm}
    chain = create(known.build, Streams(0).torch("cost"), **arguments)
    price = CostModel(chain, image_size, known.default, most=space.poolings)
    return {pooling: price(pooling) for pooling in space}


def _steps(pooling: Pooling) -> list[_Step]:
    """(layer, halvings before, halvings after) of every layer, then of the head."""
    depths = pooling.depths()
    return [(i, before, after) for i, (before, after) in enumerate(pairwise([0, *depths, depths[-1]]))]


@torch.enable_grad()
def _measure(module: nn.Module, features_BCHW: Tensor) -> _LayerCost:
    """Costs of one pass of ``module``, on the meta device, also where the caller wants no gradients."""
    features_BCHW = features_BCHW.detach().requires_grad_()
    cost = _LayerCost(features_BCHW)
    with _hooks(module, _counter(module, cost), _pools_before(cost)), _saved_bytes() as saved:
        output = module(features_BCHW)
    apart = {_storage(tensor) for tensor in (features_BCHW, *module.parameters())}
    cost.activation_bytes = sum(size for storage, size in saved.items() if storage not in apart) // _BATCH
    cost.input_bytes = saved.get(_storage(features_BCHW), 0) // _BATCH
    cost.holds_output = _storage(output) in saved
    cost.output = output.detach()
    return cost


def _input_channels(chain: Chain) -> int:
    return next(m.in_channels for m in chain.modules() if isinstance(m, nn.Conv2d))


def _counter(measured: nn.Module, cost: _LayerCost) -> Callable[[nn.Module, Any, Tensor], None]:
    units = [module for module in measured.modules() if isinstance(module, Unit)]
    # an average pool within a block belongs to its shortcut
    averaging = {part for unit in units for part in unit.parts if isinstance(part, nn.AvgPool2d)}

    def count(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        cost.macs += multiply_adds(module, output)
        if isinstance(module, nn.Conv2d):
            if max(module.kernel_size) > 1:
                reach = (module.kernel_size[0] - 1) * module.dilation[0]
                cost.windows.append(_Window(reach, module.stride[0], True))
        elif isinstance(module, nn.MaxPool2d) or module in averaging:
            kernel, stride = one(module.kernel_size), one(module.stride)
            if kernel > 1:  # else it is a shortcut that keeps every second pixel
                cost.windows.append(_Window(kernel - 1, stride, False))

    return count


def _pools_before(cost: _LayerCost) -> Callable[[nn.Module, Any], None]:
    """Pools that are hooked to a module (``halving``) come before what it does."""

    def count(module: nn.Module, _inputs: Any) -> None:
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, PoolBefore):
                cost.windows.append(_Window(hook.stride - 1, hook.stride, False))

    return count


@contextmanager
def _hooks(module: nn.Module, hook: Callable[..., None], before: Callable[..., None]) -> Iterator[None]:
    handles = [part.register_forward_hook(hook) for part in module.modules()]
    handles += [part.register_forward_pre_hook(before, prepend=True) for part in module.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _saved_bytes() -> Iterator[dict[int, int]]:
    """Storage -> bytes of what autograd keeps of the pass inside; values by channel excluded."""
    saved: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no storage is used twice

    def pack(tensor: Tensor) -> Tensor:
        if tensor.dim() > 1 and tensor.shape[0] == _BATCH:
            saved.setdefault(_storage(tensor), tensor.numel() * tensor.element_size())
        alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved


def _why(error: Exception) -> str:
    """The first line of an error, with what a fixed number of features comes from."""
    told = str(error).splitlines()[0] if str(error) else type(error).__name__
    fixed = "mat1 and mat2" in told
    return f"({told})" + (
        ": its head takes a fixed number of pixels, so give the image size it was made for" if fixed else ""
    )


def _storage(tensor: Tensor) -> int:
    """What tensors that share memory have in common, also on the meta device."""
    return id(tensor.untyped_storage())


def table_costs(table: Table, model: str | None = None) -> dict[Pooling, Cost]:
    """Return the cost of every configuration of a table's network, in the order of its space; ``model`` if it names none."""
    size, classes = shape(table)
    return family_costs(model or table.about["model"], table.about.get("width"), size, classes)
