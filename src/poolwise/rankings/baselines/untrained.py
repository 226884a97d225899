"""Scores of zero-cost proxies: over several draws of weights and images, as a mean or by stochastic order.

All configurations use the same weights and the same images in a draw, so only the downsampling differs. Shapes:
scores_RP (R draws, P configurations).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from poolwise.experiment import Experiment
from poolwise.models.chain import batch_norm
from poolwise.models.supernet import SwitchableNet
from poolwise.rankings.baselines.stochastic_order import stochastic_order
from poolwise.rankings.baselines.zero_cost import ZERO_COST, Draw, ZeroCost
from poolwise.rng import Streams
from poolwise.spaces import Pooling

INITIALISATIONS = 3
ORDER = "-order"  # suffix of the name of a proxy whose draws are compared by stochastic order


def zero_cost_names() -> list[str]:
    """Return the names of all baselines from zero-cost proxies: each proxy as a mean and by stochastic order."""
    return [name + suffix for suffix in ("", ORDER) for name in ZERO_COST.all()]


def untrained(
    experiment: Experiment,
    name: str,
    *,
    seed: int = 0,
    initialisations: int = INITIALISATIONS,
    images: int | None = None,
    poolings: Sequence[Pooling] | None = None,
) -> tuple[np.ndarray, int]:
    """Return scores_P (float64) of a baseline from a zero-cost proxy, and the MACs that it took.

    Args:
        experiment: Experiment with the space, the network and the images.
        name: One of ``zero_cost_names()``: a proxy for the mean over draws, with ``-order`` for stochastic order.
        seed: Seed of all draws. Global generators are not used.
        initialisations: Number of draws of weights and images.
        images: Training images in a batch (default: that of the proxy).
        poolings: Configurations to score (default: all of the space).

    Raises:
        RequestError: The name is unknown, or the network lacks what the proxy needs.
    """
    scores_RP, macs = draw_scores(
        experiment, name.removesuffix(ORDER), seed=seed, draws=initialisations, images=images, poolings=poolings
    )
    return stochastic_order(scores_RP) if name.endswith(ORDER) else scores_RP.sum(0) / initialisations, macs


def draw_scores(
    experiment: Experiment,
    name: str,
    *,
    seed: int = 0,
    draws: int = INITIALISATIONS,
    images: int | None = None,
    poolings: Sequence[Pooling] | None = None,
) -> tuple[np.ndarray, int]:
    """Return scores_RP (float64) of a zero-cost proxy in each draw, and the MACs that they took.

    Networks run in float32, BatchNorm uses batch statistics, and images are not augmented. Arguments and errors are those
    of ``untrained``.
    """
    proxy, members = ZERO_COST.get(name), list(experiment.space) if poolings is None else list(poolings)
    macs_P = np.array([experiment.cost(pooling).macs for pooling in members], float)
    scores_RP, total = np.empty((draws, len(members))), 0
    for i in range(draws):
        one = _drawn(experiment, proxy, Streams(seed).child(f"untrained{i}"), images or proxy.images)
        values_KP = np.array([np.atleast_1d(proxy.score(one, pooling)) for pooling in members], float).T
        scores_RP[i] = proxy.join(values_KP, macs_P)
        total += one.macs + proxy.passes * len(one.images_BCHW) * int(macs_P.sum())
    return scores_RP, total


def _drawn(experiment: Experiment, proxy: ZeroCost, streams: Streams, images: int) -> Draw:
    """Draw initial weights and the images of all batches. A small data set gives smaller batches."""
    network = SwitchableNet(experiment.build(batch_norm, "init", streams)).to(experiment.device)
    data = experiment.batches(experiment.training_images, images)
    count = min(images, len(data) // proxy.batches) * proxy.batches
    drawn = streams["images"].choice(len(data.labels_N), count, replace=False)
    images_BHWC, labels_B = data.take(torch.from_numpy(drawn).to(experiment.device))
    return Draw(network, data.normalize(images_BHWC), labels_B, streams)
