"""Signs that scores are more than noise."""

import numpy as np
import pytest

from poolwise.spaces import PoolingSpace
from poolwise.statistics import signal

SPACE = list(PoolingSpace(10, 2))


def test_noise_is_taken_for_more_as_rarely_as_said():
    draws = np.random.default_rng(1)
    found = [signal(SPACE, draws.standard_normal(36), draws.standard_normal(36)) for _ in range(150)]
    assert 0.01 < np.mean([one.agreement > one.chance for one in found]) < 0.10  # 5 %, each
    assert 0.01 < np.mean([one.reliability > one.noise for one in found]) < 0.10
    assert found[0].chance == pytest.approx(np.tanh(1.6449 / np.sqrt(33)), abs=1e-4)


def test_another_level_is_kept_too():
    draws = np.random.default_rng(6)
    found = [signal(SPACE, draws.standard_normal(36), draws.standard_normal(36), 0.2) for _ in range(200)]
    assert 0.12 < np.mean([one.reliability > one.noise for one in found]) < 0.28
    assert 0.12 < np.mean([one.agreement > one.chance for one in found]) < 0.28


def test_either_sign_is_enough():
    draws = np.random.default_rng(2)
    rough = draws.standard_normal(36)
    agreeing = signal(SPACE, rough + 0.5 * draws.standard_normal(36), rough)
    assert agreeing.agreement > agreeing.chance
    assert agreeing.reliability <= agreeing.noise
    assert agreeing.found
    places = np.arange(36.0)  # the space is in order, so neighbours are alike
    centred = places - places.mean()
    other = rough - centred * (rough @ centred) / (centred @ centred)  # agrees with places neither way
    apart = signal(SPACE, places, other + 0.01 * places)
    assert 0 < apart.agreement < apart.chance
    assert apart.reliability > 0.8
    assert apart.found
    assert signal(SPACE, places, other - 0.01 * places).found  # against, but by chance


def test_what_goes_against_the_other_is_no_sign():
    places = np.arange(36.0)
    against = signal(SPACE, places, -places)
    assert against.reliability > against.noise
    assert not against.found
    assert "agree with scores on shared weights by -1.00" in str(against)


def test_constant_scores_say_nothing():
    assert not signal(SPACE, np.ones(36), np.arange(36.0)).found
