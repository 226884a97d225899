"""Who is trained next. One method a file; the interface is in ``base``."""

from poolwise.search.samplers.base import Sampler
from poolwise.search.samplers.mixture import BalancedMixture

__all__ = ["BalancedMixture", "Sampler"]
