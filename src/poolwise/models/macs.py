"""Multiply-adds (MACs) of single modules."""

from __future__ import annotations

import math

from torch import Tensor, nn


def multiply_adds(module: nn.Module, output: Tensor) -> int:
    """Return the MACs that one image takes through a convolution or linear layer.

    Args:
        module: Any module; one that is neither a convolution nor linear takes 0.
        output: What the module returned for a batch.
    """
    outputs = output.numel() // len(output) if isinstance(output, Tensor) and output.dim() else 0
    if isinstance(module, nn.Conv2d):
        return outputs * module.in_channels // module.groups * math.prod(module.kernel_size)
    return outputs * module.in_features if isinstance(module, nn.Linear) else 0
