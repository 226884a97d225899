"""How sure a figure is: bootstrap intervals, and paired tests between methods."""

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
_EXACT = 14  # up to this many pairs every pattern of signs is counted
_AT_ONCE = 2**13  # configurations in the draws that are taken together: few enough that BLAS stays on one thread
_FEWEST = 256  # draws, however many configurations
_WAYS = 10_000  # random patterns beyond that

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
    """95 % percentile intervals of statistics of one ranking: configurations are drawn with replacement.

    It says how far a figure depends on which configurations the space happens to hold, not on the seed of a training.
    Every statistic sees the same draws. A percentile interval of a best-of (regret, rank) is a description, not a test.
    """
    scores, truth = np.asarray(scores_P, float), np.asarray(truth_P, float)
    generator, size = np.random.default_rng(seed), len(scores)
    found: dict[str, list[np.ndarray]] = {name: [] for name in statistics}
    at_once = max(_AT_ONCE // size, _FEWEST)
    for done in range(0, resamples, at_once):
        count = min(at_once, resamples - done)
        draws = Draws(scores, truth, generator.integers(size, size=(count, size)))
        for name, statistic in statistics.items():
            found[name].append(draws.values(statistic))
    return {name: _percentiles(np.concatenate(values)) for name, values in found.items()}


def mean_interval(values: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0) -> Interval | None:
    """95 % percentile bootstrap interval of a mean over seeds; None for fewer than two."""
    if len(values) < 2:
        return None
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    found = stats.bootstrap(
        (np.asarray(values, float),),
        np.mean,
        n_resamples=resamples,
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def _percentiles(values: np.ndarray) -> Interval:
    low, high = np.percentile(values, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return float(low), float(high)


@dataclass(frozen=True)
class Paired:
    """One method against another over the same n seeds, in the unit of what is compared.

    Attributes:
        interval: 95 % t-interval of the mean difference; None for fewer than two seeds.
        permutation: two-sided p of flipping the signs of the differences; never below 2 / 2^n.
        wilcoxon: two-sided p of the signed-rank test; None where every difference is 0.
    """

    n: int
    difference: float
    interval: Interval | None
    permutation: float
    wilcoxon: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def paired_test(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Paired:
    """Compare ``first`` with ``second``, measured with the same seeds in the same order."""
    assert len(first) == len(second) > 0, "paired values of one length are needed"
    differences = np.asarray(first, float) - np.asarray(second, float)
    n, mean = len(differences), float(differences.mean())
    interval = None
    if n > 1:
        half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1) * differences.std(ddof=1) / n**0.5)
        interval = (mean - half, mean + half)
    told = differences[differences != 0]
    wilcoxon = float(stats.wilcoxon(told).pvalue) if len(told) else None
    return Paired(n, mean, interval, _sign_flips(differences, seed), wilcoxon)


def _sign_flips(differences: np.ndarray, seed: int) -> float:
    """Share of sign patterns whose mean is as far from 0 as the one that was seen; exact for few pairs."""
    n = len(differences)
    if n <= _EXACT:
        signs = np.array(list(product((-1, 1), repeat=n)))
    else:
        signs = np.random.default_rng(seed).choice((-1, 1), size=(_WAYS, n))
        signs[0] = 1  # the one that was seen
    sums = np.abs(signs @ differences)
    return float(np.mean(sums >= abs(differences.sum()) * (1 - 1e-12)))
