"""One estimate from scores and from a count that costs nothing, each trusted as far as the data at hand bear it out.

Truth t, scores s and count c are taken as standard normal over configurations, s and c independent given t. Their
validities v_s = corr(s, t) and v_c = corr(c, t) are not known; what is known of them is
- reliability: nothing can agree with the truth better than sqrt(reliability). Truth changes slowly with the place of a
  pooling, so the reliability of either is the share of its variance that neighbouring configurations predict; that of
  scores is also bounded by the agreement of two halves of the images they come from (Spearman-Brown);
- agreement: corr(s, c) = v_s v_c, so two that agree speak for each other. Fisher's z with as many configurations as the
  smoothed scores are worth;
- stand-alone trainings, where there are some: corr(s, y) and corr(c, y) with their accuracies y.
The prior v = sqrt(reliability) u, u ~ Beta(2, 1), says no more than that each is more likely to agree than not. The
estimate is E[t | s, c] = w_s s + w_c c, its weights averaged over the posterior of (v_s, v_c) on a grid.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from poolwise.metrics.smoothing import Smoothed, smooth
from poolwise.space import Pooling

_GRID = (np.arange(60) + 0.5) / 60
_FEWEST = 4  # pairs that a correlation says something with
_DRAWS = 2000


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
        estimate: [P] float64, in the unit of the scores: their mean and, for what the estimate explains of the truth,
            their standard deviation.
        error: standard deviation of the truth about the estimate, in the same unit.
        scores, count: the parts; count is None where scores stand alone.
        agreement: correlation of smoothed scores and count; None without a count.
    """

    estimate: np.ndarray
    error: float
    scores: Rater
    count: Rater | None
    agreement: float | None

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
) -> Fused:
    """Estimate the order of the truth from ``scores_P`` (smoothed first) and ``count_P``.

    Args:
        poolings: a space, or some of its configurations.
        scores_P: higher is better.
        count_P: a ranking that costs nothing, as productive convolutions; None for scores alone.
        halves_2P: the same scores from two disjoint halves of the images.
        trials: index of a configuration -> mean accuracy of its stand-alone trainings.
    """
    smoothed = smooth(poolings, scores_P)
    told_P, centre, spread = smoothed.scores, float(np.mean(scores_P)), float(np.std(scores_P))
    reliable = min(smoothed.reliability, _split_half(halves_2P))
    counted = None if count_P is None else smooth(poolings, count_P)
    raw_P = None if count_P is None else np.asarray(count_P, float)
    posterior_VV, valid_s, valid_c = _posterior(reliable, counted.reliability if counted else 0.0)
    agreement = None if raw_P is None else correlation(told_P, raw_P)
    if agreement is not None:
        posterior_VV = posterior_VV * _likelihood(agreement, valid_s * valid_c, _worth(smoothed))
    for rater_P, valid in ((told_P, valid_s), (raw_P, valid_c)):
        if rater_P is not None and trials is not None and len(trials) >= _FEWEST:
            found = correlation(rater_P[list(trials)], np.array(list(trials.values())))
            posterior_VV = posterior_VV * _likelihood(found, valid, len(trials))
    posterior_VV = posterior_VV / posterior_VV.sum()
    if raw_P is None:
        valid_c = np.zeros_like(valid_c)
    rest = 1 - (valid_s * valid_c) ** 2
    weight_s = float((posterior_VV * valid_s * (1 - valid_c**2) / rest).sum())
    weight_c = float((posterior_VV * valid_c * (1 - valid_s**2) / rest).sum())
    left = 1 - (valid_s**2 + valid_c**2 - 2 * (valid_s * valid_c) ** 2) / rest
    error = float(np.sqrt((posterior_VV * left).sum()))
    standard_P = weight_s * _standard(told_P)
    if raw_P is not None:
        standard_P = standard_P + weight_c * _standard(raw_P)
    means = [float((posterior_VV * valid).sum()) for valid in (valid_s, valid_c)]
    scale = spread or 1.0
    return Fused(
        centre + scale * standard_P,
        scale * error,
        Rater(reliable, means[0], weight_s),
        None if counted is None else Rater(counted.reliability, means[1], weight_c),
        agreement,
    )


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


def _worth(smoothed: Smoothed) -> float:
    """Independent configurations that agreement is judged by."""
    return max(smoothed.freedom, _FEWEST)


def _posterior(reliable_s: float, reliable_c: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prior of (v_s, v_c) on the grid, and the grid itself."""
    share_s, share_c = np.meshgrid(_GRID, _GRID, indexing="ij")
    return share_s * share_c, share_s * np.sqrt(reliable_s), share_c * np.sqrt(reliable_c)


def _likelihood(found: float, expected: np.ndarray, count: float) -> np.ndarray:
    """Of a correlation of ``count`` pairs, by Fisher's z; scaled to a maximum of 1."""
    z = np.arctanh(np.clip(found, -0.99, 0.99)) - np.arctanh(np.clip(expected, 0, 0.99))
    log = -0.5 * (count - 3) * z**2
    return np.exp(log - log.max())
