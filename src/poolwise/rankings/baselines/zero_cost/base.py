"""What zero-cost proxies share: their inputs, their registry, and the states of ReLUs.

To add a proxy, put one file with ``@register(...)`` into this folder. Shapes: images_BCHW, labels_B, codes_BA (A
activations), values_KP (K values of each of P configurations).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from poolwise.errors import RequestError
from poolwise.models.supernet import SwitchableNet
from poolwise.registry import Registry
from poolwise.rng import Streams
from poolwise.spaces import Pooling

IMAGES = 64


@dataclass
class Draw:
    """One draw of weights and images, which is the same for all configurations.

    Attributes:
        network: Untrained network, float32. BatchNorm uses batch statistics.
        images_BCHW, labels_B: Training images of all batches of the draw, not augmented, and their classes.
        streams: Random streams of the draw. ``streams.torch(name)`` restarts for every configuration.
        macs: MACs that scores of this draw took beside passes through the network.
    """

    network: SwitchableNet
    images_BCHW: Tensor
    labels_B: Tensor
    streams: Streams
    macs: int = 0


Score = Callable[[Draw, Pooling], float | Sequence[float]]
Join = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _single(values_KP: np.ndarray, _macs_P: np.ndarray) -> np.ndarray:
    """Return the only value of each configuration."""
    assert len(values_KP) == 1, "a proxy with several values must join them"
    return values_KP[0]


@dataclass(frozen=True)
class ZeroCost:
    """A zero-cost proxy.

    Attributes:
        name, summary: Name and one-line description.
        score: Returns one or more values of a configuration; higher is better.
        passes: Cost in forward passes of all images of a draw; a backward pass counts as two, one for the gradient of
            the features only counts as one.
        batches: Number of batches of a draw.
        images: Images in a batch.
        join: (values_KP, macs_P) -> scores_P, for proxies with several values or that rank the configurations.
    """

    name: str
    summary: str
    score: Score
    passes: int
    batches: int
    images: int
    join: Join


ZERO_COST: Registry[ZeroCost] = Registry(
    "zero-cost proxy", "poolwise.rankings.baselines.zero_cost", plural="zero-cost proxies"
)


def register(
    name: str, *, summary: str, passes: int, batches: int = 1, images: int = IMAGES, join: Join = _single
) -> Callable[[Score], Score]:
    """Return a decorator that registers a score function as a proxy. The arguments are those of ``ZeroCost``."""

    def add(score: Score) -> Score:
        ZERO_COST.add(name, ZeroCost(name, summary, score, passes, batches, images, join))
        return score

    return add


@torch.no_grad()
def relu_codes(name: str, draw: Draw, pooling: Pooling) -> list[Tensor]:
    """Return the on/off states codes_BA (bool) of every ReLU or ReLU6 of the network, one tensor a call.

    Raises:
        RequestError: The network has none. The message names proxy ``name`` and others that need no ReLUs.
    """
    codes: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        codes.append((output > 0).flatten(1))

    relus = [module for module in draw.network.modules() if isinstance(module, nn.ReLU | nn.ReLU6)]
    handles = [module.register_forward_hook(keep) for module in relus]
    try:
        draw.network(draw.images_BCHW, pooling)
    finally:
        for handle in handles:
            handle.remove()
    if not codes:
        raise RequestError(f"{name} needs a network with ReLUs and this one has none: use grad_norm, zico or az_nas")
    return codes
