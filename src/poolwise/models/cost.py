"""The cost of every configuration, computed before any training.

The cost of a configuration is a sum over layers. A layer's cost depends only on the downsamplings before and after it,
so a table indexed by (layer, halvings before, halvings after) covers every configuration under either operator. Each
entry is measured in one forward pass of the modules that ``plain_model`` would build. The passes run on torch's meta
device, which tracks shapes and autograd without computing values, so they are fast at any image size.
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
from poolwise.models.external.chain_adapter import Unit
from poolwise.models.external.strides import PoolBefore, axes
from poolwise.models.families.registry import Family
from poolwise.models.lookup import family
from poolwise.models.macs import multiply_adds
from poolwise.models.supernet import check_fits, check_operator, downsampled
from poolwise.rng import Streams
from poolwise.spaces import Pooling, PoolingSpace
from poolwise.storage.tables import Table, shape

_Step = tuple[int, int, int]  # layer, halvings before it, halvings after it
_BATCH = 2  # images in the measuring pass; BatchNorm needs more than one for batch statistics


@dataclass(frozen=True)
class Cost:
    """Costs of one configuration at one image size.

    Attributes:
        macs: MACs of the convolutions and linear layers for one image, forward pass.
        macs_ratio: ``macs`` divided by the MACs of the default configuration.
        parameters: Number of trainable parameters (the same for every configuration).
        activation_bytes: Peak float32 bytes per image that training keeps for the backward pass.
        receptive_field: Receptive field of the last features before the head, in pixels along one axis.
        productive: Number of productive convolutions: those with kernel > 1 whose input receptive field is smaller than
            the image (Richter et al., "Should You Go Deeper?", ICMLA 2021).
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
    """Cost of one layer, including its downsampling, between two resolutions."""

    output: Tensor  # on the meta device: the next layer's input
    macs: int = 0
    activation_bytes: int = 0  # kept for the backward pass, without the input
    input_bytes: int = 0  # of the input, if it is kept for the backward pass
    holds_output: bool = False
    windows: list[_Window] = field(default_factory=list)  # in execution order


@dataclass(frozen=True)
class _Window:
    """Reach and stride of a spatial convolution or a pooling."""

    reach: int  # (kernel - 1) * dilation
    stride: int
    convolution: bool


class CostModel:
    """Compute the costs of a chain's configurations at one (square) image size.

    Args:
        chain: Has no strides and no ``PerDepth`` layers, whose costs equal those of the plain network. It is copied,
            and its weights do not matter.
        image_size: Pixels along one side.
        default: The configuration that ratios refer to.
        operator: ``pool`` or ``stride`` (see ``models.supernet``). Defaults to the chain's operator.
        most: The largest number of downsamplings in a configuration. At least that of ``default``.

    Raises:
        RequestError: The image is too small for so many downsamplings, or the chain does not support the operator.
    """

    def __init__(
        self, chain: Chain, image_size: int, default: Pooling, operator: str | None = None, most: int | None = None
    ):
        check_fits(chain, default)
        if any(isinstance(layer, PerDepth) for layer in chain.layers):
            raise RequestError("costs need a chain without layers that have a copy per depth: pass the plain chain")
        self.operator = check_operator(chain, operator)
        self.chain = copy.deepcopy(chain).to("meta")
        self.image_size, self.default = image_size, default
        self.parameters = sum(p.numel() for p in chain.parameters())
        self.most = max(default.poolings, most or 0)
        smallest = chain.reduction * 2**self.most
        if image_size < smallest:
            raise RequestError(
                f"images of {image_size}x{image_size} pixels are too small for {self.most} downsamplings:"
                f" use images of at least {smallest}x{smallest} or fewer downsamplings"
            )
        self._images = torch.zeros(_BATCH, _input_channels(chain), image_size, image_size, device="meta")
        self._table: dict[_Step, _LayerCost] = {}
        self._default_macs = self._macs(default)

    def _entry(self, step: _Step) -> _LayerCost:
        """Return the cost of a step, measured on first use. The head is the step after the last layer."""
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
                    f" {_reason(error)}"
                    + ("; a head that flattens features allows only one number of downsamplings" if last else "")
                ) from error
        return self._table[step]

    def _input(self, i: int, depth: int) -> Tensor:
        """Return layer ``i``'s input after ``depth`` halvings, all at layer 1. Their place does not affect shapes."""
        if i == 0:
            return self._images
        return self._entry((i - 1, depth if i > 2 else 0, depth)).output

    def _macs(self, pooling: Pooling) -> int:
        return sum(self._entry(step).macs for step in _steps(pooling))

    def prefix_macs(self, poolings: Iterable[Pooling], supernets: int = 1) -> int:
        """Return the MACs, for one image, of running all of ``poolings`` with each common prefix computed once.

        This is the cost of ranking them on one SuperNet (``prefixes.walk``). Separate forward passes would cost the sum
        of ``self(pooling).macs``. For several ``supernets`` the result is an upper bound over all assignments: each
        prefix counts once per SuperNet that may need it.
        """
        prefixes: Counter[tuple[_Step, ...]] = Counter()
        for pooling in poolings:
            check_fits(self.chain, pooling)
            steps = _steps(pooling)
            prefixes.update(tuple(steps[: i + 1]) for i in range(len(steps)))
        return sum(self._entry(prefix[-1]).macs * min(count, supernets) for prefix, count in prefixes.items())

    def __call__(self, pooling: Pooling) -> Cost:
        """Return the cost of a configuration with at most ``most`` downsamplings."""
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
    """Return the family called ``model``. Raise RequestError if ``width`` is given and the family has a fixed width."""
    known = family(model)
    if width is not None and known.width is None:
        raise RequestError(f"width is not supported by the external network {model}: omit it")
    return known


