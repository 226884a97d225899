"""The mixture without balancing, which shows what balancing is for."""

from __future__ import annotations

import numpy as np

from poolwise.supernets import assignment as soft
from poolwise.supernets.samplers.mixture import BalancedMixture
from poolwise.supernets.samplers.registry import register


@register("unbalanced", summary="mixture without balancing: a SuperNet that is ahead everywhere takes everything")
class UnbalancedMixture(BalancedMixture):
    """``p(m|a) = softmax_m(T scores[a,m])``: the mixture with all potentials at 0.

    A control for balancing, ours: nothing keeps one SuperNet from being chosen always.
    """

    def _balance(self) -> soft.Assignment:
        return soft.assign(self.table.rows, self.temperature, np.zeros(self.supernets))
