"""One estimate from scores and from a count that costs nothing, each trusted as far as the data at hand bear it out.

Truth t, scores s and count c are taken as standard normal over configurations. Their validities v_s = corr(s, t) and
v_c = corr(c, t) are not known, nor is the correlation k of their errors. What is known of them is
- reliability: nothing can agree with the truth better than sqrt(reliability). Truth changes slowly with the place of a
  pooling, so the reliability of either is the share of its variance that neighbouring configurations predict; that of
  scores is also bounded by the agreement of two halves of the images they come from (Spearman-Brown);
- agreement: corr(s, c) = v_s v_c + k sqrt((1 - v_s^2) (1 - v_c^2)), so two that agree speak for each other, or share an
  error. Fisher's z with as many configurations as the smoothed scores are worth;
- stand-alone trainings, where there are some: corr(s, y) and corr(c, y) with their accuracies y.
The prior says no more than that each is more likely to agree with the truth than not, and errors are more likely to be
apart than common: v = sqrt(reliability) u, u ~ Beta(2, 1), k ~ Beta(1, 2). Scores that come in part from weights that a
configuration shares with no other (``metrics.together``) are rather near to the truth, u ~ Beta(4, 1), and next to them a
count is as likely good as poor, u ~ Beta(2, 2). The estimate is E[t | s, c] = w_s s + w_c c, its weights averaged over the
posterior of (v_s, v_c, k) on a grid.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from poolwise.spaces import Pooling
from poolwise.statistics.smoothing import equal, smooth

_GRID = (np.arange(40) + 0.5) / 40
_COMMON = (np.arange(20) + 0.5) / 20
FEWEST = 4  # pairs that a correlation says something with
_DRAWS = 2000
_SURE = 0.9  # that one configuration is better than another, below which they tie


@dataclass(frozen=True)
class Rater:
    """What one of the two is worth: reliability, mean of its validity, and its weight in the estimate."""

    reliability: float
    validity: float
    weight: float


@dataclass(frozen=True)
class Fused:
    """The estimate with its uncertainty.

    Attributes:
        smoothed: [P] the scores, smoothed over neighbouring placements.
        estimate: [P] float64, in the unit of the scores: their mean and, for what the estimate explains of the truth,
            their standard deviation.
        error: standard deviation of the truth about the estimate, in the same unit.
        scores, count: the parts; count is None where scores stand alone.
        agreement: correlation of smoothed scores and count; None without a count.
        shares: part -> its share of the say, where these are set and not estimated (``metrics.fuse_parts``).
    """

    smoothed: np.ndarray
    estimate: np.ndarray
    error: float
    scores: Rater
    count: Rater | None
    agreement: float | None
    shares: Mapping[str, float] | None = None

    def ties(self) -> np.ndarray:
        """[P] group of each configuration, from 1: those that the best of the group is not better than with 90 %."""
        order, group_P = np.argsort(-self.estimate, kind="stable"), np.zeros(len(self.estimate), np.int64)
        edge, group, first = NormalDist().inv_cdf(_SURE) * np.sqrt(2) * self.error, 0, np.inf
        for a in order:
            if group == 0 or first - self.estimate[a] > edge:
                group, first = group + 1, self.estimate[a]
            group_P[a] = group
        return group_P

    def top(self, k: int) -> np.ndarray:
        """[P] probability of being among the k truly best: the share of draws of the truth given the estimate."""
        generator = np.random.default_rng(0)
        k = min(k, len(self.estimate))
        hits_P = np.zeros(len(self.estimate))
        for _ in range(_DRAWS):
            drawn_P = self.estimate + self.error * generator.standard_normal(len(self.estimate))
            hits_P[np.argpartition(-drawn_P, k - 1)[:k]] += 1
        return hits_P / _DRAWS


def fuse(
    poolings: Collection[Pooling],
    scores_P: Sequence[float] | np.ndarray,
    count_P: Sequence[float] | np.ndarray | None,
    halves_2P: np.ndarray | None = None,
    trials: Mapping[int, float] | None = None,
    smoothing: bool = True,
    own: bool = False,
) -> Fused:
    """Estimate the order of the truth from ``scores_P`` (smoothed first, unless told otherwise) and ``count_P``.

    Args:
        poolings: a space, or some of its configurations.
        scores_P: higher is better.
        count_P: a ranking that costs nothing, as productive convolutions; None for scores alone.
        halves_2P: the same scores from two disjoint halves of the images.
        trials: index of a configuration -> mean accuracy of its stand-alone trainings.
        own: the scores are in part of weights that a configuration shares with none.
    """
    smoothed = smooth(poolings, scores_P)
    told_P = standard(smoothed.scores if smoothing else np.asarray(scores_P, float))
    counted = None if count_P is None else smooth(poolings, count_P)
    raw_P = None if count_P is None else standard(np.asarray(count_P, float))
    reliable = min(smoothed.reliability, _split_half(halves_2P))
    valid_s, valid_c, common, posterior = _prior(reliable, counted.reliability if counted else 0.0, own)
    expected = valid_s * valid_c + common * np.sqrt((1 - valid_s**2) * (1 - valid_c**2))  # corr(s, c)
    agreement = None if raw_P is None else correlation(told_P, raw_P)
    if agreement is not None:
        posterior = posterior * _likelihood(agreement, expected, max(smoothed.freedom, FEWEST))
    for rater_P, valid in ((told_P, valid_s), (raw_P, valid_c)):
        if rater_P is not None and trials is not None and len(trials) >= FEWEST:
            found = correlation(rater_P[list(trials)], np.array(list(trials.values())))
            posterior = posterior * _likelihood(found, valid, len(trials))
    posterior = posterior / posterior.sum()
    means = [float((posterior * valid).sum()) for valid in (valid_s, valid_c)]
    if raw_P is None:
        valid_c = expected = np.zeros_like(valid_c)
    rest = 1 - expected**2
    left = 1 - (valid_s**2 + valid_c**2 - 2 * expected * valid_s * valid_c) / rest  # of the truth's variance
    weight_s = float((posterior * (valid_s - expected * valid_c) / rest).sum())
    weight_c = float((posterior * (valid_c - expected * valid_s) / rest).sum())
    standard_P = weight_s * told_P
    if raw_P is not None:
        standard_P = standard_P + weight_c * raw_P
    centre, unit = float(np.mean(scores_P)), scale(np.asarray(scores_P, float))
    return Fused(
        smoothed.scores,
        centre + unit * standard_P,
        unit * float(np.sqrt((posterior * left).sum())),
        Rater(reliable, means[0], weight_s),
        None if counted is None else Rater(counted.reliability, means[1], weight_c),
        agreement,
    )


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's; 0 where one of them is constant."""
    return float(np.mean(standard(first) * standard(second)))


