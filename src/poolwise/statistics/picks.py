"""What the top of a ranking holds, and what is picked from it.

scores_P: higher is better, ties broken at random; what is told is the expectation.

A tie at the edge of the top k is no choice that a method made, so every way to break it counts alike.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import comb
from typing import Any

import numpy as np


def regret(scores_P: Sequence[float] | np.ndarray, truth_P: Sequence[float] | np.ndarray, k: int = 1) -> float:
    """Best truth of all minus the expected best truth within the top k, in the unit of ``truth_P``."""
    truth = np.asarray(truth_P, float)
    return float(truth.max()) - _expected_best(np.asarray(scores_P, float), truth, k)


def best_rank(scores_P: Sequence[float] | np.ndarray, truth_P: Sequence[float] | np.ndarray, k: int = 1) -> float:
    """Expected best true rank (1: nothing is truly better) within the top k."""
    return -_expected_best(np.asarray(scores_P, float), -_ranks(truth_P).astype(float), k)


def beats_random(scores_P: Sequence[float] | np.ndarray, truth_P: Sequence[float] | np.ndarray, n: int = 1) -> float:
    """Probability that the pick is truly better than the best of ``n`` uniform random picks.

    The picks are independent, with replacement: (W / P)^n, W the number of configurations that are truly worse than the
    pick; without ties (1 - r / P)^n for a pick of true rank r. A tied random pick is not beaten, so the truly best pick
    has (1 - 1 / P)^n. After the comparison of true ranks with random search in Yu et al. (ICLR 2020, section 4).
    """
    scores, truth = np.asarray(scores_P, float), np.asarray(truth_P, float)
    worse_P = np.searchsorted(np.sort(truth), truth, side="left")
    return float(((worse_P / len(truth)) ** n)[scores == scores.max()].mean())


def three_picks(
    rows: Sequence[dict[str, Any]], default: str, expected: str, allowed: Collection[str] | None = None
) -> dict[str, str]:
    """Three answers from rows of ``pooling``, ``macs``, ``macs_ratio`` and ``expected``, best first.

    ``best``: the first. ``best_at_default_macs``: the first that takes no more than the default. ``best_for_cost``: most gain
    over the default for each of the default's MACs that it takes; the default where nothing gains. ``allowed`` are those that
    may be picked (None: all); the default is among the rows in any case, and stands in where nothing may.
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
    """1 + the number of configurations that are truly better."""
    truth = np.asarray(truth_P, float)
    return 1 + len(truth) - np.searchsorted(np.sort(truth), truth, side="right")


def _expected_best(scores: np.ndarray, value: np.ndarray, k: int) -> float:
    """Expected largest ``value`` among the k highest scores; of the g that tie at the edge, t are drawn.

    The j-th largest value of the tied (from 0) is the largest drawn with probability C(g - 1 - j, t - 1) / C(g, t).
    """
    assert k >= 1, "the top holds at least one"
    k = min(k, len(scores))
    edge = np.partition(scores, len(scores) - k)[len(scores) - k]
    sure = value[scores > edge]
    tied = np.sort(value[scores == edge])[::-1]
    floor = float(sure.max()) if len(sure) else -np.inf
    g, t = len(tied), k - len(sure)
    chances = [comb(g - 1 - j, t - 1) / comb(g, t) for j in range(g - t + 1)]
    return float(np.dot(chances, np.maximum(tied[: g - t + 1], floor)))
