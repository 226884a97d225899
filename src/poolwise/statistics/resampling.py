"""Vectorized statistics over many bootstrap draws of one ranking; each equals the plain function applied per draw.

R draws of P configurations, with replacement. A draw is represented by how often it contains each configuration
(``counts_RP``): sums over pairs become products of counts, and ranks become cumulative sums of counts. So nothing is
sorted or compared R times.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np

from poolwise.statistics import agreement, picks

_ROWS = 512  # rows of the P x P comparison in memory at once


class Draws:
    """Bootstrap draws of a ranking and the true accuracies.

    Args:
        scores_P: Scores of the ranking.
        truth_P: True accuracies.
        drawn_RP: Indices of the configurations in each draw.
    """

    def __init__(self, scores_P: np.ndarray, truth_P: np.ndarray, drawn_RP: np.ndarray):
        # best score first; ties in score are sorted by truth, best first
        order = np.lexsort((-truth_P, -scores_P))
        place = np.empty(len(order), int)
        place[order] = np.arange(len(order))
        self.scores_P, self.truth_P, self.size = scores_P[order], truth_P[order], len(order)
        self.drawn_RP = np.sort(place[drawn_RP], axis=1)
        rows_R1 = np.arange(len(drawn_RP))[:, None]
        flat = np.bincount((rows_R1 * self.size + self.drawn_RP).ravel(), minlength=len(drawn_RP) * self.size)
        self.counts_RP = flat.reshape(-1, self.size).astype(float)
        self._sums: dict[tuple[float, float], tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def values(self, statistic: Callable[..., float]) -> np.ndarray:
        """Return values_R of a function of (scores_P, truth_P), vectorized if a method below implements it."""
        function, arguments = statistic, {}
        if isinstance(statistic, partial) and not statistic.args:
            function, arguments = statistic.func, statistic.keywords
        vectorized = _VECTORIZED.get(function)
        if vectorized is not None:
            return vectorized(self, **arguments)
        return np.array([statistic(self.scores_P[drawn], self.truth_P[drawn]) for drawn in self.drawn_RP])

    def tau_a(self) -> np.ndarray:
        return self._pairs(0.0, 0.0)[0] / (self.size * (self.size - 1))

    def sparse_tau(self, bin_width: float = 0.0, score_bin: float = 0.0) -> np.ndarray:
        products_R, score_squares_R, truth_squares_R = self._pairs(score_bin, bin_width)
        defined_R = (score_squares_R > 0) & (truth_squares_R > 0)
        return np.divide(
            products_R, np.sqrt(score_squares_R * truth_squares_R), out=np.zeros(len(products_R)), where=defined_R
        )

    def _pairs(self, score_bin: float, truth_bin: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Compute ``agreement._pairs`` per draw: a pair is weighted by the counts of its members. Sums are exact."""
        if (score_bin, truth_bin) not in self._sums:
            sums_3R = np.zeros((3, len(self.counts_RP)))
            for start in range(0, self.size, _ROWS):
                rows = slice(start, start + _ROWS)
                a, b = (
                    agreement.signs(side, rows, width)
                    for side, width in ((self.scores_P, score_bin), (self.truth_P, truth_bin))
                )
                for i, part in enumerate((a * b, np.abs(a), np.abs(b))):
                    sums_3R[i] += ((self.counts_RP @ part.T) * self.counts_RP[:, rows]).sum(1)
            self._sums[score_bin, truth_bin] = (sums_3R[0], sums_3R[1], sums_3R[2])
        return self._sums[score_bin, truth_bin]

    def spearman(self) -> np.ndarray:
        ranks_RP = [(sum(self._below(side)) - self.size) / 2 for side in (self.scores_P, self.truth_P)]
        weighted_RP = [self.counts_RP * ranks for ranks in ranks_RP]
        products_R, score_squares_R, truth_squares_R = (
            (weighted_RP[i] * ranks_RP[j]).sum(1) for i, j in ((0, 1), (0, 0), (1, 1))
        )
        spread_R = np.sqrt(score_squares_R * truth_squares_R)
        return np.divide(products_R, spread_R, out=np.zeros(len(products_R)), where=spread_R > 0)

    def _below(self, side_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return how many members of each draw are below, and not above, each configuration; two arrays [R, P]."""
        order = np.argsort(side_P, kind="stable")
        reached_RP = np.cumsum(self.counts_RP[:, order], axis=1)
        reached_RP = np.concatenate((np.zeros((len(reached_RP), 1)), reached_RP), axis=1)
        ordered = side_P[order]
        first_P, last_P = np.searchsorted(ordered, side_P, "left"), np.searchsorted(ordered, side_P, "right")
        return reached_RP[:, first_P], reached_RP[:, last_P]

    @cached_property
    def _truth_below(self) -> tuple[np.ndarray, np.ndarray]:
        return self._below(self.truth_P)

    def regret(self, k: int = 1) -> np.ndarray:
        truth_RP = self.truth_P[self.drawn_RP]
        return self._expected_least(truth_RP.max(1, keepdims=True) - truth_RP, k)

    def best_rank(self, k: int = 1) -> np.ndarray:
        better_RP = self.size - self._truth_below[1]
        return 1 + self._expected_least(np.take_along_axis(better_RP, self.drawn_RP, 1), k)

    def beats_random(self, n: int = 1) -> np.ndarray:
        chances_RP = np.take_along_axis((self._truth_below[0] / self.size) ** n, self.drawn_RP, 1)
        scores_RP = self.scores_P[self.drawn_RP]
        first_RP = scores_RP == scores_RP[:, :1]
        return (chances_RP * first_RP).sum(1) / first_RP.sum(1)

    def _expected_least(self, loss_RP: np.ndarray, k: int) -> np.ndarray:
        """Return the expected smallest loss within the top k of each draw (see ``picks._expected_best``).

        ``loss_RP`` is in the order of ``drawn_RP``, so among ties in score the smallest loss comes first. The
        probability for the j-th smallest of g tied losses, t of them drawn, is computed from the previous one.
        """
        assert k >= 1, "k must be at least 1"
        k, rows = min(k, self.size), np.arange(len(loss_RP))
        scores_RP = self.scores_P[self.drawn_RP]
        edge_R1 = scores_RP[:, k - 1 : k]
        sure_R, tied_R = (scores_RP > edge_R1).sum(1), (scores_RP == edge_R1).sum(1)
        drawn_R = k - sure_R
        sure_loss_R = np.where(np.arange(k) < sure_R[:, None], loss_RP[:, :k], np.inf).min(1)
        chance_R, expected_R = drawn_R / tied_R, np.zeros(len(rows))
        for j in range(int((tied_R - drawn_R).max()) + 1):
            left_R = tied_R - drawn_R - j
            loss_R = loss_RP[rows, np.minimum(sure_R + j, self.size - 1)]
            expected_R += np.where(left_R >= 0, chance_R * np.minimum(loss_R, sure_loss_R), 0.0)
            chance_R = chance_R * left_R / np.maximum(tied_R - 1 - j, 1)
        return expected_R


_VECTORIZED: dict[Any, Callable[..., np.ndarray]] = {
    agreement.kendall_tau_a: Draws.tau_a,
    agreement.kendall_tau_b: Draws.sparse_tau,
    agreement.sparse_tau: Draws.sparse_tau,
    agreement.spearman: Draws.spearman,
    picks.regret: Draws.regret,
    picks.best_rank: Draws.best_rank,
    picks.beats_random: Draws.beats_random,
}
