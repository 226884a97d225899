import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from poolwise.supernets import assignment as soft


def balanced(*arguments):
    return soft.balance(*arguments).probabilities_RM


@st.composite
def scores(draw):
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 8)))
    return draw(arrays(np.float64, shape, elements=st.floats(0, 1)))


temperatures = st.sampled_from([0.0, 0.5, 1.0, 10.0, 100.0, 300.0])


@settings(max_examples=300, deadline=None)
@given(scores(), temperatures)
def test_rows_sum_to_one_and_columns_are_balanced(scores_PM, temperature):
    assignment_PM = balanced(scores_PM, temperature)
    assert np.allclose(assignment_PM.sum(axis=1), 1, atol=1e-12)
    assert soft.imbalance(assignment_PM) <= soft.TOLERANCE
    assert np.allclose(assignment_PM.mean(axis=0), 1 / scores_PM.shape[1], atol=1e-4)


@settings(deadline=None)
@given(scores(), temperatures, st.randoms(use_true_random=False))
def test_permuting_supernets_permutes_columns(scores_PM, temperature, random):
    order = list(range(scores_PM.shape[1]))
    random.shuffle(order)
    expected = balanced(scores_PM, temperature)[:, order]
    assert np.allclose(balanced(scores_PM[:, order], temperature), expected, atol=2e-3)


@settings(deadline=None)
@given(scores(), st.floats(-1, 1), st.sampled_from([1.0, 30.0]))
def test_a_constant_added_to_a_row_changes_nothing(scores_PM, constant, temperature):
    shifted_PM = scores_PM.copy()
    shifted_PM[0] += constant
    assert np.allclose(balanced(shifted_PM, temperature), balanced(scores_PM, temperature), atol=1e-3)


@given(scores())
def test_zero_temperature_is_uniform(scores_PM):
    assert np.allclose(balanced(scores_PM, 0), 1 / scores_PM.shape[1], atol=1e-15)


@given(scores(), temperatures)
@settings(deadline=None)
def test_equal_inputs_give_equal_outputs(scores_PM, temperature):
    assert np.array_equal(balanced(scores_PM, temperature), balanced(scores_PM.copy(), temperature))


@pytest.mark.parametrize("configurations", [1, 2, 7, 35, 36, 560])
@pytest.mark.parametrize("supernets", [2, 3, 4, 8])
def test_converges_at_high_temperature_with_scores_one_float_apart(configurations, supernets, monkeypatch):
    rounds = []
    original = soft.softmax
    monkeypatch.setattr(soft, "softmax", lambda logits: rounds.append(1) or original(logits))
    scores_PM = np.full((configurations, supernets), 0.5)
    scores_PM[::2, 0] = np.nextafter(0.5, 1)
    assert soft.imbalance(balanced(scores_PM, 300)) <= soft.TOLERANCE
    hard_PM = np.random.default_rng(configurations).random((configurations, supernets))
    hard_PM[:, 0] += 0.5  # one SuperNet is better at everything
    assert soft.imbalance(balanced(hard_PM, 300)) <= soft.TOLERANCE
    assert len(rounds) <= 400


def test_agrees_with_plain_sinkhorn():
    scores_PM = np.random.default_rng(0).random((36, 4))
    logits_PM, v_M = 20 * scores_PM, np.zeros(4)
    for _ in range(20_000):
        v_M -= np.log(4 * soft.softmax(logits_PM + v_M).mean(axis=0))
    assert np.allclose(balanced(scores_PM, 20), soft.softmax(logits_PM + v_M), atol=1e-4)


def test_schedules_and_averages():
    assert [soft.temperature_at(step, 11, 1, 100) for step in (0, 5, 10, 50)] == [1, 50.5, 100, 100]
    assert soft.temperature_at(0, 1, 1, 100) == 1
    assert soft.moving_average(1.0, 0.5) == pytest.approx(0.95)
    assert soft.entropy(np.full((3, 4), 0.25)) == pytest.approx(np.log(4))
    assert soft.entropy(np.eye(4)) == 0
    assert soft.imbalance(np.array([[1.0, 0.0], [1.0, 0.0]])) == pytest.approx(np.log(2))


@settings(deadline=None)
@given(scores(), temperatures, st.data())
def test_weights_equal_repeated_rows(scores_RM, temperature, data):
    repeats_R = data.draw(st.lists(st.integers(1, 5), min_size=len(scores_RM), max_size=len(scores_RM)))
    weighted_RM = balanced(scores_RM, temperature, np.array(repeats_R, np.float64))
    repeated_PM = balanced(np.repeat(scores_RM, repeats_R, axis=0), temperature)
    assert np.allclose(np.repeat(weighted_RM, repeats_R, axis=0), repeated_PM, atol=1e-8)
    assert soft.imbalance(weighted_RM, repeats_R) == pytest.approx(soft.imbalance(repeated_PM), abs=1e-12)
    assert soft.imbalance(weighted_RM, repeats_R) <= soft.TOLERANCE
    assert soft.entropy(weighted_RM, repeats_R) == pytest.approx(soft.entropy(repeated_PM), abs=1e-8)


@settings(deadline=None)
@given(scores(), temperatures)
def test_a_row_of_weight_zero_changes_nothing(scores_RM, temperature):
    more_RM = np.vstack([np.ones((1, scores_RM.shape[1])), scores_RM])
    weights_R = np.array([0.0] + [1.0] * len(scores_RM))
    assert np.allclose(balanced(more_RM, temperature, weights_R)[1:], balanced(scores_RM, temperature), atol=1e-8)


@settings(max_examples=300, deadline=None)
@given(scores(), temperatures, st.integers(0, 2**32 - 1), st.sampled_from([0.01, 1.0, 50.0]))
def test_result_does_not_depend_on_initial_potentials(scores_RM, temperature, seed, how_far):
    cold_M = soft.balance(scores_RM, temperature).potentials_M
    start_M = cold_M + how_far * np.random.default_rng(seed).normal(size=len(cold_M))
    warm_RM = soft.balance(scores_RM, temperature, start_M=start_M).probabilities_RM
    assert soft.imbalance(warm_RM) <= soft.TOLERANCE
    assert np.allclose(warm_RM, soft.softmax(temperature * scores_RM + cold_M), atol=2e-3)


def test_one_row_for_a_million_configurations():
    scores_RM = np.vstack([np.ones((1, 4)), np.random.default_rng(0).random((50, 4))])
    weights_R = np.array([1e6] + [1.0] * 50)
    assignment_RM = balanced(scores_RM, 300, weights_R)
    assert soft.imbalance(assignment_RM, weights_R) <= soft.TOLERANCE
    assert np.allclose(assignment_RM[0], 0.25, atol=1e-4)


def test_warm_start_balances_every_step_of_a_search(monkeypatch):
    """One score of 36 x 4 changes a step while T rises to 300, as in a search."""
    generator, scores_RM, potentials_M, warm = np.random.default_rng(0), np.ones((36, 4)), np.zeros(4), []
    original = soft._warm
    monkeypatch.setattr(soft, "_warm", lambda *arguments: warm.append(original(*arguments)) or warm[-1])
    for step in range(1000):
        temperature = soft.temperature_at(step, 1000, 1, 300)
        assignment_RM, potentials_M = soft.balance(scores_RM, temperature, start_M=potentials_M)
        assert soft.imbalance(assignment_RM) <= soft.TOLERANCE
        a, m = generator.integers(36), generator.integers(4)
        scores_RM[a, m] = soft.moving_average(scores_RM[a, m], generator.random())
    assert len(warm) == 1000
    assert sum(warm_M is None for warm_M in warm) < 20
