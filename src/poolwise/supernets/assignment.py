"""The balanced soft assignment of configurations to SuperNets, as pure functions on float64 arrays.

Legend: R rows, M SuperNets. A row stands for one configuration, or for several with equal scores; weights_R is their number.
scores_RM, assignment_RM (rows sum to 1), potentials_M (v in docs/algorithm.md), shares_R = weights_R / weights_R.sum().
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MOVING_AVERAGE = 0.9
TOLERANCE = 1e-9  # KL of the column means from uniform, nats
COARSE_TOLERANCE = 1e-4  # the same at the lower temperatures that are solved first
MAX_ITERATIONS = 200  # at each temperature
WARM_ITERATIONS = 8  # starting from the potentials of the previous step


def temperature_at(step: int, steps: int, start: float, end: float) -> float:
    """Return the temperature at ``step``: linear from ``start`` at step 0 to ``end`` at the last of ``steps`` steps."""
    return start + (end - start) * min(step / max(steps - 1, 1), 1.0)


def moving_average(score: float, accuracy: float) -> float:
    """Return ``0.9 score + 0.1 accuracy`` (both between 0 and 1)."""
    return MOVING_AVERAGE * score + (1 - MOVING_AVERAGE) * accuracy


def softmax(logits_RM: np.ndarray) -> np.ndarray:
    """Return the row-wise softmax. Each row is shifted by its maximum to avoid overflow."""
    shifted_RM = np.exp(logits_RM - logits_RM.max(axis=1, keepdims=True))
    return shifted_RM / shifted_RM.sum(axis=1, keepdims=True)


class Assignment(NamedTuple):
    """Assignment ``p(m|a)`` of step 2 of the method, with its column potentials.

    Attributes:
        probabilities_RM: p(m|a), float64, rows sum to 1.
        potentials_M: v, with mean 0.
    """

    probabilities_RM: np.ndarray
    potentials_M: np.ndarray


def assign(scores_RM: np.ndarray, temperature: float, potentials_M: np.ndarray) -> Assignment:
    """Return ``p(m|a) = softmax_m(T scores[a,m] + v_m)`` for potentials v."""
    return Assignment(softmax(temperature * np.asarray(scores_RM, np.float64) + potentials_M), potentials_M)


def balance(
    scores_RM: np.ndarray,
    temperature: float,
    weights_R: np.ndarray | None = None,
    start_M: np.ndarray | None = None,
) -> Assignment:
    """Return ``p(m|a) = softmax_m(T scores[a,m] + v_m)`` with v such that every SuperNet is equally likely over all a.

    Args:
        scores_RM: Finite scores.
        temperature: T >= 0; 0 gives the uniform assignment.
        weights_R: Number of configurations that each row stands for, positive. One each by default.
        start_M: Initial guess for the potentials. A close guess saves time.

    Returns:
        The assignment. KL(weighted column means || uniform) is at most TOLERANCE if MAX_ITERATIONS iterations suffice, as
        they do for equal weights and T <= 300. Otherwise the potentials of the last iteration are used. For random scores with
        weights from 1 to 1e6, or T up to 1e5, the KL stayed below 1e-4 nats.
    """
    return assign(scores_RM, temperature, _potentials(scores_RM, temperature, weights_R, start_M))


def _potentials(
    scores_RM: np.ndarray, temperature: float, weights_R: np.ndarray | None, start_M: np.ndarray | None
) -> np.ndarray:
    """Return the potentials_M of ``balance``, with mean 0.

    v minimizes the convex dual ``mean_a logsumexp_m(T scores[a,m] + v_m) - mean_m v_m``, whose gradient is the column
    means minus 1/M. At large T the dual is almost piecewise linear and Sinkhorn steps are far too small. The dual is
    therefore minimized at a small T first; T is then doubled repeatedly, and each solution, scaled, is the next initial
    guess. Each iteration takes a Newton step with backtracking, or a Sinkhorn step if that fails. A few plain Newton steps
    from ``start_M`` are tried before all this. If they do not converge, the result does not depend on ``start_M``.
    """
    logits_RM = temperature * np.asarray(scores_RM, np.float64)
    logits_RM = logits_RM - logits_RM.max(axis=1, keepdims=True)
    shares_R = _shares(weights_R, len(logits_RM))
    if start_M is not None:
        warm_M = _warm(logits_RM, shares_R, start_M)
        if warm_M is not None:
            return warm_M
    doublings = max(int(np.ceil(np.log2(max(-logits_RM.min(), 1.0)))), 0)
    potentials_M = np.zeros(logits_RM.shape[1])
    for power in range(doublings, 0, -1):
        potentials_M = 2 * _solve(logits_RM / 2**power, shares_R, potentials_M, COARSE_TOLERANCE)
    return _solve(logits_RM, shares_R, potentials_M, TOLERANCE)


def _shares(weights_R: np.ndarray | None, rows: int) -> np.ndarray:
    if weights_R is None:
        return np.full(rows, 1 / rows)
    weights_R = np.asarray(weights_R, np.float64)
    return weights_R / weights_R.sum()


def _warm(logits_RM: np.ndarray, shares_R: np.ndarray, start_M: np.ndarray) -> np.ndarray | None:
    """Return balanced potentials after a few plain Newton steps from ``start_M``, or None if they do not converge."""
    potentials_M, before = start_M, np.inf
    for _ in range(WARM_ITERATIONS):
        assignment_RM = softmax(logits_RM + potentials_M)
        columns_M = shares_R @ assignment_RM
        distance = _kl_from_uniform(columns_M)
        if distance <= TOLERANCE:
            return potentials_M
        if not distance < before:
            return None
        before = distance
        potentials_M = potentials_M + _newton_step(assignment_RM, shares_R, columns_M)
        potentials_M = potentials_M - potentials_M.mean()
    return None


def _solve(logits_RM: np.ndarray, shares_R: np.ndarray, potentials_M: np.ndarray, tolerance: float) -> np.ndarray:
    """Return potentials that balance the columns to ``tolerance`` (KL), after at most MAX_ITERATIONS iterations."""
    for _ in range(MAX_ITERATIONS):
        assignment_RM = softmax(logits_RM + potentials_M)
        if _kl_from_uniform(shares_R @ assignment_RM) <= tolerance:
            break
        potentials_M = potentials_M + _step(logits_RM, shares_R, potentials_M, assignment_RM)
        potentials_M = potentials_M - potentials_M.mean()
    return potentials_M


def _step(
    logits_RM: np.ndarray, shares_R: np.ndarray, potentials_M: np.ndarray, assignment_RM: np.ndarray
) -> np.ndarray:
    """Return a Newton step with Armijo backtracking or, if it fails, a Sinkhorn step, which always lowers the dual."""
    columns_M = shares_R @ assignment_RM
    step_M = _newton_step(assignment_RM, shares_R, columns_M)
    slope = float((columns_M - 1 / len(columns_M)) @ step_M)
    if np.isfinite(step_M).all() and slope < 0:
        before = _dual(logits_RM, shares_R, potentials_M)
        for halvings in range(12):
            shorter_M = step_M / 2**halvings
            if _dual(logits_RM, shares_R, potentials_M + shorter_M) <= before + 0.1 * slope / 2**halvings:
                return shorter_M
    return -np.log(np.maximum(columns_M * len(columns_M), 1e-300))


def _newton_step(assignment_RM: np.ndarray, shares_R: np.ndarray, columns_M: np.ndarray) -> np.ndarray:
    """Return -H^-1 g of the dual. A small ridge is added because H is singular along (1, .., 1)."""
    hessian_MM = np.diag(columns_M) - (assignment_RM * shares_R[:, None]).T @ assignment_RM
    gradient_M = columns_M - 1 / len(columns_M)
    scale = np.trace(hessian_MM) * 1e-9 + 1e-15
    return -np.linalg.solve(hessian_MM + scale * np.eye(len(columns_M)), gradient_M)


def _dual(logits_RM: np.ndarray, shares_R: np.ndarray, potentials_M: np.ndarray) -> float:
    shifted_RM = logits_RM + potentials_M
    top_R = shifted_RM.max(axis=1)
    sums_R = top_R + np.log(np.exp(shifted_RM - top_R[:, None]).sum(axis=1))
    return float(shares_R @ sums_R - potentials_M.mean())


def _kl_from_uniform(columns_M: np.ndarray) -> float:
    """Return KL(columns || uniform) in nats."""
    filled_M = np.maximum(columns_M, 1e-300)
    return max(float(columns_M @ np.log(filled_M * len(columns_M))), 0.0)


def imbalance(assignment_RM: np.ndarray, weights_R: np.ndarray | None = None) -> float:
    """Return KL(mean_a p(.|a) || uniform) in nats; 0 if every SuperNet is equally likely."""
    return _kl_from_uniform(_shares(weights_R, len(assignment_RM)) @ assignment_RM)


def entropy(assignment_RM: np.ndarray, weights_R: np.ndarray | None = None) -> float:
    """Return the mean entropy of the rows in nats: ln M for a uniform assignment, 0 for a hard one."""
    filled_RM = np.where(assignment_RM > 0, assignment_RM, 1.0)
    entropy_R = -(assignment_RM * np.log(filled_RM)).sum(axis=1)
    return max(float(_shares(weights_R, len(entropy_R)) @ entropy_R), 0.0)
