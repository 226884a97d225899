"""Who is trained next. One method a file; the interface is in ``base``."""

from poolwise.searching.samplers.base import Sampler
from poolwise.searching.samplers.mixture import BalancedMixture

__all__ = ["BalancedMixture", "Sampler"]
