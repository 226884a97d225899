"""AZ-NAS: the aggregated ranks of four zero-cost proxies.

Shapes: features_BCHW of a layer, L layers, P configurations.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Tensor

from poolwise.rankings.baselines.zero_cost.base import Draw, register
from poolwise.spaces import Pooling

_TINY = 1e-6  # keeps 1 / sigma finite


def joined(values_3P: np.ndarray, macs_P: np.ndarray) -> np.ndarray:
    """Return sum over the four proxies of log(rank / P), where the best of P configurations has rank P.

    Equal values share their mean rank.
    """
    ranks_4P = np.stack([rankdata(values_P) for values_P in (*values_3P, macs_P)])
    return np.log(ranks_4P / len(macs_P)).sum(0)


@register(
    "az_nas", summary="ranks by expressivity, progressivity, trainability and MACs, aggregated", passes=2, join=joined
)
def az_nas(draw: Draw, pooling: Pooling) -> tuple[float, float, float]:
    """Return expressivity, progressivity and trainability; ``joined`` adds complexity and aggregates the ranks.

    Source: Lee and Ham, "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search" (CVPR 2024). With
    entropy e_l of layer l (``_entropy``) and spectral norm s_l of the mean Jacobian of its output in its input:
    expressivity sum_l e_l; progressivity min_l (e_l - e_(l-1)); trainability mean_l (2 - s_l - 1 / s_l); complexity
    MACs. The score is the sum of the logarithms of the four ranks.

    Choices: a primary block of the paper is a layer of the chain, the stem included, so that a downsampling belongs to
    the layer that follows it. The inputs are training images. Initial weights are those of this library (He, fan-out).
    An exact identity is not excluded, because no layer is one. MACs of covariances and Jacobians are counted, those of
    their eigenvalues are not: their share is far below a percent.
    """
    network, generator = draw.network, draw.streams.torch("rademacher")
    depths = tuple(pooling.depths())
    with torch.no_grad():
        features_BCHW = network.layer(depths[:1], draw.images_BCHW)
    entropy_L, trainability = [_entropy(draw, features_BCHW)], []
    for i in range(1, len(depths)):
        inputs_BCHW = features_BCHW.detach().requires_grad_()
        with torch.enable_grad():
            features_BCHW = network.layer(depths[: i + 1], inputs_BCHW)
        signs = torch.randint(0, 2, features_BCHW.shape, generator=generator).to(features_BCHW) * 2 - 1
        (gradient_BCHW,) = torch.autograd.grad(features_BCHW, inputs_BCHW, signs)
        norm = _spectral_norm(draw, gradient_BCHW, signs, 2 ** (depths[i] - depths[i - 1]))
        trainability.append(2 - norm - 1 / (norm + _TINY))
        entropy_L.append(_entropy(draw, features_BCHW.detach()))
    return sum(entropy_L), float(np.diff(entropy_L).min()), float(np.mean(trainability))


def _entropy(draw: Draw, features_BCHW: Tensor) -> float:
    """Return the entropy in nats of the shares of the principal components in the variance of the features.

    The samples are the pixels of all images. It is 0 for one direction or constant features, and log C if all C
    directions have the same variance.
    """
    samples_CN = features_BCHW.double().transpose(0, 1).flatten(1)
    draw.macs += samples_CN.numel() * len(samples_CN)
    eigenvalues_C = torch.linalg.eigvalsh(torch.cov(samples_CN, correction=0).reshape(2 * [len(samples_CN)]))
    eigenvalues_C = eigenvalues_C.clamp(min=0)
    total = float(eigenvalues_C.sum())
    return float(torch.special.entr(eigenvalues_C / total).sum()) if total > 0 else 0.0


def _spectral_norm(draw: Draw, gradient_BCHW: Tensor, signs_BCHW: Tensor, stride: int) -> float:
    """Return the largest singular value of the mean over output pixels of gradient times signs.

    With random signs, this product is an unbiased estimate of the Jacobian of an output pixel in the ``stride`` x
    ``stride`` input pixels that it stands for.
    """
    height, width = signs_BCHW.shape[-2:]
    missing = [size * stride - have for size, have in zip((width, height), gradient_BCHW.shape[:-3:-1], strict=True)]
    gradient_BCHW = F.pad(gradient_BCHW, (0, missing[0], 0, missing[1]))  # negative where the layer rounded down
    patches_IN = F.pixel_unshuffle(gradient_BCHW, stride).double().transpose(0, 1).flatten(1)
    signs_ON = signs_BCHW.double().transpose(0, 1).flatten(1)
    draw.macs += math.prod((len(patches_IN), *signs_ON.shape))
    return float(torch.linalg.matrix_norm(patches_IN @ signs_ON.T / signs_ON.shape[1], ord=2))
