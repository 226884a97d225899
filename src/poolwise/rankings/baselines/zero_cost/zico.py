"""ZiCo: the inverse coefficient of variation of gradients across batches."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolwise.rankings.baselines.zero_cost.base import Draw, register
from poolwise.spaces import Pooling

BATCHES = 2


@register("zico", summary="mean gradient over its deviation across batches", passes=3, batches=BATCHES)
def zico(draw: Draw, pooling: Pooling) -> float:
    """Return sum_l log sum_w mean_i |g_iw| / std_i |g_iw|, with g_iw the gradient of the loss of batch i in weight w.

    l runs over the convolutions and linear layers, w over the weights of layer l. The score is high where gradients are
    large and agree between batches. Source: Li et al., "ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on
    Gradients" (ICLR 2023), the definition of ZiCo.

    Choices: two batches, as in the paper's experiments. The deviation is that of the absolute gradients, as in the
    definition (the released code takes that of the signed ones), with n in the denominator. Weights without deviation
    are left out, and so are layers without any other weight. Initial weights are those of this library (He, fan-out).
    """
    weights = [m.weight for m in draw.network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    gradients: list[tuple[Tensor, ...]] = []
    batches = zip(draw.images_BCHW.chunk(BATCHES), draw.labels_B.chunk(BATCHES), strict=True)
    for images_BCHW, labels_B in batches:
        loss = F.cross_entropy(draw.network(images_BCHW, pooling), labels_B)
        gradients.append(torch.autograd.grad(loss, weights))
    return sum(_layer(torch.stack(layer).flatten(1)) for layer in zip(*gradients, strict=True))


def _layer(gradients_NW: Tensor) -> float:
    """Return the logarithm of the sum of one layer over its W weights, from gradients of N batches; 0 for no weight."""
    sizes_NW = gradients_NW.double().abs()
    deviation_W, mean_W = sizes_NW.std(0, correction=0), sizes_NW.mean(0)
    varies_W = deviation_W > 0
    total = float((mean_W[varies_W] / deviation_W[varies_W]).sum())
    return math.log(total) if total > 0 else 0.0
