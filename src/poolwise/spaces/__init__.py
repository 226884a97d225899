"""Pooling configurations and the spaces that contain them. This package does not import torch.

A configuration is written by stage lengths: 5-3-2 is five layers at full resolution, three at half, two at a quarter.
A space is never enumerated in memory: members are counted, ranked and unranked with binomial coefficients.
"""

from poolwise.spaces.pooling import Pooling
from poolwise.spaces.space import PoolingSpace, positions, uniform_below
from poolwise.spaces.subspace import Subspace, subset
from poolwise.spaces.union import UnionSpace, read, space_of

LISTED = 20_000  # largest space that is enumerated; of a larger one, only sampled or requested configurations are used

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
