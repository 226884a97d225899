"""The SuperNet. This module applies a Pooling to this library's layers; ``external/`` does it for other networks.

``SwitchableNet`` runs any configuration on one set of weights. ``plain_model`` copies one configuration into a plain
module. Both support two operators (Javan, Toews, Pedersoli, AutoML 2023):

- ``pool``: a 2x2 max-pool before the layer, as published for ResNet20.
- ``stride``: the layer's 3x3 convolution and its shortcut take the stride, as published for ResNet18 and ResNet50. An
  identity shortcut is subsampled by the stride. Downsamplings in the same slot multiply: two give a stride of 4.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from poolwise.errors import RequestError, did_you_mean
from poolwise.models.chain import Chain, PerDepth, StridePerCall, learning
from poolwise.spaces import Pooling

OPERATORS = ("pool", "stride")


class SwitchableNet(nn.Module):
    """A SuperNet: one set of weights for all pooling configurations. The configuration is an argument of ``forward``.

    Args:
        chain: The layers. They are used, not copied.
        operator: One of OPERATORS. Defaults to the chain's operator.

    Raises:
        RequestError: The operator is unknown or not supported by the chain.
    """

    def __init__(self, chain: Chain, operator: str | None = None):
        super().__init__()
        self.chain = chain
        self.operator = check_operator(chain, operator)

    def __len__(self) -> int:
        return len(self.chain)

    def forward(self, images_BCHW: Tensor, pooling: Pooling) -> Tensor:
        """Return logits_BK under ``pooling``. Raise RequestError if it has a different number of layers."""
        check_fits(self.chain, pooling)
        features_BCHW, depths = images_BCHW, tuple(pooling.depths())
        for i in range(len(depths)):
            features_BCHW = self.layer(depths[: i + 1], features_BCHW)
        return self.chain.head(features_BCHW)

    def layer(self, prefix: Sequence[int], features_BCHW: Tensor) -> Tensor:
        """Run the last layer of ``prefix`` with its downsamplings. Configurations with the same prefix share this step.

        Args:
            prefix: Depths of the layers up to and including this one. The depth of a layer is the number of
                downsamplings before it, those in its own slot included.
            features_BCHW: Input of the layer, before its downsamplings.
        """
        depth = prefix[-1]
        halvings = depth - (prefix[-2] if len(prefix) > 1 else 0)
        layer = self.chain.at(len(prefix) - 1, depth)
        if not halvings:
            return layer(features_BCHW)
        if self.operator == "stride":
            return layer(features_BCHW, 2**halvings)
        for _ in range(halvings):
            features_BCHW = F.max_pool2d(features_BCHW, 2)
        return layer(features_BCHW)


def check_fits(chain: Chain, pooling: Pooling) -> None:
    """Raise RequestError unless ``pooling`` and ``chain`` have the same number of layers."""
    if pooling.layers != len(chain):
        raise RequestError(
            f"pooling {pooling} is for {pooling.layers} layers and the network has {len(chain)}:"
            f" its stage lengths must add up to {len(chain)}"
        )


def check_operator(chain: Chain, operator: str | None = None) -> str:
    """Return ``operator``, or the chain's default for None. Raise RequestError if the chain does not support it."""
    operator = operator or chain.operator
    if operator not in OPERATORS:
        hint = did_you_mean(operator, OPERATORS, ".")
        raise RequestError(f"unknown operator {operator!r}{hint} Use {' or '.join(OPERATORS)}")
    if operator not in chain.operators:
        raise RequestError(
            f"operator {operator!r} is not supported by an external network, whose layers have their own downsamplings:"
            f" use {' or '.join(chain.operators)}"
        )
    rigid = [name for name, layer in zip(chain.names[1:], chain.layers[1:], strict=True) if not _accepts_stride(layer)]
    if operator == "stride" and rigid:
        raise RequestError(f"layer {rigid[0]!r} cannot take a stride: use the operator 'pool'")
    return operator


def _accepts_stride(layer: nn.Module) -> bool:
    copies = layer.copies.values() if isinstance(layer, PerDepth) else [layer]
    return all(isinstance(one, StridePerCall) for one in copies)


def downsampled(layer: nn.Module, halvings: int, operator: str) -> list[nn.Module]:
    """Return the modules, in execution order, of a copy of ``layer`` with ``halvings`` downsamplings.

    For ``pool`` these are max-pools and the layer. For ``stride`` it is the layer, with its convolutions' strides set.
    """
    layer = copy.deepcopy(layer)
    if not halvings:
        return [layer]
    if operator == "pool":
        return [*(nn.MaxPool2d(2) for _ in range(halvings)), layer]
    assert isinstance(layer, StridePerCall)
    layer.stride = 2**halvings
    for conv in layer.strided_convs():
        conv.stride = (layer.stride, layer.stride)
    return [layer]


def plain_model(network: SwitchableNet | Chain, pooling: Pooling | str, operator: str | None = None) -> nn.Module:
    """Copy one configuration into a plain module, weights included.

    The output is bitwise equal to that of the SwitchableNet. The copy does not need ``SwitchableNet``: each convolution
    has its actual ``stride``. Norms are copied as they are. Those of a search use batch statistics; the running
    averages of ``models.recalibration`` are not included.

    Args:
        network: The network to copy. Of a layer with one copy per depth (``PerDepth``), only the copy in use is taken.
        pooling: The configuration.
        operator: One of OPERATORS. Defaults to the network's operator.

    Returns:
        An ``nn.Sequential`` of layers, max-pools (operator ``pool`` only) and head. For an external network, a copy of
        that network with its downsamplings moved.

    Raises:
        RequestError: ``pooling`` or ``operator`` does not fit the network.
    """
    chain = network.chain if isinstance(network, SwitchableNet) else network
    pooling = Pooling.parse(pooling) if isinstance(pooling, str) else pooling
    check_fits(chain, pooling)
    operator = check_operator(chain, operator or network.operator)
    module = chain.as_module(pooling)
    if module is not None:
        return learning(module) if network.training else module.eval()
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    depth = 0
    for i, target in enumerate(pooling.depths()):
        *pools, layer = downsampled(chain.at(i, target), target - depth, operator)
        for step, pool in enumerate(pools, start=depth + 1):
            parts[f"pool{step}"] = pool
        parts[chain.names[i]] = layer
        depth = target
    parts["head"] = copy.deepcopy(chain.head)
    return nn.Sequential(parts).train(network.training)
