"""The balanced soft assignment of configurations to SuperNets, as pure functions on float64 arrays.

Legend: P configurations, M SuperNets. scores_PM, assignment_PM (rows sum to 1), potentials_M (the v of docs/algorithm.md).
"""

from __future__ import annotations

import numpy as np

MOVING_AVERAGE = 0.9
TOLERANCE = 1e-9  # KL of the column means from uniform, nats
COARSE_TOLERANCE = 1e-4  # the same on the way to the final temperature
MAX_ITERATIONS = 200  # at each temperature


def temperature(step: int, steps: int, start: float, end: float) -> float:
    """Linear from ``start`` at step 0 to ``end`` at the last of ``steps`` steps."""
    return start + (end - start) * min(step / max(steps - 1, 1), 1.0)


def moving_average(score: float, accuracy: float) -> float:
    """``0.9 score + 0.1 accuracy`` (both in 0 to 1)."""
    return MOVING_AVERAGE * score + (1 - MOVING_AVERAGE) * accuracy


def softmax(logits_PM: np.ndarray) -> np.ndarray:
    """Row-wise softmax, shifted by the row's maximum so that nothing overflows."""
    shifted_PM = np.exp(logits_PM - logits_PM.max(axis=1, keepdims=True))
    return shifted_PM / shifted_PM.sum(axis=1, keepdims=True)


def balance(scores_PM: np.ndarray, temperature: float) -> np.ndarray:
    """``p(m|a) = softmax_m(T scores[a,m] + v_m)`` with v such that every SuperNet is equally likely over all a.

    v minimises the convex dual ``mean_a logsumexp_m(T scores[a,m] + v_m) - mean_m v_m``, whose gradient is the
    difference of the column means and 1/M. At high temperature the dual is all but piecewise linear and Sinkhorn's
    steps are tiny against the distance to go. So the problem is solved at a low temperature first and the solution,
    scaled, starts the same problem at twice the temperature, up to T. Each iteration takes Newton's step, halved until
    the dual falls enough, or Sinkhorn's where that fails.

    Args:
        scores_PM: finite scores.
        temperature: T >= 0; 0 gives the uniform assignment.

    Returns:
        assignment_PM float64 with KL(column means || uniform) <= 1e-9.
    """
    logits_PM = temperature * np.asarray(scores_PM, np.float64)
    logits_PM = logits_PM - logits_PM.max(axis=1, keepdims=True)
    doublings = max(int(np.ceil(np.log2(max(-logits_PM.min(), 1.0)))), 0)
    potentials_M = np.zeros(logits_PM.shape[1])
    for power in range(doublings, 0, -1):
        potentials_M = 2 * _solve(logits_PM / 2**power, potentials_M, COARSE_TOLERANCE)
    return softmax(logits_PM + _solve(logits_PM, potentials_M, TOLERANCE))


def _solve(logits_PM: np.ndarray, potentials_M: np.ndarray, tolerance: float) -> np.ndarray:
    """Potentials that balance the columns to ``tolerance`` (KL), from a first guess, in at most MAX_ITERATIONS."""
    for _ in range(MAX_ITERATIONS):
        assignment_PM = softmax(logits_PM + potentials_M)
        if imbalance(assignment_PM) <= tolerance:
            break
        potentials_M = potentials_M + _step(logits_PM, potentials_M, assignment_PM)
        potentials_M = potentials_M - potentials_M.mean()
    return potentials_M


def _step(logits_PM: np.ndarray, potentials_M: np.ndarray, assignment_PM: np.ndarray) -> np.ndarray:
    """Newton's step, halved until the dual falls enough (Armijo), or Sinkhorn's, which always lowers it."""
    columns_M = assignment_PM.mean(axis=0)
    step_M = _newton_step(assignment_PM, columns_M)
    slope = float((columns_M - 1 / len(columns_M)) @ step_M)
    if np.isfinite(step_M).all() and slope < 0:
        before = _dual(logits_PM, potentials_M)
        for halvings in range(12):
            shorter_M = step_M / 2**halvings
            if _dual(logits_PM, potentials_M + shorter_M) <= before + 0.1 * slope / 2**halvings:
                return shorter_M
    return -np.log(np.maximum(columns_M * len(columns_M), 1e-300))


def _newton_step(assignment_PM: np.ndarray, columns_M: np.ndarray) -> np.ndarray:
    """-H^-1 g of the dual, with a small ridge, since H is singular along (1,..,1)."""
    hessian_MM = np.diag(columns_M) - assignment_PM.T @ assignment_PM / len(assignment_PM)
    gradient_M = columns_M - 1 / len(columns_M)
    scale = np.trace(hessian_MM) * 1e-9 + 1e-15
    return -np.linalg.solve(hessian_MM + scale * np.eye(len(columns_M)), gradient_M)


def _dual(logits_PM: np.ndarray, potentials_M: np.ndarray) -> float:
    shifted_PM = logits_PM + potentials_M
    top_P = shifted_PM.max(axis=1)
    return float((top_P + np.log(np.exp(shifted_PM - top_P[:, None]).sum(axis=1))).mean() - potentials_M.mean())


def imbalance(assignment_PM: np.ndarray) -> float:
    """KL(mean_a p(.|a) || uniform) in nats; 0 where every SuperNet is equally likely."""
    columns_M = assignment_PM.mean(axis=0)
    filled_M = columns_M[columns_M > 0]
    return max(float((filled_M * np.log(filled_M * len(columns_M))).sum()), 0.0)


def entropy(assignment_PM: np.ndarray) -> float:
    """Mean entropy of the rows in nats: ln M where the assignment is uniform, 0 where it is decided."""
    filled_PM = np.where(assignment_PM > 0, assignment_PM, 1.0)
    return max(float(-(assignment_PM * np.log(filled_PM)).sum(axis=1).mean()), 0.0)
