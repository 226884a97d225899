"""The norm of the gradient of the loss at the initial weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from poolwise.rankings.baselines.zero_cost.base import Draw, register
from poolwise.spaces import Pooling


@register("grad_norm", summary="norm of the gradient of the loss", passes=3)
def grad_norm(draw: Draw, pooling: Pooling) -> float:
    """Return the sum over weight tensors of the Euclidean norm of the gradient of the loss.

    Source: Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS" (ICLR 2021), section 3.1.
    """
    weights = [weight for weight in draw.network.parameters() if weight.dim() > 1]
    loss = F.cross_entropy(draw.network(draw.images_BCHW, pooling), draw.labels_B)
    return float(sum(gradient.norm() for gradient in torch.autograd.grad(loss, weights)))
