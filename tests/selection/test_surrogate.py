"""The surrogate: equality with scikit-learn's Gaussian process for fixed constants, and the weights of hints."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

from poolwise.selection.strategies.surrogate import _FLAT, DRAWS, Surrogate
from poolwise.spaces import PoolingSpace

SPACE = PoolingSpace(10, 2)
POSITIONS = np.array([pooling.positions for pooling in SPACE], float)
HINT = POSITIONS[:, 0] - POSITIONS[:, 0].mean()
TRAININGS = [(0, 61.0), (7, 63.5), (20, 66.0), (20, 65.4), (33, 62.2), (14, 64.0)]


def tell_all(surrogate, pairs=TRAININGS):
    for place, value in pairs:
        surrogate.tell(place, value)
    return surrogate


@pytest.mark.parametrize("h", [0, 17, DRAWS - 1])
def test_posterior_equals_scikit_learn_for_fixed_constants(h):
    surrogate = tell_all(Surrogate(POSITIONS, np.array([HINT])))
    independent, length = surrogate.independent_H[h], surrogate.length_H[h]
    kernel = ConstantKernel(_FLAT) + ConstantKernel(surrogate._scale_H[h]) * (
        ConstantKernel(1 - independent) * RBF(length) + ConstantKernel(independent) * RBF(1e-3)  # independent share
    )
    places, values = np.array(surrogate.places), np.array(surrogate.values)
    prior_P = surrogate.spread_H[h] * surrogate.trust_HJ[h, 0] * HINT / HINT.std()
    reference = GaussianProcessRegressor(kernel, alpha=surrogate.noise_H[h] ** 2, optimizer=None)
    reference.fit(POSITIONS[places], values - values.mean() - prior_P[places])
    mean_P, deviation_P = reference.predict(POSITIONS, return_std=True)
    posterior = surrogate.conditioned(np.array([h]), np.ones(1))
    assert posterior.mean_HP[0] == pytest.approx(mean_P + values.mean() + prior_P, abs=1e-4)
    assert np.sqrt(posterior.variance_HP[0]) == pytest.approx(deviation_P, abs=1e-3)
    log_H = surrogate._whitened(np.array([h]))[2]
    expected = reference.log_marginal_likelihood_value_ + 0.5 * len(TRAININGS) * np.log(2 * np.pi)
    assert log_H[0] == pytest.approx(expected, abs=1e-4)


def test_hint_weight_follows_the_trainings():
    generator = np.random.default_rng(0)
    other = generator.permutation(HINT)
    surrogate = Surrogate(POSITIONS, np.array([HINT, other]))
    before = surrogate.trust_HJ
    assert (before == 0).mean(0) == pytest.approx(0.4, abs=0.05)
    tell_all(surrogate, [(place, 60 + HINT[place]) for place in (0, 5, 9, 14, 20, 26, 30, 34)])
    right, wrong = surrogate.hints()
    assert right.weight > 3 * wrong.weight
    assert wrong.ignored > right.ignored


def test_tell_changes_the_posterior_and_without_last_restores_it():
    surrogate = tell_all(Surrogate(POSITIONS, np.empty((0, 36))))
    before = surrogate.mean_P.copy(), surrogate.deviation_P.copy()
    assert surrogate.deviation_P[20] < surrogate.deviation_P[5]
    chance_P = surrogate.better(20)
    assert chance_P[20] == 0
    assert ((chance_P >= 0) & (chance_P <= 1)).all()
    assert chance_P[0] < 0.1
    surrogate.tell(35, 90.0)
    assert surrogate.mean_P[35] > before[0][35] + 5
    surrogate.without_last()
    assert np.array_equal(surrogate.mean_P, before[0])
    assert np.array_equal(surrogate.deviation_P, before[1])
    best_P = surrogate.best(np.random.default_rng(0))
    assert best_P.sum() == pytest.approx(1)
    assert best_P[20] > best_P[0]


def test_left_out_predicts_each_training_from_the_others():
    surrogate = tell_all(Surrogate(POSITIONS, np.array([HINT])))
    mean_N, deviation_N = surrogate.left_out()
    for i in range(len(TRAININGS)):
        posterior = surrogate._posterior  # keep the weights of the constants given all trainings
        others = tell_all(Surrogate(POSITIONS, np.array([HINT])), TRAININGS[:i] + TRAININGS[i + 1 :])
        others = others.conditioned(posterior.picked, posterior.weight_H)
        centre = np.mean([value for j, (_, value) in enumerate(TRAININGS) if j != i]) - np.mean(surrogate.values)
        assert abs(mean_N[i] - posterior.weight_H @ others.mean_HP[:, TRAININGS[i][0]]) < 0.02 + abs(centre) * 0.02
    assert (deviation_N > surrogate.noise * 0.5).all()


def test_shorter_trainings_are_weighted_by_their_agreement():
    generator = np.random.default_rng(1)
    places = generator.permutation(36)[:12]
    agreeing, other = Surrogate(POSITIONS, np.empty((0, 36))), Surrogate(POSITIONS, np.empty((0, 36)))
    for place in places:
        full, reduced_part = HINT[place] + 0.5 * generator.standard_normal(2)
        agreeing.tell(int(place), 60 + full)
        agreeing.tell(int(place), 30 + reduced_part, reduced=True)
        other.tell(int(place), 60 + full)
        other.tell(int(place), 30 + 3 * generator.standard_normal(), reduced=True)
    assert agreeing.agreement > 0.75 > 0.65 > other.agreement
    left = next(place for place in range(36) if place not in places)
    before = agreeing.mean_P[left]
    agreeing.tell(left, 36.0, reduced=True)
    assert agreeing.mean_P[left] > before


def test_unreliable_hint_has_no_weight():
    noise = np.random.default_rng(3).permutation(HINT)
    single, both = (Surrogate(POSITIONS, np.array(hints)) for hints in ([HINT], [HINT, noise]))
    doubted = Surrogate(POSITIONS, np.array([HINT, noise]), [1.0, 0.0])
    for surrogate in (single, both, doubted):
        tell_all(surrogate)
    assert np.allclose(doubted.hints_JP[1], 0)
    assert abs(doubted.mean_P - single.mean_P).mean() < 0.5 * abs(both.mean_P - single.mean_P).mean()
