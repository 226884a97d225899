"""Smoothing over neighboring poolings."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolwise.rankings.smoothing import reliabilities, smooth
from poolwise.spaces import PoolingSpace
from poolwise.statistics import kendall_tau_b


def slowly(space, scores, width):
    positions = np.array([p.positions for p in space], float)
    squared = ((positions[:, None] - positions) ** 2).sum(-1)
    kernel = np.exp(-squared / (2 * width**2))
    others = kernel - np.eye(len(scores))
    return kernel @ scores / kernel.sum(1), np.mean((scores - others @ scores / others.sum(1)) ** 2)


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 12), st.integers(1, 3), st.integers(0, 1000))
def test_smoothing_is_the_kernel_mean(layers, poolings, seed):
    space = PoolingSpace(layers, poolings)
    scores = np.random.default_rng(seed).normal(size=len(space)) + 80
    smoothed = smooth(space, scores)
    if len(space) < 3:
        return
    expected, error = slowly(space, scores, smoothed.width)
    assert smoothed.scores == pytest.approx(expected, abs=1e-3)
    assert smoothed.errors[smoothed.width] == pytest.approx(error, rel=1e-3)
    assert smoothed.errors[smoothed.width] == min(smoothed.errors.values())
    assert scores.min() - 1e-9 <= smoothed.scores.min() <= smoothed.scores.max() <= scores.max() + 1e-9


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 12), st.integers(1, 3), st.integers(0, 10**6))
def test_reliabilities_equal_those_of_smoothing(layers, poolings, seed):
    space, generator = PoolingSpace(layers, min(poolings, layers - 1)), np.random.default_rng(seed)
    scores_PN = generator.integers(0, 9, (len(space), 4)) + np.arange(len(space))[:, None] * np.array([0.0, 0.3, 3, 0])
    scores_PN[:, 3] = 0.1
    reliability_N = reliabilities(space, scores_PN)
    assert reliability_N == pytest.approx([smooth(space, scores_P).reliability for scores_P in scores_PN.T], abs=1e-9)
    assert reliability_N[3] == 0


def test_smoothing_helps_for_a_smooth_truth_and_keeps_constants():
    space, generator = PoolingSpace(17, 3), np.random.default_rng(2)
    truth = np.array([-((p.positions[0] - 8) ** 2) - 0.5 * (p.positions[2] - 12) ** 2 for p in space], float)
    noisy = truth + generator.normal(0, truth.std(), len(truth))
    assert kendall_tau_b(smooth(space, noisy).scores, truth) > kendall_tau_b(noisy, truth) + 0.15
    assert smooth(space, np.full(len(space), 3.0)).scores == pytest.approx(np.full(len(space), 3.0))


@pytest.mark.slow
def test_smoothing_of_thousands():
    space = PoolingSpace(46, 3)
    started = time.perf_counter()
    smooth(space, np.arange(float(len(space))))
    assert len(space) > 14_000
    assert time.perf_counter() - started < 90
