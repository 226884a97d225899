"""Pooling configurations and the spaces of them. No torch in this room.

A configuration is written by stage lengths: 5-3-2 is five layers at full resolution, three at half, two at a quarter.
A space is never held in memory: members are counted, ranked and unranked by binomial coefficients.
"""

from poolwise.spaces.pooling import Pooling
from poolwise.spaces.space import PoolingSpace, positions, uniform_below
from poolwise.spaces.subspace import Subspace, subset
from poolwise.spaces.union import UnionSpace, read, space_of

LISTED = 20_000  # configurations of a space that is gone through; of larger ones what is drawn, or asked for

__all__ = [
    "LISTED",
    "Pooling",
    "PoolingSpace",
    "Subspace",
    "UnionSpace",
    "positions",
    "read",
    "space_of",
    "subset",
    "uniform_below",
]
