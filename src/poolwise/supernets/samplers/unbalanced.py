"""The mixture without balancing, as a control that shows the effect of balancing."""

from __future__ import annotations

import numpy as np

from poolwise.supernets import assignment as soft
from poolwise.supernets.samplers.mixture import BalancedMixture
from poolwise.supernets.samplers.registry import register


@register("unbalanced", summary="mixture without balancing: one SuperNet may get all configurations")
class UnbalancedMixture(BalancedMixture):
    """Draw SuperNets from ``p(m|a) = softmax_m(T scores[a,m])``, the mixture with all potentials at 0.

    This control is not from a paper. Nothing prevents it from always choosing the same SuperNet.
    """

    def _balance(self) -> soft.Assignment:
        return soft.assign(self.table.rows, self.temperature, np.zeros(self.supernets))
