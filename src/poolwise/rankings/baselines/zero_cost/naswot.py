"""NASWOT: how differently the ReLUs of a network respond to different images."""

from __future__ import annotations

import torch
from torch import Tensor

from poolwise.rankings.baselines.zero_cost.base import Draw, register, relu_codes
from poolwise.spaces import Pooling


@register("naswot", summary="log-determinant of the agreement of ReLU states between images", passes=1)
def naswot(draw: Draw, pooling: Pooling) -> float:
    """Return log |det K|, where K_ij is the number of ReLU units with equal on/off states for images i and j.

    It is larger the better the linear regions of the network separate the images. Source: Mellor et al., "Neural
    Architecture Search without Training" (ICML 2021), equations 1 and 2. The MACs of K are not counted.

    Raises:
        RequestError: The network has no ReLU module.
    """
    codes = [code.float() for code in relu_codes("naswot", draw, pooling)]
    kernel_BB = sum((code @ code.T + (1 - code) @ (1 - code).T).double().cpu() for code in codes)
    assert isinstance(kernel_BB, Tensor)
    return float(torch.linalg.slogdet(kernel_BB).logabsdet)
