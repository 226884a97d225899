import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from poolwise.statistics import (
    beats_random,
    best_rank,
    bootstrap_interval,
    kendall_tau_a,
    kendall_tau_b,
    mean_interval,
    paired_test,
    regret,
    sparse_tau,
    spearman,
)

numbers = st.integers(-5, 5).map(float)
rankings = st.integers(2, 12).flatmap(
    lambda n: st.tuples(st.lists(numbers, min_size=n, max_size=n), st.lists(numbers, min_size=n, max_size=n))
)


@given(rankings)
def test_agreement_against_scipy(pair):
    x, y = pair
    defined = len(set(x)) > 1 and len(set(y)) > 1
    assert kendall_tau_b(x, y) == pytest.approx(stats.kendalltau(x, y).statistic if defined else 0)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic if defined else 0)
    assert sparse_tau(x, y, 0) == kendall_tau_b(x, y)
    for measure in (kendall_tau_a, kendall_tau_b, spearman):
        assert measure(x, y) == pytest.approx(measure(y, x))
        assert measure(x, np.negative(y)) == pytest.approx(-measure(x, y))
        assert -1 - 1e-12 <= measure(x, y) <= 1 + 1e-12


@given(rankings)
def test_measures_depend_only_on_the_order(pair):
    x, y = map(np.array, pair)
    for measure in (kendall_tau_a, kendall_tau_b, spearman):
        assert measure(np.exp(x), 3 * y + 1) == pytest.approx(measure(x, y))
    for k in range(1, len(x) + 1):
        assert regret(np.exp(x), y, k) == pytest.approx(regret(x, y, k))


def test_tau_b_of_many_configurations_equals_the_direct_sum():
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 30, (2, 1000))
    assert kendall_tau_b(x, y) == pytest.approx(sparse_tau(x, y, 0))


def test_sparse_tau_by_hand():
    truth = [90.0, 90.05, 91.0]
    assert sparse_tau([2, 1, 3], truth, 0.1) == pytest.approx(2 / np.sqrt(3 * 2))
    assert sparse_tau([2.0, 1.95, 3.0], truth, 0.1, 0.1) == 1.0
    assert sparse_tau([2, 1, 3], truth, 5) == 0.0


def by_trying(scores, value, k):
    """Return the mean of the best value in the top k over every order of ties."""
    best_values = [
        max(value[i] for i in sorted(order, key=lambda i: -scores[i])[:k])
        for order in itertools.permutations(range(len(scores)))
    ]
    return np.mean(best_values)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5).flatmap(
        lambda n: st.tuples(st.lists(numbers, min_size=n, max_size=n), st.lists(numbers, min_size=n, max_size=n))
    ),
    st.integers(1, 6),
)
def test_ties_are_averaged_over_all_orders(pair, k):
    scores, truth = pair
    assert regret(scores, truth, k) == pytest.approx(max(truth) - by_trying(scores, truth, k))
    ranks = [1 + sum(other > accuracy for other in truth) for accuracy in truth]
    assert best_rank(scores, truth, k) == pytest.approx(-by_trying(scores, [-r for r in ranks], k))


@given(rankings)
def test_regret_does_not_increase_with_more_picks(pair):
    scores, truth = pair
    regrets = [regret(scores, truth, k) for k in range(1, len(scores) + 1)]
    assert all(b <= a + 1e-9 for a, b in itertools.pairwise(regrets))
    assert regrets[-1] == pytest.approx(0)
    assert regret(truth, truth) == pytest.approx(0)
    assert best_rank(truth, truth) == pytest.approx(1)


def test_beats_random():
    truth = np.arange(10.0)
    assert beats_random(truth, truth, 3) == pytest.approx(0.9**3)
    assert beats_random(-truth, truth, 3) == 0
    assert beats_random(np.zeros(10), truth, 2) == pytest.approx(np.mean((np.arange(10) / 10) ** 2))
    assert beats_random([1, 0, 0], [5, 5, 4], 1) == pytest.approx(1 / 3)


def test_bootstrap_coverage_and_determinism():
    generator = np.random.default_rng(3)
    held, repeats = 0, 60
    for seed in range(repeats):
        x = generator.normal(size=40)
        y = 0.6 * x + 0.8 * generator.normal(size=40)
        low, high = bootstrap_interval({"r": spearman}, x, y, resamples=200, seed=seed)["r"]
        held += low <= 0.58 <= high
    assert held >= 0.85 * repeats
    again = [bootstrap_interval({"tau": kendall_tau_b}, x, y, resamples=50, seed=1) for _ in range(2)]
    assert again[0] == again[1]


def test_intervals_of_means():
    assert mean_interval([0.3]) is None
    assert mean_interval([0.3, 0.3]) == (0.3, 0.3)
    low, high = mean_interval([0.1, 0.2, 0.3, 0.4], seed=1)
    assert 0.1 <= low < 0.25 < high <= 0.4
    assert (low, high) == mean_interval([0.1, 0.2, 0.3, 0.4], seed=1)


def test_paired_tests():
    state = np.random.get_state()[1].copy()
    first, second = [0.5, 0.6, 0.7, 0.65, 0.72], [0.4, 0.45, 0.6, 0.6, 0.6]
    paired = paired_test(first, second)
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert paired.interval == pytest.approx((expected.low, expected.high))
    assert paired.permutation == pytest.approx(2 / 2**5)
    assert paired.wilcoxon == pytest.approx(2 / 2**5)
    same = paired_test(first, first)
    assert (same.difference, same.permutation, same.wilcoxon) == (0, 1, None)
    assert paired_test([1.0], [0.5]).interval is None
    long = paired_test(np.arange(20) + 1.0, np.arange(20.0))
    assert long.permutation < 0.001
    assert np.array_equal(state, np.random.get_state()[1])


def test_permutation_test_keeps_its_level():
    generator = np.random.default_rng(5)
    p_values = [paired_test(*generator.normal(size=(2, 6))).permutation for _ in range(300)]
    assert 0.01 <= np.mean(np.array(p_values) <= 0.05) <= 0.1
