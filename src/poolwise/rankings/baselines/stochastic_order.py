"""Order configurations by the distributions of their scores over draws, instead of by their means."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata


def stochastic_order(scores_RP: np.ndarray) -> np.ndarray:
    """Return [P] the mean probability of being better than another configuration, from the scores of R draws.

    For configurations a and b, u(a, b) is the share of the R x R pairs of a draw of a and a draw of b in which a has the
    higher score; equal scores count one half. It estimates P(score of a > score of b) for independent draws, the
    statistic of Mann and Whitney, and does not depend on the unit or on outliers of the scores. The result is the mean
    of u(a, b) over all b other than a, so that every pair of configurations counts, and the order is total.

    The idea is that of Rumiantsev and Coates, "Variation Matters: from Mitigating to Embracing Zero-Shot NAS Ranking
    Function Variation" (TMLR 2025, arXiv 2502.19657): a score is a random variable, and configurations are ordered by
    its distribution. They compare pairs during a search; here all pairs of a listed space are compared, and no pair is
    declared undecided. R = 1 ranks as the scores do.

    ``scores_RP`` may hold infinite values, but no NaN.
    """
    draws, count = scores_RP.shape
    if count < 2:
        return np.full(count, 0.5)
    below_RP = rankdata(scores_RP).reshape(scores_RP.shape) - 1  # scores below each one, equal ones count one half
    same_configuration = draws * (draws - 1) / 2  # pairs of draws of one configuration
    return (below_RP.sum(0) - same_configuration) / (draws**2 * (count - 1))
