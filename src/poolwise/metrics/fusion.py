"""One estimate from scores and from a count that costs nothing, each trusted as far as the data at hand bear it out.

Truth t, scores s and count c are taken as standard normal over configurations. Their validities v_s = corr(s, t) and
v_c = corr(c, t) are not known, nor is the correlation k of their errors. What is known of them is
- reliability: nothing can agree with the truth better than sqrt(reliability). Truth changes slowly with the place of a
  pooling, so the reliability of either is the share of its variance that neighbouring configurations predict; that of
  scores is also bounded by the agreement of two halves of the images they come from (Spearman-Brown);
- agreement: corr(s, c) = v_s v_c + k sqrt((1 - v_s^2) (1 - v_c^2)), so two that agree speak for each other, or share an
  error. Fisher's z with as many configurations as the smoothed scores are worth;
- stand-alone trainings, where there are some: corr(s, y) and corr(c, y) with their accuracies y;
- scores o of weights that configurations do not share, where there are some: noisy, and wrong in a way of their own (a
  short training favours what learns fast), so corr(s, o) = v_s v_o, corr(c, o) = v_c v_o.
The prior says no more than that each is more likely to agree with the truth than not, and errors are more likely to be
apart than common: v = sqrt(reliability) u, u ~ Beta(2, 1), k ~ Beta(1, 2), and that weights of their own are nearer to the
truth than shared ones and counts, u ~ Beta(4, 1). The estimate is E[t | s, c, o] = w_s s + w_c c +
w_o o, its weights averaged over the posterior of (v_s, v_c, v_o, k) on a grid.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from poolwise.metrics.smoothing import Smoothed, smooth
from poolwise.space import Pooling

_GRID = (np.arange(40) + 0.5) / 40
_COMMON = (np.arange(20) + 0.5) / 20
_OWN = (np.arange(12) + 0.5) / 12
_FEWEST = 4  # pairs that a correlation says something with
_DRAWS = 2000
_SUREST = 0.99  # validity that is believed of anything
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
        scores, count, own: the parts; count is None where scores stand alone, own where all weights are shared.
        agreement: correlation of smoothed scores and count; None without a count.
    """

    smoothed: np.ndarray
    estimate: np.ndarray
    error: float
    scores: Rater
    count: Rater | None
    agreement: float | None
    own: Rater | None = None

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
    own_P: Sequence[float] | np.ndarray | None = None,
) -> Fused:
    """Estimate the order of the truth from ``scores_P`` (smoothed first, unless told otherwise), ``count_P`` and ``own_P``.

    Args:
        poolings: a space, or some of its configurations.
        scores_P: higher is better.
        count_P: a ranking that costs nothing, as productive convolutions; None for scores alone.
        halves_2P: the same scores from two disjoint halves of the images.
        trials: index of a configuration -> mean accuracy of its stand-alone trainings.
        own_P: scores of weights that a configuration shares with none, or with few; smoothed in any case. None where there are
            none.
    """
    smoothed = smooth(poolings, scores_P)
    told_P = _standard(smoothed.scores if smoothing else np.asarray(scores_P, float))
    counted = None if count_P is None else smooth(poolings, count_P)
    raw_P = None if count_P is None else _standard(np.asarray(count_P, float))
    alone = None if own_P is None else smooth(poolings, own_P)
    reliable = min(smoothed.reliability, _split_half(halves_2P))
    valid_s, valid_c, valid_o, common, posterior = _prior(
        reliable, counted.reliability if counted else 0.0, None if alone is None else _most_valid(alone)
    )
    expected = valid_s * valid_c + common * np.sqrt((1 - valid_s**2) * (1 - valid_c**2))  # corr(s, c)
    agreement = None if raw_P is None else correlation(told_P, raw_P)
    if agreement is not None:
        posterior = posterior * _likelihood(agreement, expected, max(smoothed.freedom, _FEWEST))
    for rater_P, valid in ((told_P, valid_s), (raw_P, valid_c)):
        if rater_P is not None and trials is not None and len(trials) >= _FEWEST:
            found = correlation(rater_P[list(trials)], np.array(list(trials.values())))
            posterior = posterior * _likelihood(found, valid, len(trials))
        if rater_P is not None and alone is not None:
            found = correlation(rater_P, alone.scores)
            posterior = posterior * _likelihood(found, valid * valid_o, max(alone.freedom, _FEWEST))
    posterior = posterior / posterior.sum()
    means = [float((posterior * valid).sum()) for valid in (valid_s, valid_c, valid_o)]
    if raw_P is None:
        valid_c = expected = np.zeros_like(valid_c)
    rest = 1 - expected**2
    left = 1 - (valid_s**2 + valid_c**2 - 2 * expected * valid_s * valid_c) / rest  # of the truth's variance
    # own scores are the truth and errors of their own, and weigh against what the others leave open
    share = 1 / (1 + left * valid_o**2 / (1 - valid_o**2))
    weight_s = float((posterior * share * (valid_s - expected * valid_c) / rest).sum())
    weight_c = float((posterior * share * (valid_c - expected * valid_s) / rest).sum())
    weight_o = float((posterior * share * left * valid_o / (1 - valid_o**2)).sum())
    standard_P = weight_s * told_P
    if raw_P is not None:
        standard_P = standard_P + weight_c * raw_P
    if alone is not None:
        standard_P = standard_P + weight_o * _standard(alone.scores)
    centre, scale = float(np.mean(scores_P)), float(np.std(scores_P)) or 1.0
    return Fused(
        smoothed.scores,
        centre + scale * standard_P,
        scale * float(np.sqrt((posterior * share * left).sum())),
        Rater(reliable, means[0], weight_s),
        None if counted is None else Rater(counted.reliability, means[1], weight_c),
        agreement,
        None if alone is None else Rater(alone.reliability, means[2], weight_o),
    )


