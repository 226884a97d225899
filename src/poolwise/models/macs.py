"""MACs of single modules."""

from __future__ import annotations

import math

from torch import Tensor, nn


def multiply_adds(module: nn.Module, output: Tensor) -> int:
    """Return the MACs of one image in a convolution or linear layer.

    Args:
        module: Any module. Modules that are neither a convolution nor linear count as 0.
        output: The module's output for a batch.
    """
    outputs = output.numel() // len(output) if isinstance(output, Tensor) and output.dim() else 0
    if isinstance(module, nn.Conv2d):
        return outputs * module.in_channels // module.groups * math.prod(module.kernel_size)
    return outputs * module.in_features if isinstance(module, nn.Linear) else 0
