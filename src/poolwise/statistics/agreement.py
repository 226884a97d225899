"""Agreement of two rankings of the same P configurations: 1 same order, 0 unrelated, -1 reversed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

_ROWS = 512  # rows of the P x P comparison in memory at once
_SMALL = 300  # up to this P, comparing all pairs is faster than sorting


def kendall_tau_a(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Return (concordant - discordant) / all pairs; ties count as neither, as in the published agreement figures."""
    concordant, _, _ = _pairs(np.asarray(x, float), np.asarray(y, float), 0.0, 0.0)
    return concordant / (len(x) * (len(x) - 1))


def kendall_tau_b(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Return Kendall's tau corrected for ties; 0 if one side is constant."""
    if len(x) <= _SMALL:
        return _correlation(np.asarray(x, float), np.asarray(y, float), 0.0, 0.0)
    tau = stats.kendalltau(x, y, method="asymptotic").statistic if len(set(x)) > 1 and len(set(y)) > 1 else 0.0
    return float(tau)


def spearman(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Return Spearman's rho, the correlation of ranks (ties share their mean rank); 0 if one side is constant."""
    ranks = [_centred_ranks(np.asarray(side, float)) for side in (x, y)]
    spread = np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1]))
    return float(ranks[0] @ ranks[1] / spread) if spread > 0 else 0.0


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks with mean 0; ties share their mean rank."""
    ordered = np.sort(values)
    below, up_to = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return (below + up_to - len(values)) / 2


def sparse_tau(
    scores_P: Sequence[float] | np.ndarray,
    truth_P: Sequence[float] | np.ndarray,
    bin_width: float,
    score_bin: float = 0.0,
) -> float:
    """Return Kendall's tau with configurations tied where their difference is within the noise.

    Two configurations tie on a side if they differ by less than a bin. The coefficient is
    sum(s t) / sqrt(sum(s^2) sum(t^2)) over the signs s, t of all pairs, which is tau-b for bins of 0.
    After the sparse Kendall tau of Yu et al., "Evaluating the Search Phase of Neural Architecture Search" (ICLR 2020),
    and Siems et al., "NAS-Bench-301" (2020). They round accuracies to 0.1 %; comparing pairs needs no bin edges.

    Args:
        scores_P: Scores of the ranking.
        truth_P: True accuracies.
        bin_width: Bin of ``truth_P``, in its unit: the standard deviation between seeds.
        score_bin: Bin of ``scores_P``; 0 if scores have another unit.
    """
    assert bin_width >= 0, "a bin width must not be negative"
    assert score_bin >= 0, "a bin width must not be negative"
    return _correlation(np.asarray(scores_P, float), np.asarray(truth_P, float), score_bin, bin_width)


def _correlation(x: np.ndarray, y: np.ndarray, x_bin: float, y_bin: float) -> float:
    products, x_squares, y_squares = _pairs(x, y, x_bin, y_bin)
    return products / float(x_squares * y_squares) ** 0.5 if x_squares > 0 and y_squares > 0 else 0.0


def _pairs(x: np.ndarray, y: np.ndarray, x_bin: float, y_bin: float) -> tuple[float, float, float]:
    """Sum sign(x) sign(y), sign(x)^2 and sign(y)^2 over ordered pairs; differences below a bin have sign 0."""
    assert len(x) == len(y), "both rankings must cover the same configurations"
    sums = np.zeros(3)
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        a, b = signs(x, rows, x_bin), signs(y, rows, y_bin)
        sums += np.vdot(a, b), np.count_nonzero(a), np.count_nonzero(b)
    return float(sums[0]), float(sums[1]), float(sums[2])


def signs(side: np.ndarray, rows: slice, width: float) -> np.ndarray:
    """Return the sign of the difference between some rows and every value; 0 if it is less than a bin."""
    gaps = side[rows, None] - side
    return np.sign(gaps) * (np.abs(gaps) >= width) if width else np.sign(gaps)
