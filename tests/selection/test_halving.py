"""Successive halving: rungs with equal shares of the compute."""

from collections import Counter

import pytest

from poolwise.selection.strategies import create
from poolwise.spaces import PoolingSpace

SPACE, STEPS = PoolingSpace(10, 2), 27


def cost(pooling, steps):
    return steps * 10 + 30


def lengths(macs, **more):
    """Return the strategy and its requested trainings; early poolings are better."""
    method = create("successive-halving", SPACE, seed=0, macs=macs, steps=STEPS, cost=cost, **more)
    asks = []
    while (ask := method.ask()) is not None:
        asks.append(ask)
        method.tell(*ask, 1 - SPACE.index(ask.pooling) / 100)
    return method, asks


@pytest.mark.parametrize("full", [3, 6, 12])
def test_rungs_share_the_compute_equally(full):
    macs = full * cost(None, STEPS)
    method, asks = lengths(macs)
    falls = [i for i in range(1, len(asks)) if asks[i].steps < asks[i - 1].steps]
    first = asks[: falls[0]] if falls else asks  # the first bracket
    spent = Counter()
    for ask in first:
        spent[ask.steps] += cost(ask.pooling, ask.steps)
    assert set(spent) == {3, 9, 27}
    assert all(share <= macs / 2 for share in spent.values())
    assert spent[3] <= macs / 3
    best = min((ask for ask in first if ask.steps == 3), key=lambda ask: SPACE.index(ask.pooling))
    assert best.pooling in [ask.pooling for ask in first if ask.steps == STEPS]
    assert SPACE[int(method.ranking().argmax())] in [ask.pooling for ask in asks if ask.steps == STEPS]


def test_small_budget_shortens_the_rungs():
    method, asks = lengths(cost(None, 9) * 2)
    assert {ask.steps for ask in asks} <= {1, 3, 9}
    assert len(asks) >= 3
    assert method.ranking().max() > 0


def test_number_of_trials_limits_the_steps():
    _, asks = lengths(10**9, trials=4)
    assert sum(ask.steps for ask in asks) <= 4 * STEPS
    assert STEPS in {ask.steps for ask in asks}
