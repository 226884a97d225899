"""Baselines that only count: no weights and no images are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from poolwise.models.cost import Cost

COUNTED: dict[str, Callable[[Cost], float]] = {
    "macs": lambda cost: cost.macs,
    "productive": lambda cost: cost.productive,
    "receptive_field": lambda cost: -cost.receptive_field,
}
"""What each baseline counts.

macs: MACs; the more, the better. productive: convolutions whose input receptive field is smaller than
the image; the more, the better (Richter et al., "Should You Go Deeper?", ICMLA 2021). receptive_field: negated, since by
the same argument layers that see beyond the image add nothing.
"""


def counted(name: str, costs: Iterable[Cost]) -> np.ndarray:
    """Return scores_P (float64) of the baseline ``name``, a key of COUNTED, from the cost of each configuration."""
    return np.array([COUNTED[name](cost) for cost in costs], float)
