"""Smooth scores over neighboring configurations: those that downsample at almost the same positions are similarly good.

Only the scores and the positions are used, so any scores can be smoothed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from poolwise.spaces import Pooling, PoolingSpace, positions

# A kernel narrower than half a layer does not smooth at all, and its leave-one-out error is meaningless.
WIDTHS = (0.5, 0.65, 0.8, 1.0, 1.25, 1.6, 2.0, 2.5, 3.2, 4.0)  # in layers
_CELLS = 4_000_000  # entries of a block (rows x configurations) in memory at once
_REACH = 5.0  # the kernel, below 4e-6, is set to 0 beyond this many widths


@dataclass(frozen=True)
class Smoothed:
    """Scores after smoothing.

    Attributes:
        scores: [P] float64, in the order of the configurations passed.
        width: Kernel width h in layers with the smallest leave-one-out error.
        errors: Leave-one-out mean squared error by width.
        freedom: Effective degrees of freedom (trace of the smoother): P without smoothing, 1 if all become one mean.
        reliability: Share of the variance that neighbors predict, 0 to 1; 0 for noise and for constants.
    """

    scores: np.ndarray
    width: float
    errors: dict[float, float]
    freedom: float
    reliability: float


def smooth(
    poolings: Collection[Pooling], scores_P: Sequence[float] | np.ndarray, widths: Sequence[float] = WIDTHS
) -> Smoothed:
    """Return the Nadaraya-Watson mean with the kernel exp(-|dx|^2 / (2 h^2)) on differences dx of pooling positions.

    h is the width with the smallest leave-one-out mean squared error (the smaller one in a tie). A configuration without
    a neighbor within reach is predicted by the mean of all scores. ``spaces.positions`` also defines distances between
    configurations with different numbers of poolings. The result is exact for spaces of any size; time grows with P^2
    (seconds for P = 20,000), memory does not.

    Args:
        poolings: A space, or some of its configurations.
        scores_P: One finite score per configuration.
        widths: Candidate kernel widths in layers.
    """
    scores = np.asarray(scores_P, float)
    count = len(poolings)
    assert len(scores) == count, "one score per configuration is needed"
    assert np.isfinite(scores).all(), "scores are finite"
    if count < 3:
        return Smoothed(scores.copy(), 0.0, {}, float(count), 0.0)
    smoothed_WP, error_W, freedom_W = _every_width(poolings, scores, np.asarray(widths, float))
    best = int(np.argmin(error_W))
    errors = {float(width): float(error) for width, error in zip(widths, error_W, strict=True)}
    predicted = 0.0 if equal(scores) else float(np.clip(1 - error_W[best] / scores.var(), 0, 1))
    return Smoothed(smoothed_WP[best], float(widths[best]), errors, float(freedom_W[best]), predicted)


def reliabilities(poolings: Collection[Pooling], scores_PN: np.ndarray, widths: Sequence[float] = WIDTHS) -> np.ndarray:
    """Return reliability_N, as ``smooth`` computes it, of N sets of scores of the same configurations at low cost."""
    count, sets = scores_PN.shape
    assert len(poolings) == count, "one score per configuration is needed"
    if count < 3:
        return np.zeros(sets)
    kernel_DW, centred_PN = _kernel(np.asarray(widths, float)), scores_PN - scores_PN.mean(0)
    error_WN = np.zeros((len(widths), sets))
    for rows, squared_BP in _blocks(poolings, len(kernel_DW)):
        for w, kernel_D in enumerate(np.ascontiguousarray(kernel_DW.T)):
            kernel_BP = kernel_D[squared_BP]
            mass_B1, block_BN = kernel_BP.sum(1, keepdims=True), centred_PN[rows]
            error_WN[w] += ((block_BN - _left_out(mass_B1, kernel_BP @ centred_PN, block_BN)) ** 2).sum(0)
    equal_N = np.array([equal(scores_P) for scores_P in scores_PN.T])
    variance_N = np.where(equal_N, 1.0, centred_PN.var(0))
    return np.where(equal_N, 0.0, np.clip(1 - error_WN.min(0) / count / variance_N, 0, 1))


def equal(values: np.ndarray) -> bool:
    """Return whether all values are equal up to rounding."""
    return float(np.std(values)) <= 8 * float(np.finfo(float).eps * np.max(np.abs(values), initial=0))


def _kernel(widths: np.ndarray) -> np.ndarray:
    """Return kernel_DW at each integer squared distance D. The last row is 0 and stands for all larger distances."""
    distances = np.arange(int((_REACH * widths.max()) ** 2) + 2)
    kernel_DW = np.exp(-distances[:, None] / (2 * widths**2))
    kernel_DW[distances[:, None] > (_REACH * widths) ** 2] = 0
    return kernel_DW


def _blocks(poolings: Collection[Pooling], length: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield a slice of configurations and squared_BP, their squared distances from all, clipped to ``length - 1``."""
    P = len(poolings)
    positions_PS = np.array(positions(poolings), np.float32).reshape(P, -1)
    lengths_P, rows = (positions_PS**2).sum(1), max(_CELLS // P, 1)
    for start in range(0, P, rows):
        block = positions_PS[start : start + rows]
        squared = lengths_P[start : start + rows, None] + lengths_P - 2 * block @ positions_PS.T
        yield slice(start, start + len(block)), np.minimum(np.rint(squared).astype(np.int64), length - 1)


def _left_out(mass: np.ndarray, sums: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return leave-one-out predictions of centered scores; 0, the mean of all, without a neighbor within reach."""
    others = mass - 1
    isolated = others < 1e-9
    return np.where(isolated, 0.0, (sums - scores) / np.where(isolated, 1.0, others))


def _every_width(
    poolings: Collection[Pooling], scores: np.ndarray, widths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return smoothed scores [W, P], leave-one-out error [W] and degrees of freedom [W] for each width.

    Each row needs only one histogram of distances for all widths.
    """
    P, centre, kernel_DW = len(scores), scores.mean(), _kernel(widths)
    smoothed_WP, error_W, freedom_W = np.empty((len(widths), P)), np.zeros(len(widths)), np.zeros(len(widths))
    for rows, squared in _blocks(poolings, len(kernel_DW)):
        shape = (len(squared), len(kernel_DW))
        squared += np.arange(len(squared))[:, None] * len(kernel_DW)
        count_BD = np.bincount(squared.ravel(), minlength=shape[0] * shape[1]).reshape(shape)
        weights = np.broadcast_to(scores - centre, squared.shape).ravel()
        total_BD = np.bincount(squared.ravel(), weights, shape[0] * shape[1]).reshape(shape)
        block_B1 = scores[rows, None] - centre
        mass_BW, sum_BW = count_BD @ kernel_DW, total_BD @ kernel_DW
        smoothed_WP[:, rows] = (centre + sum_BW / mass_BW).T
        freedom_W += (1 / mass_BW).sum(0)
        error_W += ((block_B1 - _left_out(mass_BW, sum_BW, block_B1)) ** 2).sum(0)
    return smoothed_WP, error_W / P, freedom_W


def fill(space: PoolingSpace, seen: Mapping[int, float], widths: Sequence[float] = WIDTHS) -> np.ndarray:
    """Return scores_P: known scores unchanged, and the kernel mean of the known scores for all other configurations.

    The kernel is that of ``smooth``, with the width of the smallest leave-one-out error. A mean is capped below the best
    known score, so a ranking always starts with a known configuration. Return zeros if ``seen`` is empty.

    Args:
        space: The space to fill.
        seen: Known scores by index in the space.
        widths: Candidate kernel widths in layers.
    """
    if not seen:
        return np.zeros(space.size)
    places = np.array(sorted(seen))
    values = np.array([seen[place] for place in places.tolist()], float)
    all_PS = np.array(positions(space), float).reshape(space.size, -1)
    squared_VV = ((all_PS[places, None] - all_PS[places]) ** 2).sum(-1)
    errors = [
        np.mean((values - _kernel_mean(squared_VV + np.diag([np.inf] * len(values)), values, h)) ** 2) for h in widths
    ]
    width = widths[int(np.argmin(errors))] if len(values) > 2 else 1.0
    scores_P = np.empty(space.size)
    for start in range(0, space.size, max(_CELLS // len(values), 1)):
        block = all_PS[start : start + max(_CELLS // len(values), 1)]
        squared = ((block[:, None] - all_PS[places]) ** 2).sum(-1)
        scores_P[start : start + len(block)] = _kernel_mean(squared, values, width)
    scores_P = np.minimum(scores_P, np.nextafter(values.max(), -np.inf))
    scores_P[places] = values
    return scores_P


def _kernel_mean(squared_NV: np.ndarray, values_V: np.ndarray, width: float) -> np.ndarray:
    """Return the kernel mean of ``values_V``. Weights are relative to the nearest, so that they never all underflow."""
    nearest = squared_NV.min(1, keepdims=True)
    gaps = squared_NV - np.where(np.isfinite(nearest), nearest, 0)
    weights_NV = np.exp(-gaps / (2 * width**2))
    mass = weights_NV.sum(1)
    return np.where(mass > 0, weights_NV @ values_V / np.where(mass > 0, mass, 1), values_V.mean())
