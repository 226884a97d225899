"""The balanced soft assignment of configurations to SuperNets, as pure functions on float64 arrays.

Legend: P configurations, M SuperNets. scores_PM, assignment_PM (rows sum to 1), potentials_M (the v of docs/algorithm.md).
"""

from __future__ import annotations

import numpy as np

MOVING_AVERAGE = 0.9
TOLERANCE = 1e-9
MAX_ITERATIONS = 200


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
    difference of the column means and 1/M. Each iteration tries Newton's step and, where that does not lower the dual
    enough, takes Sinkhorn's (which always lowers it), so the number of iterations stays small where Sinkhorn alone,
    at high temperature, would need thousands.

    Args:
        scores_PM: finite scores.
        temperature: T >= 0; 0 gives the uniform assignment.

    Returns:
        assignment_PM float64. KL(column means || uniform) <= 1e-9 unless MAX_ITERATIONS (200) run out.
    """
    logits_PM = temperature * np.asarray(scores_PM, np.float64)
    logits_PM = logits_PM - logits_PM.max(axis=1, keepdims=True)
    supernets = logits_PM.shape[1]
    potentials_M = np.zeros(supernets)
    for _ in range(MAX_ITERATIONS):
        assignment_PM = softmax(logits_PM + potentials_M)
        columns_M = assignment_PM.mean(axis=0)
        if imbalance(assignment_PM) <= TOLERANCE:
            break
        step_M = _newton_step(assignment_PM, columns_M)
        if not _lowers_enough(logits_PM, potentials_M, step_M, slope=float((columns_M - 1 / supernets) @ step_M)):
            step_M = -np.log(np.maximum(columns_M * supernets, 1e-300))
        potentials_M = potentials_M + step_M
        potentials_M = potentials_M - potentials_M.mean()
    return softmax(logits_PM + potentials_M)


def _newton_step(assignment_PM: np.ndarray, columns_M: np.ndarray) -> np.ndarray:
    """-H^-1 g of the dual; H is singular along (1,..,1), which the least-norm solution leaves out."""
    hessian_MM = np.diag(columns_M) - assignment_PM.T @ assignment_PM / len(assignment_PM)
    gradient_M = columns_M - 1 / len(columns_M)
    ridge = 1e-12 * np.eye(len(columns_M))
    return -np.linalg.lstsq(hessian_MM + ridge, gradient_M, rcond=None)[0]


def _lowers_enough(logits_PM: np.ndarray, potentials_M: np.ndarray, step_M: np.ndarray, slope: float) -> bool:
    """Armijo's rule for the full Newton step."""
    if not np.isfinite(step_M).all() or slope >= 0:
        return False
    before, after = _dual(logits_PM, potentials_M), _dual(logits_PM, potentials_M + step_M)
    return bool(after <= before + 0.1 * slope)


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
