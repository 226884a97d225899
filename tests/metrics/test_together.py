"""Shared weights and short trainings as one score."""

import numpy as np
import pytest

from poolwise.metrics import kendall_tau_b, smooth, together
from synthetic import SPACE, TRUTH, noisy


def tau(scores):
    return kendall_tau_b(smooth(SPACE, scores).scores, TRUTH)


def test_both_are_better_than_either():
    """Errors of the shared ones are smooth; those of own ones are noise."""
    told = []
    for seed in range(12):
        bias = smooth(SPACE, np.random.default_rng(seed).normal(size=len(SPACE)), [2.0]).scores
        shared = TRUTH + 0.6 * TRUTH.std() * (bias - bias.mean()) / bias.std()
        own = noisy(TRUTH, 1.5, 100 + seed)
        told.append([tau(shared), tau(own), tau(together(SPACE, shared, own).scores)])
    shared, own, both = np.mean(told, axis=0)
    assert both > max(shared, own) + 0.04


def test_parts_weigh_the_same_whatever_their_units():
    shared, own = noisy(TRUTH, 0.3, 1), noisy(TRUTH, 0.3, 2)
    found = together(SPACE, shared, own)
    assert found.used
    parts = [(part - part.mean()) / part.std() for part in (shared, own)]
    assert found.scores == pytest.approx(shared.mean() + shared.std() * (parts[0] + parts[1]) / 2)
    again = together(SPACE, shared / 50 + 0.3, 7 * own - 4)
    assert 50 * (again.scores - 0.3) == pytest.approx(found.scores)
    assert str(found).endswith("they count half")


def test_noise_counts_nothing():
    draws, useful = np.random.default_rng(3), noisy(TRUTH, 0.3, 1)
    noise = [draws.standard_normal(36) for _ in range(20)]
    kept = [together(SPACE, useful, one) for one in noise]
    assert np.mean([not one.used for one in kept]) >= 0.75  # two signs, 5 % each
    assert all((one.scores == useful).all() for one in kept if not one.used)
    turned = [together(SPACE, one, useful) for one in noise]
    alone = [one for one in turned if one.used and not one.shared.found]
    assert len(alone) >= 12
    for one in alone:
        assert np.corrcoef(one.scores, useful)[0, 1] == pytest.approx(1)
        assert "they alone count" in str(one)


def test_what_contradicts_the_shared_weights_is_left_out():
    found = together(SPACE, TRUTH, -TRUTH)
    assert not found.used
    assert found.scores == pytest.approx(TRUTH)
    assert "they are noise" in str(found)


def test_constant_shared_scores_leave_the_own_ones():
    found = together(SPACE, np.full(36, 0.1), TRUTH)
    assert kendall_tau_b(found.scores, TRUTH) == pytest.approx(1)
    assert np.isfinite(found.scores).all()
