import numpy as np
import pytest
from scipy import stats

from poolwise.metrics import compare_paired, cost_words, kendall_tau_a, kendall_tau_b, sentence


def test_tau_against_scipy():
    generator = np.random.default_rng(0)
    x, y = generator.random(30), generator.random(30)
    assert kendall_tau_a(x, y) == pytest.approx(stats.kendalltau(x, y).statistic)
    assert kendall_tau_b(x, y) == pytest.approx(stats.kendalltau(x, y).statistic)
    assert kendall_tau_a([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / 3)
    assert kendall_tau_b([1, 1, 1], [1, 2, 3]) == 0


def test_paired_interval_equals_scipys():
    a, b = [0.90, 0.92, 0.915, 0.93], [0.89, 0.90, 0.91, 0.91]
    found = compare_paired(a, b)
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert found.interval == pytest.approx((100 * expected.low, 100 * expected.high))
    assert found.difference == pytest.approx(100 * (np.mean(a) - np.mean(b)))


@pytest.mark.parametrize(
    ("candidate", "default", "verdict"),
    [
        ([0.9, 0.91, 0.92], [0.8, 0.81, 0.82001], "gain"),
        ([0.8, 0.81, 0.82], [0.9, 0.91, 0.92001], "loss"),
        ([0.9, 0.8, 0.7], [0.8, 0.81, 0.82], "no gain shown"),
        ([0.99], [0.1], "no gain shown"),
        ([0.52, 0.54], [0.5, 0.52], "no gain shown"),
    ],
)
def test_verdicts(candidate, default, verdict):
    assert compare_paired(candidate, default).verdict == verdict


def test_equal_accuracies_are_seldom_called_a_gain():
    generator = np.random.default_rng(1)
    pairs = generator.normal(0.9, 0.01, (2000, 2, 3))
    gains = sum(compare_paired(a, b).verdict == "gain" for a, b in pairs)
    assert 20 <= gains <= 80  # 2.5 % of 2000 is 50


def test_sentences_tell_the_cost():
    told = sentence("5-3-2", "4-3-3", compare_paired([0.9, 0.91, 0.92], [0.8, 0.81, 0.82001]), 1.54)
    assert "a gain" in told
    assert "1.54 times the default's MACs, and the cost grew with it" in told
    assert "cheaper" in cost_words(0.8)
    assert "one seed, which shows nothing" in sentence("5-3-2", "4-3-3", compare_paired([0.9], [0.8]), 1.0)
