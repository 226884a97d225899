"""A truth that changes slowly with the placement, and noisy copies of it."""

import numpy as np

from poolwise.spaces import PoolingSpace

SPACE = PoolingSpace(10, 2)
POSITIONS = np.array([pooling.positions for pooling in SPACE], float)
TRUTH = -((POSITIONS[:, 0] - 4) ** 2) - 0.5 * (POSITIONS[:, 1] - 7) ** 2


def noisy(values, share, seed):
    generator = np.random.default_rng(seed)
    return values + share * np.std(values) * generator.standard_normal(len(values))
