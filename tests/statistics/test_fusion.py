import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolwise import tables
from poolwise.models.cost import family_costs
from poolwise.spaces import PoolingSpace
from poolwise.statistics import fuse, kendall_tau_b, smooth
from synthetic import POSITIONS, SPACE, TRUTH, noisy


def mean_tau(make):
    return float(np.mean([kendall_tau_b(make(seed), TRUTH) for seed in range(20)]))


def test_two_that_agree_are_better_than_either():
    wrong_each = 0.8 * TRUTH.std() * (POSITIONS - POSITIONS.mean(0)) / POSITIONS.std(0)
    count = TRUTH + wrong_each[:, 0]

    def scores(seed):
        return noisy(TRUTH - wrong_each[:, 1], 0.3, seed)

    fused = mean_tau(lambda seed: fuse(SPACE, scores(seed), count).estimate)
    assert fused > max(mean_tau(scores), kendall_tau_b(count, TRUTH)) + 0.05


def shuffled(values, seed):
    return np.random.default_rng(seed).permutation(values)


@pytest.mark.parametrize("name", ["resnet20-cifar10-published"])
def test_what_is_useless_costs_little(name):
    table = tables.load(name)
    truth = np.array(table.column(table.truth))
    count = np.array([cost.productive for cost in family_costs("resnet20", None, 32, 10).values()], float)
    for column in ("supernets4_mean", "supernets8_mean"):
        scores = np.array(table.column(column))
        alone, counted = (kendall_tau_b(values, truth) for values in (scores, count))
        useless_scores = [fuse(table.space, shuffled(scores, seed), count).estimate for seed in range(20)]
        useless_count = [fuse(table.space, scores, shuffled(count, seed)).estimate for seed in range(20)]
        assert np.mean([kendall_tau_b(found, truth) for found in useless_scores]) >= counted - 0.05
        assert np.mean([kendall_tau_b(found, truth) for found in useless_count]) >= alone - 0.05


def test_scores_alone_are_smoothed():
    scores = noisy(TRUTH, 0.5, 1)
    found = fuse(SPACE, scores, None)
    assert (found.count, found.agreement) == (None, None)
    assert kendall_tau_b(found.estimate, TRUTH) >= kendall_tau_b(scores, TRUTH)


def test_halves_that_disagree_are_not_trusted():
    count = noisy(TRUTH, 0.3, 2)
    scores = noisy(TRUTH, 0.3, 3)
    trusted = fuse(SPACE, scores, count, np.stack([scores, scores]))
    doubted = fuse(SPACE, scores, count, np.stack([shuffled(scores, 1), shuffled(scores, 2)]))
    assert doubted.scores.reliability < 0.5 < trusted.scores.reliability
    assert doubted.scores.weight < trusted.scores.weight
    assert doubted.error > trusted.error


def test_trainings_decide_between_two_that_disagree():
    wrong = -TRUTH
    trials = {place: float(TRUTH[place]) for place in range(0, len(SPACE), 3)}
    undecided, decided = fuse(SPACE, TRUTH, wrong), fuse(SPACE, TRUTH, wrong, trials=trials)
    assert decided.count.validity < undecided.count.validity
    assert kendall_tau_b(decided.estimate, TRUTH) > max(kendall_tau_b(undecided.estimate, TRUTH), 0.8)


@settings(max_examples=50, deadline=None)
@given(st.integers(3, 12), st.integers(1, 3), st.integers(0, 10**6))
def test_whatever_comes_in_is_finite(layers, poolings, seed):
    space, generator = PoolingSpace(layers, min(poolings, layers - 1)), np.random.default_rng(seed)
    scores, count = generator.integers(0, 3, (2, len(space))).astype(float)
    found = fuse(space, scores, count, generator.random((2, len(space))))
    assert np.isfinite(found.estimate).all()
    assert 0 <= found.scores.validity <= 1
    assert 0 <= found.count.validity <= 1
    assert found.error >= 0


def test_chances_of_the_top_add_up():
    found = fuse(SPACE, noisy(TRUTH, 0.2, 4), TRUTH)
    chances = found.top(3)
    assert chances.sum() == pytest.approx(3)
    assert np.argmax(chances) == np.argmax(found.estimate)
    assert fuse(PoolingSpace(3, 2), [1.0], [2.0]).top(3).tolist() == [1.0]


def test_a_count_weighs_less_beside_scores_of_own_weights():
    scores, count = noisy(TRUTH, 0.5, 1), noisy(TRUTH, 1.0, 2)
    shared, own = fuse(SPACE, scores, count), fuse(SPACE, scores, count, own=True)
    assert own.scores.validity > shared.scores.validity
    assert own.count.weight / own.scores.weight < shared.count.weight / shared.scores.weight


def test_what_is_useless_costs_little_beside_own_weights_too():
    scores, count = noisy(TRUTH, 0.7, 3), noisy(TRUTH, 0.7, 4)
    alone, counted = kendall_tau_b(smooth(SPACE, scores).scores, TRUTH), kendall_tau_b(count, TRUTH)
    assert mean_tau(lambda seed: fuse(SPACE, shuffled(scores, seed), count, own=True).estimate) >= counted - 0.05
    assert mean_tau(lambda seed: fuse(SPACE, scores, shuffled(count, seed), own=True).estimate) >= alone - 0.05
