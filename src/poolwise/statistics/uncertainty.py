"""Uncertainty: bootstrap intervals, and paired tests between methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy import stats

from poolwise.statistics.resampling import Draws
from poolwise.statistics.verdict import CONFIDENCE

RESAMPLES = 1000
_EXACT = 14  # up to this many pairs, every sign pattern is enumerated
_AT_ONCE = 2**13  # configurations per batch of draws: few enough that BLAS stays on one thread
_FEWEST = 256  # minimum draws per batch
_WAYS = 10_000  # random sign patterns for more than _EXACT pairs

Statistic = Callable[[np.ndarray, np.ndarray], float]
Interval = tuple[float, float]


def bootstrap_interval(
    statistics: dict[str, Statistic],
    scores_P: Sequence[float] | np.ndarray,
    truth_P: Sequence[float] | np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return 95 % percentile bootstrap intervals of statistics of one ranking, resampling configurations.

    The interval shows how much a statistic depends on the configurations in the space, not on training seeds. All
    statistics use the same draws. For best-of statistics (regret, rank) the percentile interval is descriptive, not a
    test.

    Args:
        statistics: Name -> function of (scores_P, truth_P).
        scores_P: Scores of the ranking.
        truth_P: True accuracies.
        resamples: Number of draws.
        seed: Seed of the draws.
    """
    scores, truth = np.asarray(scores_P, float), np.asarray(truth_P, float)
    generator, size = np.random.default_rng(seed), len(scores)
    values_by_name: dict[str, list[np.ndarray]] = {name: [] for name in statistics}
    at_once = max(_AT_ONCE // size, _FEWEST)
    for done in range(0, resamples, at_once):
        count = min(at_once, resamples - done)
        draws = Draws(scores, truth, generator.integers(size, size=(count, size)))
        for name, statistic in statistics.items():
            values_by_name[name].append(draws.values(statistic))
    return {name: _percentiles(np.concatenate(values)) for name, values in values_by_name.items()}


def mean_interval(values: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0) -> Interval | None:
    """Return the 95 % percentile bootstrap interval of a mean over seeds; None for fewer than two."""
    if len(values) < 2:
        return None
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    interval = stats.bootstrap(
        (np.asarray(values, float),),
        np.mean,
        n_resamples=resamples,
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _percentiles(values: np.ndarray) -> Interval:
    low, high = np.percentile(values, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return float(low), float(high)


@dataclass(frozen=True)
class Paired:
    """Comparison of two methods over the same n seeds, in the unit of the compared values.

    Attributes:
        n: Number of seeds.
        difference: Mean difference.
        interval: 95 % t-interval of the mean difference; None for fewer than two seeds.
        permutation: Two-sided p-value of the sign-flip permutation test; at least 2 / 2^n.
        wilcoxon: Two-sided p-value of the signed-rank test; None if every difference is 0.
    """

    n: int
    difference: float
    interval: Interval | None
    permutation: float
    wilcoxon: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def paired_test(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Paired:
    """Compare ``first`` with ``second``; both must have the same seeds in the same order."""
    assert len(first) == len(second) > 0, "paired values must have the same length"
    differences = np.asarray(first, float) - np.asarray(second, float)
    n, mean = len(differences), float(differences.mean())
    interval = None
    if n > 1:
        half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1) * differences.std(ddof=1) / n**0.5)
        interval = (mean - half, mean + half)
    nonzero = differences[differences != 0]
    wilcoxon = float(stats.wilcoxon(nonzero).pvalue) if len(nonzero) else None
    return Paired(n, mean, interval, _sign_flips(differences, seed), wilcoxon)


def _sign_flips(differences: np.ndarray, seed: int) -> float:
    """Return the share of sign patterns with a mean at least as far from 0 as observed; exact for few pairs."""
    n = len(differences)
    if n <= _EXACT:
        signs = np.array(list(product((-1, 1), repeat=n)))
    else:
        signs = np.random.default_rng(seed).choice((-1, 1), size=(_WAYS, n))
        signs[0] = 1  # the observed pattern
    sums = np.abs(signs @ differences)
    return float(np.mean(sums >= abs(differences.sum()) * (1 - 1e-12)))
