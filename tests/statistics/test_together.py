"""Shared weights and short trainings as one score."""

import numpy as np
import pytest

from poolwise.statistics import fuse, fuse_parts, kendall_tau_b, smooth, together
from synthetic import POSITIONS, SPACE, TRUTH, noisy


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


def parts(seed):
    """Shared weights with a smooth error, short trainings with noise, and a count with another smooth error."""
    first, second = ((POSITIONS[:, i] - POSITIONS[:, i].mean()) / POSITIONS[:, i].std() for i in (0, 1))
    shared = noisy(TRUTH - TRUTH.std() * second, 0.2, seed)
    return shared, noisy(TRUTH, 1.0, 100 + seed), TRUTH + TRUTH.std() * first


def test_with_the_count_half_the_say_is_of_short_trainings():
    shared, own, count = parts(1)
    found = fuse_parts(SPACE, together(SPACE, shared, own), count)
    assert found.shares == {"short": 0.5, "shared": 0.25, "productive": 0.25}
    standard = [(part - part.mean()) / part.std() for part in (own, shared, count)]
    whole = smooth(SPACE, 0.5 * standard[0] + 0.25 * standard[1] + 0.25 * standard[2]).scores
    assert np.corrcoef(found.estimate, whole)[0, 1] == pytest.approx(1)
    assert found.count.weight == pytest.approx(found.scores.weight / 3)
    assert found.smoothed == pytest.approx(smooth(SPACE, together(SPACE, shared, own).scores).scores)


def test_all_parts_are_better_than_those_without_the_count():
    told = []
    for seed in range(12):
        shared, own, count = parts(seed)
        both = together(SPACE, shared, own)
        told.append([tau(both.scores), kendall_tau_b(fuse_parts(SPACE, both, count).estimate, TRUTH)])
    without, whole = np.mean(told, axis=0)
    assert whole > without + 0.03


def test_a_useless_count_or_useless_scores_have_no_set_share():
    shared, own, count = parts(2)
    both, draws = together(SPACE, shared, own), np.random.default_rng(4)
    orders = [draws.permutation(36) for _ in range(40)]
    useless_count = [fuse_parts(SPACE, both, count[order]) for order in orders]
    assert np.mean([found.shares is None for found in useless_count]) >= 0.8
    useless_scores = [together(SPACE, shared[order], own[order]) for order in orders]
    doubted = [fuse_parts(SPACE, one, count) for one in useless_scores if one.used]
    assert len(doubted) >= 5
    assert np.mean([found.shares is None for found in doubted]) >= 0.8
    for found, alone in ((useless_count, tau(both.scores)), (doubted, kendall_tau_b(count, TRUTH))):
        assert np.mean([kendall_tau_b(one.estimate, TRUTH) for one in found]) >= alone - 0.05


def test_short_trainings_that_are_noise_have_no_say():
    shared, _, count = parts(3)
    noise = next(
        both
        for seed in range(20)
        if not (both := together(SPACE, shared, np.random.default_rng(seed).normal(size=36))).used
    )
    found = fuse_parts(SPACE, noise, count)
    assert found.shares is None
    assert (found.estimate == fuse(SPACE, shared, count).estimate).all()


def test_trainings_that_contradict_the_count_take_its_share():
    shared, own, _ = parts(4)
    count = noisy(TRUTH, 0.5, 5)
    both, some = together(SPACE, shared, own), range(0, 36, 3)
    agreeing, contradicting = ({a: sign * float(TRUTH[a]) for a in some} for sign in (1, -1))
    assert fuse_parts(SPACE, both, count, agreeing).shares
    found = fuse_parts(SPACE, both, count, contradicting)
    assert found.shares is None
    assert (found.estimate == fuse(SPACE, both.scores, count, trials=contradicting, own=True).estimate).all()
    assert fuse_parts(SPACE, both, count, agreeing).error < fuse_parts(SPACE, both, count).error
