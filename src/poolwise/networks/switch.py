"""The only place where a Pooling becomes downsampling.

``SwitchableNet`` runs any configuration on one set of weights; ``export`` hands out one of them as a plain module.
"""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from poolwise.errors import RequestError
from poolwise.networks.chain import Chain
from poolwise.space import Pooling


class SwitchableNet(nn.Module):
    """A SuperNet: one set of weights for every pooling configuration, which is given per call.

    The operator is the published one: a 2x2 max-pool before the layer.
    """

    def __init__(self, chain: Chain):
        super().__init__()
        self.chain = chain

    def __len__(self) -> int:
        return len(self.chain)

    def forward(self, images_BCHW: Tensor, pooling: Pooling) -> Tensor:
        """images_BCHW -> logits_BK under ``pooling``. Raises RequestError where its layers do not fit."""
        check_fits(self.chain, pooling)
        features_BCHW, depth = images_BCHW, 0
        for i, target in enumerate(pooling.depths()):
            features_BCHW = self.layer(i, features_BCHW, halvings=target - depth)
            depth = target
        return self.chain.head(features_BCHW)

    def layer(self, i: int, features_BCHW: Tensor, halvings: int = 0) -> Tensor:
        """Layer ``i`` after ``halvings`` downsamplings: the step that configurations with one prefix share."""
        for _ in range(halvings):
            features_BCHW = F.max_pool2d(features_BCHW, 2)
        return self.chain.layers[i](features_BCHW)


def check_fits(chain: Chain, pooling: Pooling) -> None:
    """Raise RequestError unless ``pooling`` speaks about as many layers as ``chain`` has."""
    if pooling.layers != len(chain):
        raise RequestError(
            f"pooling {pooling} is for {pooling.layers} layers and the network has {len(chain)}:"
            f" its stage lengths must add up to {len(chain)}"
        )


def export(network: SwitchableNet | Chain, pooling: Pooling | str) -> nn.Sequential:
    """One configuration as a plain ``nn.Sequential`` of the chain's layers, max-pools and head (weights copied).

    Its output equals the SwitchableNet's to the bit; nothing of poolwise's switch stays in it.
    """
    chain = network.chain if isinstance(network, SwitchableNet) else network
    pooling = Pooling.parse(pooling) if isinstance(pooling, str) else pooling
    check_fits(chain, pooling)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    depth = 0
    for name, layer, target in zip(chain.names, chain.layers, pooling.depths(), strict=True):
        for step in range(depth, target):
            parts[f"pool{step + 1}"] = nn.MaxPool2d(2)
        parts[name] = copy.deepcopy(layer)
        depth = target
    parts["head"] = copy.deepcopy(chain.head)
    return nn.Sequential(parts).train(network.training)
