"""The surrogate against scikit-learn's Gaussian process, one set of constants at a time, and what it learns of hints."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

from poolwise.selection.strategies.surrogate import _FLAT, DRAWS, Surrogate
from poolwise.spaces import PoolingSpace

SPACE = PoolingSpace(10, 2)
POSITIONS = np.array([pooling.positions for pooling in SPACE], float)
HINT = POSITIONS[:, 0] - POSITIONS[:, 0].mean()
TOLD = [(0, 61.0), (7, 63.5), (20, 66.0), (20, 65.4), (33, 62.2), (14, 64.0)]


def told(surrogate, pairs=TOLD):
    for place, value in pairs:
        surrogate.tell(place, value)
    return surrogate


@pytest.mark.parametrize("h", [0, 17, DRAWS - 1])
def test_given_the_constants_it_is_scikit_learns(h):
    surrogate = told(Surrogate(POSITIONS, np.array([HINT])))
    own, length = surrogate.own_H[h], surrogate.length_H[h]
    kernel = ConstantKernel(_FLAT) + ConstantKernel(surrogate._scale_H[h]) * (
        ConstantKernel(1 - own) * RBF(length) + ConstantKernel(own) * RBF(1e-3)  # a share of each configuration alone
    )
    places, values = np.array(surrogate.places), np.array(surrogate.values)
    prior_P = surrogate.spread_H[h] * surrogate.trust_HJ[h, 0] * HINT / HINT.std()
    reference = GaussianProcessRegressor(kernel, alpha=surrogate.noise_H[h] ** 2, optimizer=None)
    reference.fit(POSITIONS[places], values - values.mean() - prior_P[places])
    mean_P, deviation_P = reference.predict(POSITIONS, return_std=True)
    found = surrogate.conditioned(np.array([h]), np.ones(1))
    assert found.mean_HP[0] == pytest.approx(mean_P + values.mean() + prior_P, abs=1e-4)
    assert np.sqrt(found.variance_HP[0]) == pytest.approx(deviation_P, abs=1e-3)
    log_H = surrogate._whitened(np.array([h]))[2]
    expected = reference.log_marginal_likelihood_value_ + 0.5 * len(TOLD) * np.log(2 * np.pi)
    assert log_H[0] == pytest.approx(expected, abs=1e-4)


def test_a_hint_is_trusted_as_far_as_trainings_bear_it_out():
    generator = np.random.default_rng(0)
    other = generator.permutation(HINT)
    surrogate = Surrogate(POSITIONS, np.array([HINT, other]))
    before = surrogate.trust_HJ
    assert (before == 0).mean(0) == pytest.approx(0.4, abs=0.05)
    told(surrogate, [(place, 60 + HINT[place]) for place in (0, 5, 9, 14, 20, 26, 30, 34)])
    right, wrong = surrogate.hints()
    assert right.weight > 3 * wrong.weight
    assert wrong.ignored > right.ignored


def test_what_is_told_is_believed_and_can_be_taken_back():
    surrogate = told(Surrogate(POSITIONS, np.empty((0, 36))))
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


def test_each_training_is_foretold_from_the_others():
    surrogate = told(Surrogate(POSITIONS, np.array([HINT])))
    mean_N, deviation_N = surrogate.left_out()
    for i in range(len(TOLD)):
        whole = surrogate._told  # the constants keep the weights that all trainings gave them
        others = told(Surrogate(POSITIONS, np.array([HINT])), TOLD[:i] + TOLD[i + 1 :])
        others = others.conditioned(whole.picked, whole.weight_H)
        centre = np.mean([value for j, (_, value) in enumerate(TOLD) if j != i]) - np.mean(surrogate.values)
        assert abs(mean_N[i] - whole.weight_H @ others.mean_HP[:, TOLD[i][0]]) < 0.02 + abs(centre) * 0.02
    assert (deviation_N > surrogate.noise * 0.5).all()


def test_shorter_trainings_say_as_much_as_they_agree():
    generator = np.random.default_rng(1)
    places = generator.permutation(36)[:12]
    agreeing, other = Surrogate(POSITIONS, np.empty((0, 36))), Surrogate(POSITIONS, np.empty((0, 36)))
    for place in places:
        whole, part = HINT[place] + 0.5 * generator.standard_normal(2)
        agreeing.tell(int(place), 60 + whole)
        agreeing.tell(int(place), 30 + part, short=True)
        other.tell(int(place), 60 + whole)
        other.tell(int(place), 30 + 3 * generator.standard_normal(), short=True)
    assert agreeing.agreement > 0.75 > 0.65 > other.agreement
    left = next(place for place in range(36) if place not in places)
    before = agreeing.mean_P[left]
    agreeing.tell(left, 36.0, short=True)
    assert agreeing.mean_P[left] > before


def test_a_hint_that_is_noise_weighs_nothing_and_another_as_before():
    noise = np.random.default_rng(3).permutation(HINT)
    alone, beside = (Surrogate(POSITIONS, np.array(hints)) for hints in ([HINT], [HINT, noise]))
    doubted = Surrogate(POSITIONS, np.array([HINT, noise]), [1.0, 0.0])
    for surrogate in (alone, beside, doubted):
        told(surrogate)
    assert np.allclose(doubted.hints_JP[1], 0)
    assert abs(doubted.mean_P - alone.mean_P).mean() < 0.5 * abs(beside.mean_P - alone.mean_P).mean()