def family_costs(
    model: str, width: int | None, image_size: int, classes: int, space: PoolingSpace | None = None
) -> dict[Pooling, Cost]:
    """Return the cost of every configuration of ``space``, by default the family's space, in the order of the space."""
    known = sized(model, width)
    space = known.space if space is None else space
    arguments = {"classes": classes, "width": width or known.width, "norm": batch_norm}
    chain = create(known.build, Streams(0).torch("cost"), **arguments)
    price = CostModel(chain, image_size, known.default, most=space.poolings)
    return {pooling: price(pooling) for pooling in space}


def _steps(pooling: Pooling) -> list[_Step]:
    """Return (layer, halvings before, halvings after) for every layer, then for the head."""
    depths = pooling.depths()
    return [(i, before, after) for i, (before, after) in enumerate(pairwise([0, *depths, depths[-1]]))]


@torch.enable_grad()
def _measure(module: nn.Module, features_BCHW: Tensor) -> _LayerCost:
    """Measure one pass of ``module`` on the meta device. Gradients are enabled even if the caller disabled them."""
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
    # average pools count only as direct parts of a Unit: one inside a block belongs to its shortcut
    averaging = {part for unit in units for part in unit.parts if isinstance(part, nn.AvgPool2d)}

    def count(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        cost.macs += multiply_adds(module, output)
        if isinstance(module, nn.Conv2d):
            if max(module.kernel_size) > 1:
                reach = (module.kernel_size[0] - 1) * module.dilation[0]
                cost.windows.append(_Window(reach, module.stride[0], True))
        elif isinstance(module, nn.MaxPool2d) or module in averaging:
            kernel, stride = axes(module.kernel_size)[0], axes(module.stride)[0]
            if kernel > 1:  # kernel 1: a shortcut that only subsamples
                cost.windows.append(_Window(kernel - 1, stride, False))

    return count


def _pools_before(cost: _LayerCost) -> Callable[[nn.Module, Any], None]:
    """Return a hook that records a module's ``PoolBefore`` hooks, which run before the module itself."""

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
    """Yield storage -> bytes of the tensors that autograd saves inside this context, except per-channel values."""
    saved: dict[int, int] = {}
    alive: list[Tensor] = []  # keeps tensors alive so that no storage id is reused

    def pack(tensor: Tensor) -> Tensor:
        if tensor.dim() > 1 and tensor.shape[0] == _BATCH:
            saved.setdefault(_storage(tensor), tensor.numel() * tensor.element_size())
        alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved


def _reason(error: Exception) -> str:
    """Return the first line of an error, with an explanation if the head needs a fixed number of features."""
    message = str(error).splitlines()[0] if str(error) else type(error).__name__
    fixed = "mat1 and mat2" in message
    return f"({message})" + (": use the image size that the head was built for" if fixed else "")


def _storage(tensor: Tensor) -> int:
    """Return an id that is equal for tensors that share memory, also on the meta device."""
    return id(tensor.untyped_storage())


def table_costs(table: Table, model: str | None = None) -> dict[Pooling, Cost]:
    """Return the cost of every configuration of a table's network, in the order of the family's space.

    Args:
        table: A table whose ``about`` names the network.
        model: Overrides the network that the table names.
    """
    size, classes = shape(table)
    return family_costs(model or table.about["model"], table.about.get("width"), size, classes)
