"""Fixed shares of scores, proxy trainings and the count: their gain, the cost of noise, and parts without a share."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolwise import tables
from poolwise.models.cost import family_costs
from poolwise.rankings.combine import combine, signal, with_proxy_trainings
from poolwise.rankings.smoothing import smooth
from poolwise.spaces import PoolingSpace
from poolwise.statistics import kendall_tau_b
from synthetic import POSITIONS, SPACE, TRUTH, noisy


def mean_tau(make):
    return float(np.mean([kendall_tau_b(make(seed), TRUTH) for seed in range(20)]))


def tau(scores):
    return kendall_tau_b(smooth(SPACE, scores).scores, TRUTH)


def shuffled(values, seed):
    return np.random.default_rng(seed).permutation(values)


def standard(values):
    return (values - values.mean()) / values.std()


# tests of whether scores are more than noise


def test_noise_is_significant_in_5_percent():
    draws = np.random.default_rng(1)
    signals = [signal(SPACE, draws.standard_normal(36), draws.standard_normal(36)) for _ in range(150)]
    assert 0.01 < np.mean([one.agreement > one.chance for one in signals]) < 0.10  # 5 %, each
    assert 0.01 < np.mean([one.reliability > one.noise for one in signals]) < 0.10
    assert signals[0].chance == pytest.approx(np.tanh(1.6449 / np.sqrt(33)), abs=1e-4)


def test_either_test_is_sufficient():
    draws = np.random.default_rng(2)
    rough = draws.standard_normal(36)
    agreeing = signal(SPACE, rough + 0.5 * draws.standard_normal(36), rough)
    assert agreeing.agreement > agreeing.chance
    assert agreeing.reliability <= agreeing.noise
    assert agreeing.significant
    places = np.arange(36.0)  # the space is in order, so neighbors are alike
    centred = places - places.mean()
    other = rough - centred * (rough @ centred) / (centred @ centred)  # uncorrelated with places
    apart = signal(SPACE, places, other + 0.01 * places)
    assert 0 < apart.agreement < apart.chance
    assert apart.reliability > 0.8
    assert apart.significant
    assert signal(SPACE, places, other - 0.01 * places).significant  # negative, but within chance


def test_scores_that_contradict_the_others_are_not_significant():
    places = np.arange(36.0)
    against = signal(SPACE, places, -places)
    assert against.reliability > against.noise
    assert against.contradicts
    assert not against.significant
    assert "have correlation -1.00 with accuracy on shared weights" in str(against)


def test_constant_scores_are_not_significant():
    assert not signal(SPACE, np.ones(36), np.arange(36.0)).significant


# scores and the count


def test_estimate_is_two_thirds_scores_and_one_third_count():
    scores, count = noisy(TRUTH, 0.3, 1), noisy(TRUTH, 0.3, 2)
    estimate = combine(SPACE, scores, count)
    assert estimate.shares == {"scores": pytest.approx(2 / 3), "productive": pytest.approx(1 / 3)}
    expected = smooth(SPACE, 2 / 3 * standard(scores) + 1 / 3 * standard(count)).scores
    assert estimate.estimate_P == pytest.approx(scores.mean() + scores.std() * expected)
    assert estimate.smoothed_P == pytest.approx(smooth(SPACE, scores).scores)
    again = combine(SPACE, scores / 50 + 0.3, 7 * count - 4)
    assert 50 * (again.estimate_P - 0.3) == pytest.approx(estimate.estimate_P), "units do not matter"
    assert again.error == pytest.approx(estimate.error / 50)


def test_scores_and_count_are_better_than_either():
    wrong_each = 0.8 * TRUTH.std() * (POSITIONS - POSITIONS.mean(0)) / POSITIONS.std(0)
    count = TRUTH + wrong_each[:, 0]

    def scores(seed):
        return noisy(TRUTH - 0.6 * wrong_each[:, 1], 0.2, seed)

    combined = mean_tau(lambda seed: combine(SPACE, scores(seed), count).estimate_P)
    assert combined > max(mean_tau(scores), kendall_tau_b(count, TRUTH)) + 0.05


def test_a_useless_part_costs_little():
    table = tables.load("resnet20-cifar10-published")
    truth = np.array(table.column(table.truth))
    count = np.array([cost.productive for cost in family_costs("resnet20", None, 32, 10).values()], float)
    for column in ("supernets4_mean", "supernets8_mean"):
        scores = np.array(table.column(column))
        scores_tau, count_tau = (kendall_tau_b(values, truth) for values in (scores, count))
        useless_scores = [combine(table.space, shuffled(scores, seed), count) for seed in range(20)]
        useless_count = [combine(table.space, scores, shuffled(count, seed)) for seed in range(20)]
        assert np.mean([estimate.shares == {"productive": 1.0} for estimate in useless_scores]) >= 0.6
        assert np.mean([estimate.shares == {"scores": 1.0} for estimate in useless_count]) >= 0.8
        assert np.mean([kendall_tau_b(estimate.estimate_P, truth) for estimate in useless_scores]) >= count_tau - 0.08
        assert np.mean([kendall_tau_b(estimate.estimate_P, truth) for estimate in useless_count]) >= scores_tau - 0.05


def test_scores_without_a_count_are_unchanged():
    scores = noisy(TRUTH, 0.5, 1)
    estimate = combine(SPACE, scores)
    assert (estimate.count_reliability, estimate.agreement, estimate.shares) == (None, None, {"scores": 1.0})
    assert (estimate.estimate_P == scores).all()
    assert kendall_tau_b(estimate.smoothed_P, TRUTH) >= kendall_tau_b(scores, TRUTH)


def test_halves_that_disagree_are_not_trusted():
    scores = noisy(TRUTH, 0.3, 3)
    trusted = combine(SPACE, scores, halves_2P=np.stack([scores, scores]))
    doubted = combine(SPACE, scores, halves_2P=np.stack([shuffled(scores, 1), shuffled(scores, 2)]))
    assert doubted.reliability < 0.5 < trusted.reliability
    assert doubted.error > trusted.error


def test_error_is_the_prediction_error_of_neighbors():
    scores = noisy(TRUTH, 0.3, 3)
    estimate = combine(SPACE, scores)
    assert estimate.error == pytest.approx(min(smooth(SPACE, scores).errors.values()) ** 0.5)
    assert combine(SPACE, TRUTH).error < estimate.error
    assert combine(SPACE, np.full(36, 0.4)).error == 0


def test_a_count_that_contradicts_the_scores_has_no_share():
    estimate = combine(SPACE, TRUTH, -TRUTH)
    assert estimate.shares == {"scores": 1.0}
    assert estimate.agreement < -0.9


def test_trainings_decide_between_contradicting_parts():
    trained = {place: float(TRUTH[place]) for place in range(0, len(SPACE), 3)}
    for right, other in ((TRUTH, -TRUTH), (noisy(TRUTH, 0.1, 1), noisy(-TRUTH, 0.1, 2))):
        assert combine(SPACE, right, other, trained=trained).shares == {"scores": 1.0}
        decided = combine(SPACE, other, right, trained=trained)
        assert decided.shares == {"productive": 1.0}
        assert combine(SPACE, other, right).shares == {"scores": 1.0}
        assert kendall_tau_b(decided.estimate_P, TRUTH) > 0.8


@settings(max_examples=50, deadline=None)
@given(st.integers(3, 12), st.integers(1, 3), st.integers(0, 10**6))
def test_estimates_of_arbitrary_scores_are_finite(layers, poolings, seed):
    space, generator = PoolingSpace(layers, min(poolings, layers - 1)), np.random.default_rng(seed)
    scores, count = generator.integers(0, 3, (2, len(space))).astype(float)
    estimate = combine(space, scores, count, halves_2P=generator.random((2, len(space))))
    assert np.isfinite(estimate.estimate_P).all()
    assert 0 <= estimate.reliability <= 1
    assert 0 <= estimate.count_reliability <= 1
    assert 0 <= estimate.error <= max(np.std(scores), 1)
    assert sum(estimate.shares.values()) == pytest.approx(1)


def test_top_probabilities_add_up():
    estimate = combine(SPACE, noisy(TRUTH, 0.2, 4), TRUTH)
    chances = estimate.top(3)
    assert chances.sum() == pytest.approx(3)
    assert np.argmax(chances) == np.argmax(estimate.estimate_P)
    assert combine(PoolingSpace(3, 2), [1.0], [2.0]).top(3).tolist() == [1.0]


def test_ties_are_groups_without_a_clear_leader():
    estimate = combine(SPACE, noisy(TRUTH, 0.2, 4), TRUTH)
    groups, edge = estimate.ties(), 1.2816 * 2**0.5 * estimate.error
    assert groups[np.argmax(estimate.estimate_P)] == 1
    assert set(groups) == set(range(1, groups.max() + 1))
    for group in range(1, groups.max() + 1):
        group_P = estimate.estimate_P[groups == group]
        assert group_P.max() - group_P.min() <= edge * (1 + 1e-4)
        if group > 1:
            assert estimate.estimate_P[groups == group - 1].max() - group_P.max() > edge * (1 - 1e-4)


# shared weights and proxy trainings


def test_shared_weights_and_proxy_trainings_are_better_than_either():
    """Errors of shared weights are smooth; errors of proxy trainings are noise."""
    taus = []
    for seed in range(12):
        bias = smooth(SPACE, np.random.default_rng(seed).normal(size=len(SPACE)), [2.0]).scores
        shared = TRUTH + 0.6 * TRUTH.std() * (bias - bias.mean()) / bias.std()
        proxy = noisy(TRUTH, 1.5, 100 + seed)
        taus.append([tau(shared), tau(proxy), tau(with_proxy_trainings(SPACE, shared, proxy).scores_P)])
    shared, proxy, both = np.mean(taus, axis=0)
    assert both > max(shared, proxy) + 0.04


def test_shares_do_not_depend_on_units():
    shared, proxy = noisy(TRUTH, 0.3, 1), noisy(TRUTH, 0.3, 2)
    both = with_proxy_trainings(SPACE, shared, proxy)
    assert both.used
    parts = [standard(part) for part in (shared, proxy)]
    assert both.scores_P == pytest.approx(shared.mean() + shared.std() * (parts[0] + parts[1]) / 2)
    again = with_proxy_trainings(SPACE, shared / 50 + 0.3, 7 * proxy - 4)
    assert 50 * (again.scores_P - 0.3) == pytest.approx(both.scores_P)
    assert str(both).endswith("proxy trainings have a share of one half")


def test_noise_has_no_share():
    draws, useful = np.random.default_rng(3), noisy(TRUTH, 0.3, 1)
    noise = [draws.standard_normal(36) for _ in range(20)]
    kept = [with_proxy_trainings(SPACE, useful, one) for one in noise]
    assert np.mean([not one.used for one in kept]) >= 0.75  # two tests, 5 % each
    assert all((one.scores_P == useful).all() for one in kept if not one.used)
    turned = [with_proxy_trainings(SPACE, one, useful) for one in noise]
    proxy_only = [one for one in turned if one.used and not one.shared.significant]
    assert len(proxy_only) >= 12
    for one in proxy_only:
        assert np.corrcoef(one.scores_P, useful)[0, 1] == pytest.approx(1)
        assert "shared weights are noise" in str(one)


def test_proxy_trainings_that_contradict_the_shared_weights_have_no_share():
    both = with_proxy_trainings(SPACE, TRUTH, -TRUTH)
    assert not both.used
    assert both.scores_P == pytest.approx(TRUTH)
    assert "proxy trainings are noise" in str(both)


def test_constant_shared_scores_leave_the_proxy_trainings():
    both = with_proxy_trainings(SPACE, np.full(36, 0.1), TRUTH)
    assert kendall_tau_b(both.scores_P, TRUTH) == pytest.approx(1)
    assert np.isfinite(both.scores_P).all()


def parts(seed):
    """Shared weights with a smooth error, proxy trainings with noise, and a count with another smooth error."""
    first, second = (standard(POSITIONS[:, i]) for i in (0, 1))
    shared = noisy(TRUTH - TRUTH.std() * second, 0.2, seed)
    return shared, noisy(TRUTH, 1.0, 100 + seed), TRUTH + TRUTH.std() * first


def test_proxy_trainings_have_half_the_share_with_a_count():
    shared, proxy, count = parts(1)
    both = with_proxy_trainings(SPACE, shared, proxy)
    estimate = combine(SPACE, both, count)
    assert estimate.shares == {"short": 0.5, "shared": 0.25, "productive": 0.25}
    z = [standard(part) for part in (proxy, shared, count)]
    expected = smooth(SPACE, 0.5 * z[0] + 0.25 * z[1] + 0.25 * z[2]).scores
    assert estimate.estimate_P == pytest.approx(shared.mean() + shared.std() * expected)
    assert estimate.smoothed_P == pytest.approx(smooth(SPACE, both.scores_P).scores)
    without = combine(SPACE, both)
    assert without.shares == {"short": 0.5, "shared": 0.5}
    assert (without.estimate_P == estimate.smoothed_P).all(), "without the count the estimate is the smoothed score"


def test_shared_weights_that_are_noise_leave_their_share_to_the_count():
    _, proxy, count = parts(1)
    draws = np.random.default_rng(8)
    combined = [with_proxy_trainings(SPACE, draws.standard_normal(36), proxy) for _ in range(6)]
    noise = next(one for one in combined if one.used and not one.shared.significant)
    assert combine(SPACE, noise, count).shares == {"short": 0.5, "productive": 0.5}
    assert combine(SPACE, noise).shares == {"short": 1.0}


def test_all_parts_are_better_than_those_without_the_count():
    taus = []
    for seed in range(12):
        shared, proxy, count = parts(seed)
        both = with_proxy_trainings(SPACE, shared, proxy)
        taus.append([tau(both.scores_P), kendall_tau_b(combine(SPACE, both, count).estimate_P, TRUTH)])
    without, combined = np.mean(taus, axis=0)
    assert combined > without + 0.03


def test_a_useless_count_or_useless_scores_have_no_share():
    shared, proxy, count = parts(2)
    both, draws = with_proxy_trainings(SPACE, shared, proxy), np.random.default_rng(4)
    orders = [draws.permutation(36) for _ in range(40)]
    useless_count = [combine(SPACE, both, count[order]) for order in orders]
    assert np.mean(["productive" not in estimate.shares for estimate in useless_count]) >= 0.8
    assert (
        np.mean([kendall_tau_b(estimate.estimate_P, TRUTH) for estimate in useless_count]) >= tau(both.scores_P) - 0.05
    )
    useless_scores = [with_proxy_trainings(SPACE, shared[order], proxy[order]) for order in orders]
    doubted = [combine(SPACE, one, count) for one in useless_scores]
    assert np.mean([estimate.shares == {"productive": 1.0} for estimate in doubted]) >= 0.7
    assert np.mean([kendall_tau_b(one.estimate_P, TRUTH) for one in doubted]) >= kendall_tau_b(count, TRUTH) - 0.1


def test_proxy_trainings_that_are_noise_have_no_share():
    shared, _, count = parts(3)
    noise = next(
        both
        for seed in range(20)
        if not (both := with_proxy_trainings(SPACE, shared, np.random.default_rng(seed).normal(size=36))).used
    )
    with_noise, without = combine(SPACE, noise, count), combine(SPACE, shared, count)
    assert with_noise.shares == without.shares
    assert (with_noise.estimate_P == without.estimate_P).all()


def test_a_count_that_trainings_contradict_has_no_share():
    shared, proxy, _ = parts(4)
    count = noisy(TRUTH, 0.5, 5)
    both, some = with_proxy_trainings(SPACE, shared, proxy), range(0, 36, 3)
    agreeing = {a: float(TRUTH[a]) for a in some}
    contradicting = {a: float(TRUTH[a] - 3 * count[a]) for a in some}
    assert combine(SPACE, both, count, trained=agreeing).shares["productive"] == 0.25
    estimate = combine(SPACE, both, count, trained=contradicting)
    assert "productive" not in estimate.shares
    assert (estimate.estimate_P == combine(SPACE, both).estimate_P).all()
