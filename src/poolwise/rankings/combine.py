"""Combine accuracies on shared weights, proxy trainings and the count of productive convolutions by fixed shares.

Each part is standardized over configurations and multiplied by its share. The sum is smoothed over neighboring configurations:

    with proxy trainings       1/2 proxy trainings, 1/4 shared weights, 1/4 productive convolutions
    without proxy trainings    2/3 accuracy on shared weights, 1/3 productive convolutions
    without the count          1/2 proxy trainings, 1/2 shared weights; or the unmodified accuracy on shared weights

A part that is indistinguishable from noise is dropped and its share goes to the other parts. If only the count remains, it is
not smoothed, because it has no noise. Shares are fixed because a few dozen configurations are too few to estimate them:
estimated weights lose more than they gain (Dawes, "The robust beauty of improper linear models in decision making", American
Psychologist 1979; ``benchmarks/ranking/count_shares.py`` and ``shares.py``).

Shapes: P configurations.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from poolwise.rankings.smoothing import equal, reliabilities, smooth
from poolwise.spaces import Pooling

COUNT_SHARE = 1 / 3  # share of productive convolutions when combined with accuracies on shared weights
CHANCE = 0.05  # significance level: probability that noise is taken for a signal
FEWEST = 4  # pairs needed to test a correlation
_PERMUTATIONS = 199  # random permutations of the scores, which estimate the distribution under noise
_FEW_PERMUTATIONS = 19  # the same in large spaces, where noise varies little and a permutation is slow
_LARGE = 2000  # configurations above which a space counts as large
_DRAWS = 2000
_SURE = 0.9  # probability that one configuration is better than another, below which they tie

Scores = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Signal:
    """Two tests of whether scores are more than noise, each with the value that noise exceeds in 5 % of all cases.

    Attributes:
        agreement, chance: Correlation with scores whose errors are independent, and its threshold.
        reliability, noise: Share of the variance that neighboring configurations predict, and its threshold.
    """

    agreement: float
    chance: float
    reliability: float
    noise: float

    @property
    def smooth(self) -> bool:
        """Whether neighboring configurations predict the scores better than chance."""
        return self.reliability > self.noise

    @property
    def contradicts(self) -> bool:
        """Whether the correlation with the other scores is significantly negative."""
        return self.agreement < -self.chance

    @property
    def absent(self) -> bool:
        """Whether both tests fail, so that the scores may be noise."""
        return not self.smooth and self.agreement <= self.chance

    @property
    def significant(self) -> bool:
        """Whether the scores are more than noise: they agree with the others, or are smooth and do not contradict them."""
        return self.agreement > self.chance or (self.smooth and not self.contradicts)

    def __str__(self) -> str:
        return (
            f"have correlation {self.agreement:.2f} with accuracy on shared weights (noise: up to {self.chance:.2f}),"
            f" and neighbors predict {100 * self.reliability:.0f} % of their variance (noise: up to {100 * self.noise:.0f} %)"
        )


def signal(poolings: Collection[Pooling], scores_P: Scores, other_P: Scores) -> Signal:
    """Test whether ``scores_P`` are more than noise.

    The threshold of the agreement with ``other_P`` comes from Fisher's z, the threshold of the reliability from random
    permutations of the scores.
    """
    scores_P = np.asarray(scores_P, float)
    assert len(scores_P) >= FEWEST, "Fisher's z needs four pairs"
    generator = np.random.default_rng(0)
    count = _PERMUTATIONS if len(scores_P) <= _LARGE else _FEW_PERMUTATIONS
    orders_PN = np.stack([scores_P, *(generator.permutation(scores_P) for _ in range(count))], axis=1)
    reliability, *noise = reliabilities(poolings, orders_PN)
    return Signal(
        correlation(scores_P, np.asarray(other_P, float)),
        chance_correlation(len(scores_P)),
        float(reliability),
        float(np.quantile(noise, 1 - CHANCE)),
    )


def chance_correlation(pairs: int) -> float:
    """Return the correlation that ``pairs`` (at least 4) of unrelated values exceed in 5 % of all cases (Fisher's z)."""
    return float(np.tanh(NormalDist().inv_cdf(1 - CHANCE) / np.sqrt(pairs - 3)))


@dataclass(frozen=True)
class ProxyScores:
    """One score per configuration from its accuracy on shared weights and its proxy trainings.

    Attributes:
        scores_P: Combined scores, float64, in the unit of ``shared_P``, not smoothed.
        shared_P, proxy_P: The two parts.
        shared, proxy: Tests of whether each part is more than noise.
    """

    scores_P: np.ndarray
    shared_P: np.ndarray
    proxy_P: np.ndarray
    shared: Signal
    proxy: Signal

    @property
    def used(self) -> bool:
        """Whether the proxy trainings have a share."""
        return self.proxy.significant

    @property
    def shares(self) -> dict[str, float]:
        """Share of each part, by name, before productive convolutions are added."""
        if not self.used:
            return {"shared": 1.0}
        return {"short": 0.5, "shared": 0.5} if self.shared.significant else {"short": 1.0}

    def __str__(self) -> str:
        verdict = "proxy trainings are noise and have no share"
        if self.used:
            verdict = (
                "proxy trainings have a share of one half"
                if self.shared.significant
                else "shared weights are noise and have no share"
            )
        return f"{self.proxy}; {verdict}"


def with_proxy_trainings(poolings: Collection[Pooling], shared_P: Scores, proxy_P: Scores) -> ProxyScores:
    """Combine both parts in equal shares. A part that is noise is dropped; if both are, only shared weights count."""
    shared_P, proxy_P = np.asarray(shared_P, float), np.asarray(proxy_P, float)
    both = ProxyScores(
        shared_P, shared_P, proxy_P, signal(poolings, shared_P, proxy_P), signal(poolings, proxy_P, shared_P)
    )
    if not both.used:
        return both
    return replace(both, scores_P=_add({"short": proxy_P, "shared": shared_P}, both.shares, shared_P))


@dataclass(frozen=True)
class Estimate:
    """Combined estimate with its uncertainty.

    Attributes:
        smoothed_P: Scores without the count, smoothed over neighboring configurations.
        estimate_P: Combined estimate, float64, in the unit of the scores.
        error: Standard error of an estimate, in the same unit: the root mean squared difference between a configuration and
            the prediction from its neighbors. It includes noise but not errors that all scores have in common.
        reliability: Share of the variance of the scores without the count that neighboring configurations predict; at most
            the split-half reliability over the scoring images, if it is known.
        count_reliability, agreement: Reliability of the count and its correlation with the smoothed scores; None without a
            count.
        shares: Share of each part by name. Parts without a share are omitted.
    """

    smoothed_P: np.ndarray
    estimate_P: np.ndarray
    error: float
    reliability: float
    count_reliability: float | None
    agreement: float | None
    shares: Mapping[str, float]

    def ties(self) -> np.ndarray:
        """Return group_P, from 1. The best of a group is better than each of the others with less than 90 % probability."""
        order, group_P = np.argsort(-self.estimate_P, kind="stable"), np.zeros(len(self.estimate_P), np.int64)
        edge, group, first = NormalDist().inv_cdf(_SURE) * np.sqrt(2) * self.error, 0, np.inf
        for a in order:
            if group == 0 or first - self.estimate_P[a] > edge:
                group, first = group + 1, self.estimate_P[a]
            group_P[a] = group
        return group_P

    def top(self, k: int) -> np.ndarray:
        """Return the probability [P] of being among the k best, from random draws around the estimate with its error."""
        generator = np.random.default_rng(0)
        k = min(k, len(self.estimate_P))
        hits_P = np.zeros(len(self.estimate_P))
        for _ in range(_DRAWS):
            drawn_P = self.estimate_P + self.error * generator.standard_normal(len(self.estimate_P))
            hits_P[np.argpartition(-drawn_P, k - 1)[:k]] += 1
        return hits_P / _DRAWS


def combine(
    poolings: Collection[Pooling],
    scores: Scores | ProxyScores,
    count_P: Scores | None = None,
    *,
    halves_2P: np.ndarray | None = None,
    trained: Mapping[int, float] | None = None,
) -> Estimate:
    """Estimate the order of the configurations from their scores and the count.

    Args:
        poolings: A space, or some of its configurations.
        scores: Accuracies on shared weights, alone or combined with proxy trainings; higher is better.
        count_P: Productive convolutions, or another ranking that needs no training. If None, only the scores are used, and
            they are not smoothed unless they include proxy trainings.
        halves_2P: The same accuracies from two disjoint halves of the images.
        trained: Mean accuracy of stand-alone trainings by index of the configuration. A part whose correlation with these
            is significantly negative has no share.
    """
    if isinstance(scores, ProxyScores) and not scores.used:
        scores = scores.shared_P
    proxies = scores if isinstance(scores, ProxyScores) else None
    scores_P = proxies.scores_P if proxies else np.asarray(scores, float)
    parts = {"short": proxies.proxy_P, "shared": proxies.shared_P} if proxies else {"scores": scores_P}
    shares = proxies.shares if proxies else {"scores": 1.0}
    bound = 1.0 if proxies else _split_half(halves_2P)
    smoothed, count, agreement = smooth(poolings, scores_P), None, None
    if count_P is not None:
        count_P = np.asarray(count_P, float)
        parts["productive"], count = count_P, smooth(poolings, count_P)
        agreement = correlation(smoothed.scores, count_P)
        shares = _shares_with_count(poolings, shares, scores_P, count_P, trained or {})
    combined_P = _add(parts, shares, parts.get("shared", scores_P)) if "productive" in shares else scores_P
    spread = 0.0 if equal(combined_P) else float(np.std(combined_P))
    estimate = smooth(poolings, combined_P)
    as_it_is = ("productive" in shares and len(shares) == 1) or (count_P is None and not proxies)
    return Estimate(
        smoothed.scores,
        combined_P if as_it_is else estimate.scores,
        spread * (1 - min(estimate.reliability, bound)) ** 0.5,
        min(smoothed.reliability, bound),
        count.reliability if count else None,
        agreement,
        shares,
    )


def _shares_with_count(
    poolings: Collection[Pooling],
    shares: dict[str, float],
    scores_P: np.ndarray,
    count_P: np.ndarray,
    trained: Mapping[int, float],
) -> dict[str, float]:
    """Return the shares of all parts that are more than noise, including the count."""
    if len(scores_P) >= FEWEST:
        of_scores, of_count = signal(poolings, scores_P, count_P), signal(poolings, count_P, scores_P)
        scores_noise = of_scores.absent or _contradicted(scores_P, trained)
        count_noise = of_count.absent or _contradicted(count_P, trained)
        if count_noise or (of_count.contradicts and not scores_noise):
            return shares
        if scores_noise:
            return {"productive": 1.0}
    if "short" not in shares:
        return {"scores": 1 - COUNT_SHARE, "productive": COUNT_SHARE}
    others = [part for part in (*shares, "productive") if part != "short"]
    return {"short": 0.5, **dict.fromkeys(others, 0.5 / len(others))}


def _contradicted(part_P: np.ndarray, trained: Mapping[int, float]) -> bool:
    """Return whether a part correlates significantly negatively with the accuracies of stand-alone trainings."""
    if len(trained) < FEWEST:
        return False
    accuracies = np.array(list(trained.values()))
    return correlation(part_P[list(trained)], accuracies) < -chance_correlation(len(trained))


def _add(parts: Mapping[str, np.ndarray], shares: Mapping[str, float], unit_P: np.ndarray) -> np.ndarray:
    """Return the weighted sum of the standardized parts, rescaled to the mean and standard deviation of ``unit_P``."""
    sum_P = sum(share * standardize(parts[part]) for part, share in shares.items())
    return unit_P.mean() + (1.0 if equal(unit_P) else float(np.std(unit_P))) * np.asarray(sum_P)


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return Pearson's correlation; 0 if one argument is constant."""
    return float(np.mean(standardize(first) * standardize(second)))


def standardize(values: np.ndarray) -> np.ndarray:
    """Return the values scaled to mean 0 and standard deviation 1; zeros if all are equal."""
    return np.zeros(len(values)) if equal(values) else (values - np.mean(values)) / np.std(values)


def _split_half(halves_2P: np.ndarray | None) -> float:
    """Return the reliability of the mean of two halves (Spearman-Brown); 1 without halves."""
    if halves_2P is None:
        return 1.0
    r = max(correlation(halves_2P[0], halves_2P[1]), 0.0)
    return 2 * r / (1 + r)
