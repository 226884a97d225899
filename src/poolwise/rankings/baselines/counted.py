"""Baselines that only count: no weights and no images are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from poolwise.models.cost import Cost


def refined(cost: Cost) -> float:
    """Return a score that orders by fewest unproductive convolutions, then by fewest MACs.

    Receptive field refinement (Richter and Pal, "Receptive Field Refinement for Convolutional Neural Networks Reliably
    Improves Predictive Performance", arXiv 2211.14487) changes the downsamplings of a network until no convolution has
    an input receptive field of the image or more. Where they stand decides this here, and all configurations have
    equally many convolutions, so the fewest unproductive ones are the most productive ones. Choices: the receptive
    field is that of the longest path, without shortcuts. If no configuration is free of unproductive convolutions, one
    with the fewest is best. Among equals, fewer MACs are better: resolution that makes no convolution productive is
    wasted. ``productive`` is the same count with ties.
    """
    return cost.productive - cost.macs_ratio / (1 + cost.macs_ratio)  # the second part is in [0, 1)


COUNTED: dict[str, Callable[[Cost], float]] = {
    "macs": lambda cost: cost.macs,
    "productive": lambda cost: cost.productive,
    "receptive_field": lambda cost: -cost.receptive_field,
    "rf_refinement": refined,
}
"""What each baseline counts.

macs: MACs; the more, the better. productive: convolutions whose input receptive field is smaller than
the image; the more, the better (Richter et al., "Should You Go Deeper?", ICMLA 2021). receptive_field: negated, since by
the same argument layers that see beyond the image add nothing. rf_refinement: see ``refined``.
"""


def counted(name: str, costs: Iterable[Cost]) -> np.ndarray:
    """Return scores_P (float64) of the baseline ``name``, a key of COUNTED, from the cost of each configuration."""
    return np.array([COUNTED[name](cost) for cost in costs], float)
