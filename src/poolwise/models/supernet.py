"""The only place where a Pooling becomes downsampling.

``SwitchableNet`` runs any configuration on one set of weights; ``plain_model`` copies one of them into a plain module. Both
know two operators (Javan, Toews, Pedersoli, AutoML 2023):

- ``pool``: a 2x2 max-pool before the layer, as published for ResNet20;
- ``stride``: the layer's 3x3 convolution and its shortcut take the stride, as published for ResNet18 and ResNet50. An
  identity shortcut keeps every second row and column. Halvings that share a slot multiply: two of them are a stride of 4.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from poolwise.errors import RequestError, did_you_mean
from poolwise.models.chain import Chain, PerDepth, Strided, learning
from poolwise.spaces import Pooling

OPERATORS = ("pool", "stride")


class SwitchableNet(nn.Module):
    """A SuperNet: one set of weights for every pooling configuration, which is given per call.

    Args:
        chain: the layers; they are used, not copied.
        operator: one of OPERATORS; by default the chain's own.

    Raises RequestError for an unknown operator, or where the layers cannot take a stride.
    """

    def __init__(self, chain: Chain, operator: str | None = None):
        super().__init__()
        self.chain = chain
        self.operator = check_operator(chain, operator)

    def __len__(self) -> int:
        return len(self.chain)

    def forward(self, images_BCHW: Tensor, pooling: Pooling) -> Tensor:
        """images_BCHW -> logits_BK under ``pooling``. Raises RequestError where its layers do not fit."""
        check_fits(self.chain, pooling)
        features_BCHW, depths = images_BCHW, tuple(pooling.depths())
        for i in range(len(depths)):
            features_BCHW = self.layer(depths[: i + 1], features_BCHW)
        return self.chain.head(features_BCHW)

    def layer(self, prefix: Sequence[int], features_BCHW: Tensor) -> Tensor:
        """The last layer of ``prefix``, with its downsamplings: the step that configurations with one prefix share.

        ``prefix`` holds the depths of the first layers up to this one: how many downsamplings are passed when each runs.
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
    """Raise RequestError unless ``pooling`` speaks about as many layers as ``chain`` has."""
    if pooling.layers != len(chain):
        raise RequestError(
            f"pooling {pooling} is for {pooling.layers} layers and the network has {len(chain)}:"
            f" its stage lengths must add up to {len(chain)}"
        )


def check_operator(chain: Chain, operator: str | None = None) -> str:
    """``operator``, by default the chain's own, if the chain can be downsampled so; RequestError otherwise."""
    operator = operator or chain.operator
    if operator not in OPERATORS:
        hint = did_you_mean(operator, OPERATORS)
        raise RequestError(f"unknown operator {operator!r}{hint}: {' and '.join(OPERATORS)} are allowed")
    rigid = [name for name, layer in zip(chain.names[1:], chain.layers[1:], strict=True) if not _takes_stride(layer)]
    if operator == "stride" and rigid:
        raise RequestError(f"layer {rigid[0]!r} cannot take a stride: use the operator 'pool'")
    return operator


def _takes_stride(layer: nn.Module) -> bool:
    copies = layer.copies.values() if isinstance(layer, PerDepth) else [layer]
    return all(isinstance(own, Strided) for own in copies)


def downsampled(layer: nn.Module, halvings: int, operator: str) -> list[nn.Module]:
    """Modules, to be run in order, of a layer with ``halvings`` downsamplings on it; the layer is copied.

    Max-pools and the layer for ``pool``; for ``stride`` the layer alone, with the stride written into its convolutions.
    """
    layer = copy.deepcopy(layer)
    if not halvings:
        return [layer]
    if operator == "pool":
        return [*(nn.MaxPool2d(2) for _ in range(halvings)), layer]
    assert isinstance(layer, Strided)
    layer.stride = 2**halvings
    for conv in layer.strided():
        conv.stride = (layer.stride, layer.stride)
    return [layer]


def plain_model(network: SwitchableNet | Chain, pooling: Pooling | str, operator: str | None = None) -> nn.Module:
    """Copy one configuration into a plain module, weights included.

    The output equals the SwitchableNet's to the bit. Nothing of poolwise's switch stays in the module, and the ``stride``
    of each convolution says what it does. Norms are copied as they are: those of a search use batch statistics, and the
    averages of ``networks.recalibration`` are not among them.

    Args:
        network: Its layers. Where layers have copies for each depth (``variants``), those that the configuration uses.
        pooling: The configuration.
        operator: One of OPERATORS; by default the network's own.

    Returns:
        An ``nn.Sequential`` of layers, max-pools where the operator is one, and head. For a network that is not of this
        library, a copy of that very network with its downsamplings moved.
    """
    chain = network.chain if isinstance(network, SwitchableNet) else network
    pooling = Pooling.parse(pooling) if isinstance(pooling, str) else pooling
    check_fits(chain, pooling)
    operator = check_operator(chain, operator or network.operator)
    whole = chain.whole(pooling)
    if whole is not None:
        return learning(whole) if network.training else whole.eval()
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
