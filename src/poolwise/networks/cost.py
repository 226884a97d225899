"""What every configuration costs, before any training.

All costs are sums over layers of what a layer costs at its resolution, so a table of layers x resolutions, read off
by one real forward pass of each layer at each resolution, prices any configuration of any space.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from poolwise.errors import RequestError
from poolwise.networks.chain import Chain, batch_norm, create
from poolwise.networks.registry import family
from poolwise.networks.switch import check_fits
from poolwise.rng import Streams
from poolwise.space import Pooling

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
    """One layer at one resolution."""

    macs: int = 0
    activation_bytes: int = 0
    kernels: list[int] = field(default_factory=list)  # (kernel - 1) * dilation of each spatial convolution, in order
    input_bytes: int = 0


class CostModel:
    """Prices configurations of one chain at one (square) image size.

    Args:
        chain: on the CPU, stride-free; its weights do not matter.
        image_size: pixels along one side.
        default: the configuration that ratios refer to.

    Raises RequestError where the image is too small for the default's number of poolings.
    """

    def __init__(self, chain: Chain, image_size: int, default: Pooling):
        check_fits(chain, default)
        self.chain, self.image_size, self.default = chain, image_size, default
        self.parameters = sum(p.numel() for p in chain.parameters())
        smallest = 2**default.poolings
        if image_size < smallest:
            raise RequestError(
                f"images of {image_size}x{image_size} pixels are too small for {default.poolings} poolings:"
                f" at least {smallest}x{smallest} are needed; use larger images or fewer poolings"
            )
        self._table = [_measure(chain, image_size >> depth) for depth in range(default.poolings + 1)]
        self._default_macs = self._macs(default)

    def _macs(self, pooling: Pooling) -> int:
        depths = pooling.depths()
        return sum(self._table[depth][i].macs for i, depth in enumerate(depths)) + self._table[depths[-1]][-1].macs

    def __call__(self, pooling: Pooling) -> Cost:
        """Cost of one configuration with at most as many poolings as the default."""
        check_fits(self.chain, pooling)
        assert pooling.poolings < len(self._table), "more poolings than were measured"
        depths = pooling.depths()
        receptive_field, jump, productive, held, before = 1, 1, 0, self._table[0][0].input_bytes, 0
        for i, depth in enumerate(depths):
            for reached in range(before + 1, depth + 1):
                receptive_field, jump = receptive_field + jump, jump * 2
                # a max-pool keeps its output for the layer behind it and, for its gradient, an int64 index for each
                held += self._table[reached][i].input_bytes * 3
            before = depth
            layer = self._table[depth][i]
            held += layer.activation_bytes
            for reach in layer.kernels:
                productive += receptive_field < self.image_size
                receptive_field += reach * jump
        held += self._table[depths[-1]][-1].activation_bytes
        macs = self._macs(pooling)
        return Cost(macs, macs / self._default_macs, self.parameters, held, receptive_field, productive)


def family_costs(model: str, width: int | None, image_size: int, classes: int) -> dict[Pooling, Cost]:
    """Costs of every configuration of a family, in the order of its space."""
    known = family(model)
    arguments = {"classes": classes, "width": width or known.width, "norm": batch_norm}
    price = CostModel(create(known.build, Streams(0).torch("cost"), **arguments), image_size, known.default)
    return {pooling: price(pooling) for pooling in known.space}


def _measure(chain: Chain, size: int) -> list[_LayerCost]:
    """Costs of every layer, and of the head as the last entry, at ``size`` x ``size`` features."""
    features = torch.zeros(_BATCH, _input_channels(chain), size, size)
    costs = []
    for module in [*chain.layers, chain.head]:
        cost = _LayerCost(input_bytes=features.numel() * features.element_size() // _BATCH)
        features = features.detach().requires_grad_()
        with _hooks(module, _counter(cost)), _saved_bytes(features) as saved:
            features = module(features)
        cost.activation_bytes = saved[0] // _BATCH
        costs.append(cost)
    return costs


def _input_channels(chain: Chain) -> int:
    return next(m.in_channels for m in chain.modules() if isinstance(m, nn.Conv2d))


def _counter(cost: _LayerCost) -> Callable[[nn.Module, Any, Tensor], None]:
    def count(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        outputs = output.numel() // _BATCH
        if isinstance(module, nn.Conv2d):
            cost.macs += outputs * module.in_channels // module.groups * math.prod(module.kernel_size)
            if max(module.kernel_size) > 1:
                cost.kernels.append((module.kernel_size[0] - 1) * module.dilation[0])
        elif isinstance(module, nn.Linear):
            cost.macs += outputs * module.in_features

    return count


@contextmanager
def _hooks(module: nn.Module, hook: Callable[..., None]) -> Iterator[None]:
    handles = [part.register_forward_hook(hook) for part in module.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _saved_bytes(layer_input: Tensor) -> Iterator[list[int]]:
    """Bytes that autograd keeps of the pass inside, weights, per-channel values and the pass's own input left out."""
    total, seen = [0], {layer_input.untyped_storage().data_ptr()}
    kept = []  # keep every tensor alive, so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if tensor.dim() > 1 and tensor.shape[0] == _BATCH and address not in seen and not tensor.is_leaf:
            seen.add(address)
            total[0] += tensor.numel() * tensor.element_size()
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total