def standard(values: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1; 0 where all are equal."""
    centred = values - np.mean(values)
    return np.zeros(len(values)) if equal(values) else centred / np.std(values)


def scale(values: np.ndarray) -> float:
    """Standard deviation; 1 where all are equal."""
    return 1.0 if equal(values) else float(np.std(values))


def _split_half(halves_2P: np.ndarray | None) -> float:
    """Reliability of the sum of two halves; 1 where there are none to compare."""
    if halves_2P is None:
        return 1.0
    r = max(correlation(halves_2P[0], halves_2P[1]), 0.0)
    return 2 * r / (1 + r)


def _prior(reliable_s: float, reliable_c: float, own: bool) -> tuple[np.ndarray, ...]:
    """The grid of v_s, v_c and of the correlation of their errors, and the prior on it."""
    share_s, share_c, common = np.meshgrid(_GRID, _GRID, _COMMON, indexing="ij", sparse=True)
    prior = share_s**3 * share_c * (1 - share_c) if own else share_s * share_c
    return share_s * np.sqrt(reliable_s), share_c * np.sqrt(reliable_c), common, prior * (1 - common)


def _likelihood(found: float, expected: np.ndarray, count: float) -> np.ndarray:
    """Of a correlation of ``count`` pairs, by Fisher's z; scaled to a maximum of 1."""
    z = np.arctanh(np.clip(found, -0.99, 0.99)) - np.arctanh(np.clip(expected, 0, 0.99))
    log = -0.5 * (count - 3) * z**2
    return np.exp(log - log.max())
