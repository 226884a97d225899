"""Conformance tests of all strategies in the registry."""

import sys
import tracemalloc

import numpy as np
import pytest
import torch

from poolwise import statistics, tables
from poolwise.errors import RequestError
from poolwise.selection.strategies import available, create
from poolwise.spaces import Pooling, PoolingSpace, Subspace, space_of

SPACE, STEPS = PoolingSpace(10, 2), 27
METHODS = list(available())


def cost(pooling, steps):
    return steps * (10 + sum(pooling.positions)) + 5


FULL = max(cost(pooling, STEPS) for pooling in SPACE)


def make(name, seed=0, macs=12 * FULL, space=SPACE):
    return create(name, space, seed=seed, macs=macs, steps=STEPS, cost=cost)


def accuracy(pooling, steps, seed):
    noise = np.random.default_rng([seed, *pooling.stages]).normal(0, 0.01)
    return 0.8 - 0.01 * abs(pooling.positions[0] - 6) - 0.01 * abs(pooling.positions[1] - 8) - 0.1 / steps + noise


def run(method, most=10_000):
    trials = []
    while len(trials) < most and (ask := method.ask()) is not None:
        trials.append((*ask, accuracy(*ask)))
        method.tell(*trials[-1])
    return trials


def test_strategies_are_discovered():
    assert set(METHODS) >= {
        "refine",
        "top",
        "random",
        "regularised-evolution",
        "tpe",
        "gp",
        "successive-halving",
        "short-all",
    }


@pytest.mark.parametrize("name", METHODS)
def test_promises(name):
    states, tensors = np.random.get_state()[1].copy(), torch.get_rng_state()
    method = make(name)
    trials = run(method)
    assert len(trials) >= 10
    assert all(pooling in SPACE and 1 <= steps <= STEPS for pooling, steps, _, _ in trials)
    assert len({trial[:3] for trial in trials}) == len(trials)  # nothing is trained twice with the same seed
    spent = sum(cost(pooling, steps) for pooling, steps, _, _ in trials)
    assert spent == method.spent <= 12 * FULL
    assert spent > 6 * FULL
    assert method.ask() is None
    scores = method.ranking()
    assert scores.shape == (36,)
    assert np.isfinite(scores).all()
    assert run(make(name)) == trials
    assert run(make(name, seed=1)) != trials
    assert np.array_equal(states, np.random.get_state()[1])
    assert torch.equal(tensors, torch.get_rng_state())


@pytest.mark.parametrize("name", METHODS)
def test_replayed_it_goes_on_identically(name):
    trials = run(make(name))
    half = make(name)
    half.replay(trials[: len(trials) // 2])
    assert run(half) == trials[len(trials) // 2 :]
    complete = make(name)
    complete.replay(trials)
    assert np.array_equal(complete.ranking(), half.ranking())
    with pytest.raises(RequestError, match="oldest pending training"):
        make(name, seed=5).replay(trials)


@pytest.mark.parametrize("name", METHODS)
def test_tell_in_odd_order_is_an_error(name):
    method = make(name)
    with pytest.raises(RequestError, match="oldest pending training is none"):
        method.tell(SPACE[0], STEPS, 1, 0.5)
    ask = method.ask()
    assert method.ask() == ask
    with pytest.raises(RequestError, match="oldest pending training"):
        method.tell(ask.pooling, ask.steps, ask.seed + 1, 0.5)
    method.tell(*ask, 0.5)
    with pytest.raises(RequestError, match="oldest pending training"):
        method.tell(*ask, 0.5)


@pytest.mark.parametrize("name", METHODS)
def test_little_and_much_compute(name):
    nothing = make(name, macs=0)
    assert nothing.ask() is None
    assert np.array_equal(nothing.ranking(), np.zeros(36))
    if name not in ("tpe", "gp"):
        times, fewest = (30, 10) if name == "refine" else (90, 20)  # fitting gets slower with more trials
        much = make(name, macs=times * FULL)
        trials = run(much)
        assert len({trial[0] for trial in trials}) >= fewest
        assert much.spent <= times * FULL


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "space",
    [
        PoolingSpace(3, 1),
        PoolingSpace(12, 3, min_stage=2),
        PoolingSpace(6, 2, shared_slots=True),
        Subspace.of(SPACE, list(SPACE)[3::4]),
        space_of(7, [0, 1, 3], also=["3-2-2"]),
        space_of(8, [1, 2], min_stage=2),
        space_of(5, [1, 2], shared_slots=True),
        Subspace.of(space_of(7, [1, 2]), ["3-2-2", "3-4", "1-6"]),
    ],
)
def test_other_spaces(name, space):
    method = create(name, space, seed=2, macs=6 * FULL, steps=STEPS, cost=cost)
    while (ask := method.ask()) is not None:
        assert ask.pooling in space
        method.tell(*ask, 0.5)
    assert method.ranking().shape == (len(space),)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "short-all"])
def test_millions_of_configurations(name):
    space = PoolingSpace(60, 5)
    assert space.size > 5_000_000
    method = create(name, space, seed=0, macs=9 * 100_000, steps=STEPS, cost=cost)
    tracemalloc.start()
    for _ in range(7):
        ask = method.ask()
        method.tell(*ask, 0.5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6


@pytest.mark.parametrize("name", METHODS)
def test_better_than_chance_on_the_published_table(name):
    table = tables.load("resnet20-cifar10-published")
    truth = table.column("standalone_mean")
    taus = []
    for seed in range(2):
        method = make(name, seed=seed)
        while (ask := method.ask()) is not None:
            method.tell(*ask, table.query(ask.pooling) / 100)
        taus.append(statistics.kendall_tau_b(method.ranking(), truth))
    assert np.mean(taus) > 0.2


def test_without_optuna(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(RequestError, match=r"pip install 'poolwise\[compare\]'"):
        make("tpe")
    with pytest.raises(RequestError, match="did you mean 'random'"):
        make("randm")


def test_the_trained_come_before_their_neighbours():
    method = make("random")
    trials = run(method)
    assert SPACE[int(method.ranking().argmax())] == max(trials, key=lambda trial: trial[3])[0]
    assert Pooling.parse("5-3-2") in SPACE


STREAMS = {
    "gp": "GaussianProcess",
    "random": "RandomSearch",
    "refine": "Refine",
    "regularised-evolution": "RegularisedEvolution",
    "short-all": "ShortAll",
    "successive-halving": "SuccessiveHalving",
    "top": "Top",
    "tpe": "Tpe",
}


def test_stream_names_are_explicit_and_never_change():
    """A stream name determines every draw of a strategy. Changing one changes results and breaks resuming."""
    assert {name: strategy.stream for name, strategy in available().items()} == STREAMS
    assert all("stream" in vars(strategy) for strategy in available().values())


@pytest.mark.parametrize("name", METHODS)
def test_renaming_a_class_changes_nothing(name):
    strategy = available()[name]
    renamed = type("Renamed", (strategy,), {})
    method = renamed(make(name).task)
    assert type(method).__name__ == "Renamed"
    assert run(method, 8) == run(make(name), 8)
