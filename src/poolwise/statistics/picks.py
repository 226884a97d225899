"""Quality of the top of a ranking, and the picks made from it.

scores_P: higher is better. Ties are broken at random and the expectation is returned: a tie at the edge of the top k is
not a choice of the method, so every way to break it counts equally.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import comb
from typing import Any

import numpy as np


def regret(scores_P: Sequence[float] | np.ndarray, truth_P: Sequence[float] | np.ndarray, k: int = 1) -> float:
    """Return the best truth minus the expected best truth within the top k, in the unit of ``truth_P``."""
    truth = np.asarray(truth_P, float)
    return float(truth.max()) - _expected_best(np.asarray(scores_P, float), truth, k)


def best_rank(scores_P: Sequence[float] | np.ndarray, truth_P: Sequence[float] | np.ndarray, k: int = 1) -> float:
    """Return the expected best true rank within the top k (1: no configuration is truly better)."""
    return -_expected_best(np.asarray(scores_P, float), -_ranks(truth_P).astype(float), k)


def beats_random(scores_P: Sequence[float] | np.ndarray, truth_P: Sequence[float] | np.ndarray, n: int = 1) -> float:
    """Return the probability that the pick is truly better than the best of ``n`` uniform random picks.

    Random picks are drawn with replacement, so the probability is (W / P)^n for W configurations that are truly worse
    than the pick. Without ties this is (1 - r / P)^n for a pick of true rank r. A tie does not count as better, so the
    truly best pick has (1 - 1 / P)^n. After the comparison with random search in Yu et al. (ICLR 2020, section 4).
    """
    scores, truth = np.asarray(scores_P, float), np.asarray(truth_P, float)
    worse_P = np.searchsorted(np.sort(truth), truth, side="left")
    return float(((worse_P / len(truth)) ** n)[scores == scores.max()].mean())


def three_picks(
    rows: Sequence[dict[str, Any]], default: str, expected: str, allowed: Collection[str] | None = None
) -> dict[str, str]:
    """Return three picks from rows sorted best first.

    ``best`` is the first row. ``best_at_default_macs`` is the first with no more MACs than the default.
    ``best_for_cost`` has the largest gain over the default divided by its relative MACs, or is the default if none
    gains.

    Args:
        rows: Rows with ``pooling``, ``macs``, ``macs_ratio`` and the column ``expected``, including the default.
        default: The default configuration.
        expected: Name of the column with the predicted accuracy.
        allowed: Configurations that may be picked (None: all); if none may, the default is picked.
    """
    base = next(row for row in rows if row["pooling"] == default)
    within = [row for row in rows if allowed is None or row["pooling"] in allowed] or [base]
    cheap = next((row for row in within if row["macs"] <= base["macs"]), base)
    gain = max(within, key=lambda row: ((row[expected] - base[expected]) / row["macs_ratio"], -row["macs"]))
    return {
        "best": within[0]["pooling"],
        "best_at_default_macs": cheap["pooling"],
        "best_for_cost": (gain if gain[expected] > base[expected] else base)["pooling"],
    }


def _ranks(truth_P: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return 1 + the number of configurations that are truly better."""
    truth = np.asarray(truth_P, float)
    return 1 + len(truth) - np.searchsorted(np.sort(truth), truth, side="right")


def _expected_best(scores: np.ndarray, value: np.ndarray, k: int) -> float:
    """Return the expected largest ``value`` among the k highest scores, where t of the g tied at the edge are drawn.

    The j-th largest value of the tied (from 0) is the largest drawn with probability C(g - 1 - j, t - 1) / C(g, t).
    """
    assert k >= 1, "k must be at least 1"
    k = min(k, len(scores))
    edge = np.partition(scores, len(scores) - k)[len(scores) - k]
    sure = value[scores > edge]
    tied = np.sort(value[scores == edge])[::-1]
    floor = float(sure.max()) if len(sure) else -np.inf
    g, t = len(tied), k - len(sure)
    chances = [comb(g - 1 - j, t - 1) / comb(g, t) for j in range(g - t + 1)]
    return float(np.dot(chances, np.maximum(tied[: g - t + 1], floor)))
