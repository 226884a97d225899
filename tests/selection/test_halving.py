"""Successive halving: rungs of equal shares, whatever the compute."""

from collections import Counter

import pytest

from poolwise.selection.strategies import create
from poolwise.spaces import PoolingSpace

SPACE, STEPS = PoolingSpace(10, 2), 27


def cost(pooling, steps):
    return steps * 10 + 30


def lengths(macs, **more):
    """How many trainings of each length are asked for; early poolings are the better ones."""
    method = create("successive-halving", SPACE, seed=0, macs=macs, steps=STEPS, cost=cost, **more)
    told = []
    while (ask := method.ask()) is not None:
        told.append(ask)
        method.tell(*ask, 1 - SPACE.index(ask.pooling) / 100)
    return method, told


@pytest.mark.parametrize("full", [3, 6, 12])
def test_every_rung_has_a_third(full):
    macs = full * cost(None, STEPS)
    method, told = lengths(macs)
    falls = [i for i in range(1, len(told)) if told[i].steps < told[i - 1].steps]
    first = told[: falls[0]] if falls else told  # the first bracket
    spent = Counter()
    for ask in first:
        spent[ask.steps] += cost(ask.pooling, ask.steps)
    assert set(spent) == {3, 9, 27}
    assert all(share <= macs / 2 for share in spent.values())
    assert spent[3] <= macs / 3
    best = min((ask for ask in first if ask.steps == 3), key=lambda ask: SPACE.index(ask.pooling))
    assert best.pooling in [ask.pooling for ask in first if ask.steps == STEPS]
    assert SPACE[int(method.ranking().argmax())] in [ask.pooling for ask in told if ask.steps == STEPS]


def test_little_compute_makes_rungs_shorter_and_still_trains():
    method, told = lengths(cost(None, 9) * 2)
    assert {ask.steps for ask in told} <= {1, 3, 9}
    assert len(told) >= 3
    assert method.ranking().max() > 0


def test_trainings_are_a_limit_as_compute_is():
    _, told = lengths(10**9, trials=4)
    assert sum(ask.steps for ask in told) <= 4 * STEPS
    assert STEPS in {ask.steps for ask in told}