def _most_valid(alone: Smoothed) -> float:
    """Correlation with the truth of scores that nothing but noise is wrong with, some of which smoothing has averaged away."""
    signal = alone.reliability
    noise = (1 - signal) * alone.freedom / len(alone.scores)
    return float(min(np.sqrt(signal / (signal + noise)), _SUREST)) if signal > 0 else 0.0


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's; 0 where one of them is constant."""
    return float(np.mean(_standard(first) * _standard(second)))


def _standard(values: np.ndarray) -> np.ndarray:
    spread = float(np.std(values))
    return (values - np.mean(values)) / spread if spread > 0 else np.zeros(len(values))


def _split_half(halves_2P: np.ndarray | None) -> float:
    """Reliability of the sum of two halves; 1 where there are none to compare."""
    if halves_2P is None:
        return 1.0
    r = max(correlation(halves_2P[0], halves_2P[1]), 0.0)
    return 2 * r / (1 + r)


def _prior(reliable_s: float, reliable_c: float, most_o: float | None) -> tuple[np.ndarray, ...]:
    """The grid of v_s, v_c, v_o and of the correlation of the first two's errors, and the prior on it."""
    own = np.ones(1) if most_o is None else _OWN
    share_s, share_c, share_o, common = np.meshgrid(_GRID, _GRID, own, _COMMON, indexing="ij", sparse=True)
    prior = share_s * share_c * share_o**3 * (1 - common)
    return share_s * np.sqrt(reliable_s), share_c * np.sqrt(reliable_c), share_o * (most_o or 0.0), common, prior


def _likelihood(found: float, expected: np.ndarray, count: float) -> np.ndarray:
    """Of a correlation of ``count`` pairs, by Fisher's z; scaled to a maximum of 1."""
    z = np.arctanh(np.clip(found, -0.99, 0.99)) - np.arctanh(np.clip(expected, 0, 0.99))
    log = -0.5 * (count - 3) * z**2
    return np.exp(log - log.max())
