import numpy as np
import pytest
from scipy import stats

from poolwise.statistics import compare_paired, cost_words, kendall_tau_a, kendall_tau_b, sentence
from poolwise.statistics.verdict import level


def test_tau_against_scipy():
    generator = np.random.default_rng(0)
    x, y = generator.random(30), generator.random(30)
    assert kendall_tau_a(x, y) == pytest.approx(stats.kendalltau(x, y).statistic)
    assert kendall_tau_b(x, y) == pytest.approx(stats.kendalltau(x, y).statistic)
    assert kendall_tau_a([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / 3)
    assert kendall_tau_b([1, 1, 1], [1, 2, 3]) == 0


def test_paired_interval_equals_scipys():
    a, b = [0.90, 0.92, 0.915, 0.93], [0.89, 0.90, 0.91, 0.91]
    comparison = compare_paired(a, b)
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert comparison.interval == pytest.approx((100 * expected.low, 100 * expected.high))
    assert comparison.difference == pytest.approx(100 * (np.mean(a) - np.mean(b)))


@pytest.mark.parametrize(
    ("candidate", "default", "verdict"),
    [
        ([0.9, 0.91, 0.92], [0.8, 0.81, 0.82001], "better"),
        ([0.8, 0.81, 0.82], [0.9, 0.91, 0.92001], "worse"),
        ([0.9, 0.8, 0.7], [0.8, 0.81, 0.82], "not shown"),
        ([0.8000, 0.81001, 0.8199], [0.8, 0.81, 0.82], "no worse"),
        ([0.7995, 0.80951, 0.8195], [0.8, 0.81, 0.82], "no worse"),  # below 0, but within the margin
        ([0.99], [0.1], "not shown"),
        ([0.52, 0.54], [0.5, 0.52], "not shown"),
    ],
)
def test_verdicts(candidate, default, verdict):
    assert compare_paired(candidate, default, margin=0.2).verdict == verdict


def test_more_seeds_are_recommended_until_decided():
    better = compare_paired([0.9, 0.91, 0.92], [0.8, 0.81, 0.82001])
    assert better.decided
    assert better.more == 0
    open_ = compare_paired([0.82, 0.80, 0.825], [0.8, 0.81, 0.82])
    assert not open_.decided
    assert open_.more > 0
    n, half = 3 + open_.more, stats.t.ppf(0.975, 2 + open_.more) * open_.deviation
    assert open_.difference - half / n**0.5 > 0
    equal = compare_paired([0.8000, 0.81001, 0.8199], [0.8, 0.81, 0.82], margin=0.5)
    assert (equal.verdict, equal.decided) == ("no worse", True)
    assert compare_paired([0.8], [0.7]).more is None


def test_several_looks_use_a_wider_interval():
    assert level(5, 5) == 0.95
    assert 0.95 < level(3, 4) < level(3, 10) < level(2, 20) < 0.999
    a, b = [0.90, 0.92, 0.915], [0.89, 0.90, 0.91]
    one, many = compare_paired(a, b), compare_paired(a, b, looks=(3, 10))
    assert many.interval[0] < one.interval[0]
    assert many.confidence == level(3, 10)


def studied(gain, noise, looks, runs, seed):
    """Return verdicts of simulated runs that add seeds until decided; ``noise`` is the deviation between seeds in points."""
    generator, words = np.random.default_rng(seed), []
    for _ in range(runs):
        pairs = generator.normal(0, noise / 100, (2, looks[1])) + np.array([[0.9 + gain / 100], [0.9]])
        for n in range(looks[0], looks[1] + 1):
            comparison = compare_paired(pairs[0, :n], pairs[1, :n], 0.2, looks)
            if comparison.decided:
                break
        words.append(comparison.verdict)
    return words


@pytest.mark.slow
def test_equal_accuracies_are_rarely_called_better():
    generator = np.random.default_rng(1)
    pairs = generator.normal(0.9, 0.01, (2000, 2, 3))
    assert 20 <= sum(compare_paired(a, b).verdict == "better" for a, b in pairs) <= 80  # 2.5 % of 2000 is 50


@pytest.mark.slow
def test_equal_accuracies_are_rarely_called_better_when_seeds_are_added():
    words = studied(0.0, 1.0, (3, 10), 1000, seed=2)
    assert words.count("better") <= 50
    assert words.count("worse") <= 50
    assert studied(3.0, 1.0, (3, 10), 200, seed=3).count("better") > 160


def test_sentences_state_the_cost():
    text = sentence("5-3-2", "4-3-3", compare_paired([0.9, 0.91, 0.92], [0.8, 0.81, 0.82001]), 1.54)
    assert "3 paired seeds): better." in text
    assert "1.54 times the MACs of the default, so the gain has a cost" in text
    assert "cheaper" in cost_words(0.8)
    assert "one seed, which is no evidence" in sentence("5-3-2", "4-3-3", compare_paired([0.9], [0.8]), 1.0)
    open_ = sentence("5-3-2", "4-3-3", compare_paired([0.82, 0.80, 0.825], [0.8, 0.81, 0.82]), 1.0)
    assert "no difference shown" in open_
    assert "more seeds would decide it" in open_
