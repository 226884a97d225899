"""Zero-cost proxies: scores of untrained networks on a few training images. One proxy a file; the registry discovers them."""

from poolwise.rankings.baselines.zero_cost.base import ZERO_COST, Draw, ZeroCost, register

__all__ = ["ZERO_COST", "Draw", "ZeroCost", "register"]
