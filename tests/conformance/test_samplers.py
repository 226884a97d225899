"""What every sampler must do. Samplers are found by the registry; in the first part none is named."""

import json
import time
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolwise.errors import RequestError
from poolwise.rng import Streams
from poolwise.searching.samplers import OutOfTurn, Task, available, sampler, settled
from poolwise.settings import Settings
from poolwise.space import Pooling, PoolingSpace

METHODS = [method.name for method in available()]
SPACES = [PoolingSpace(10, 2), PoolingSpace(9, 3), PoolingSpace(6, 3, shared_slots=True), PoolingSpace(4, 0)]
HUGE = [PoolingSpace(60, 5), PoolingSpace(400, 12)]  # 5e6, and 2e22, which is above 2^63


def make(method, space, *, supernets=3, steps=200, seed=0, draw="rounds", warm_up=0.0, temperature=(1.0, 100.0)):
    """A sampler and the streams that it draws from."""
    streams = Streams(seed)
    task = Task(space, supernets, steps, temperature, draw, streams["draw"], streams["assign"], warm_up)
    return sampler(method)(task), streams


def accuracy(one, pooling, m):
    """Depends on configuration, SuperNet and time, and on nothing else."""
    return 0.3 + 0.6 * ((7 * one.space.index(pooling) + 5 * m + 3 * len(one.visited())) % 17) / 17


def play(one, steps, reward=accuracy):
    asks = []
    for _ in range(steps):
        asks.append(one.ask())
        one.tell(*asks[-1], reward(one, *asks[-1]))
    return asks


@st.composite
def small_spaces(draw):
    layers = draw(st.integers(2, 9))
    poolings = draw(st.integers(0, min(layers - 1, 3)))
    shared = draw(st.booleans())
    return PoolingSpace(layers, poolings, 1 if shared else draw(st.integers(1, layers // (poolings + 1))), shared)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25, deadline=None)
@given(small_spaces(), st.integers(1, 5), st.sampled_from(["rounds", "iid"]), st.sampled_from([0.0, 0.4]))
def test_answers_are_in_range_and_repeatable(method, space, supernets, draw, warm_up):
    asked = {"supernets": supernets, "draw": draw, "warm_up": warm_up, "steps": 60}
    one, _ = make(method, space, **asked)
    asks = play(one, 60)
    assert one.supernets == sampler(method).supernets_used(supernets)
    assert all(pooling in space and 0 <= m < one.supernets for pooling, m in asks)
    assert all(type(m) is int for _, m in asks)
    assert play(make(method, space, **asked)[0], 60) == asks
    assert one.visited() == list(dict.fromkeys(space.index(pooling) for pooling, _ in asks))


@pytest.mark.parametrize("method", METHODS)
def test_other_seeds_ask_otherwise(method):
    asks = [play(make(method, SPACES[0], seed=seed)[0], 40) for seed in range(3)]
    assert asks[0] != asks[1] != asks[2]


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_what_is_said_of_configurations_fits_together(method, space):
    one, _ = make(method, space)
    play(one, 77)
    everything = list(space)[::-1]
    assignment_PM, scores_PM = one.assignment_of(everything), one.scores_of(everything)
    assert assignment_PM.shape == scores_PM.shape == (len(space), one.supernets)
    assert assignment_PM.dtype == scores_PM.dtype == np.float64
    assert np.allclose(assignment_PM.sum(axis=1), 1, atol=1e-12)
    assert assignment_PM.min() >= 0
    supernet_P = one.supernet_of(everything)
    assert supernet_P.dtype == np.int64
    assert np.array_equal(supernet_P, assignment_PM.argmax(axis=1))
    assert np.array_equal(one.scores_of(everything[:1]), scores_PM[:1])
    assert one.assignment_of([]).shape == (0, one.supernets)
    assert all(isinstance(value, float) for value in one.summary().values())
    own_P = scores_PM[range(len(space)), supernet_P]
    best = one.leaders(3)
    seen = sorted(
        (own_P[i] for i in range(len(space)) if space.index(everything[i]) in set(one.visited())), reverse=True
    )
    assert [score for _, score in best] == pytest.approx(seen[: len(best)])
    assert len(best) == min(3, len(one.visited()))


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_the_moving_averages_of_what_was_told(method):
    one, _ = make(method, SPACES[0])
    scores_PM = np.ones((36, one.supernets))
    for _ in range(150):
        pooling, m = one.ask()
        told = accuracy(one, pooling, m)
        one.tell(pooling, m, told)
        a = one.space.index(pooling)
        scores_PM[a, m] = 0.9 * scores_PM[a, m] + 0.1 * told
    assert np.allclose(one.scores_of(list(one.space)), scores_PM, atol=1e-12)


@pytest.mark.parametrize("warm_up", [0.0, 0.5])
@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_saved_and_restored_goes_on_identically(method, space, warm_up):
    one, streams = make(method, space, warm_up=warm_up, draw="rounds")
    play(one, 41)
    saved = json.loads(json.dumps([one.state(), streams.state()]))
    expected = play(one, 60)
    again, other = make(method, space, warm_up=warm_up, seed=0, draw="rounds")
    play(again, 13)  # what it did before is forgotten
    again.restore(saved[0])
    other.restore(saved[1])
    assert again.state() == saved[0]
    assert play(again, 60) == expected
    assert json.dumps(again.state()) == json.dumps(one.state())
    assert np.array_equal(again.assignment_of(list(space)), one.assignment_of(list(space)))
    assert again.summary() == one.summary()


@pytest.mark.parametrize("method", METHODS)
def test_saved_between_ask_and_tell(method):
    one, _ = make(method, SPACES[0])
    play(one, 5)
    pooling, m = one.ask()
    again, _ = make(method, SPACES[0])
    again.restore(json.loads(json.dumps(one.state())))
    again.tell(pooling, m, 0.5)
    one.tell(pooling, m, 0.5)
    assert again.state() == one.state()


@pytest.mark.parametrize("method", METHODS)
def test_looking_changes_nothing(method):
    quiet, watched = make(method, SPACES[0])[0], make(method, SPACES[0])[0]
    for _ in range(60):
        assert play(quiet, 1) == play(watched, 1)
        watched.summary()
        watched.leaders(2)
        watched.supernet_of(list(SPACES[0]))
        watched.state()
    assert quiet.state() == watched.state()


@pytest.mark.parametrize("method", METHODS)
def test_out_of_turn_is_an_error(method):
    one, _ = make(method, SPACES[0])
    with pytest.raises(OutOfTurn, match="tell"):
        one.tell(SPACES[0][0], 0, 0.5)
    asks = [one.ask() for _ in range(3)]
    pooling, m = asks[0]
    other = SPACES[0][(SPACES[0].index(pooling) + 1) % 36]
    for wrong in ((other, m), (pooling, m + 1), (Pooling((4, 6)), m)):
        with pytest.raises(OutOfTurn, match="earliest open ask"):
            one.tell(*wrong, 0.5)
    for ask in asks:
        one.tell(*ask, 0.5)
    with pytest.raises(OutOfTurn, match="earliest open ask"):
        one.tell(*asks[-1], 0.5)
    play(one, 3)


@pytest.mark.parametrize("warm_up", [0.0, 0.3])
@pytest.mark.parametrize("method", METHODS)
def test_blocks_of_asks(method, warm_up):
    """Saved within a block and restored goes on identically; every answer is counted."""
    one, streams = make(method, SPACES[0], warm_up=warm_up)
    again, other = make(method, SPACES[0], warm_up=warm_up, seed=7)
    for _ in range(12):
        asks = [one.ask() for _ in range(8)]
        for ask in asks[:3]:
            one.tell(*ask, accuracy(one, *ask))
        saved = json.loads(json.dumps([one.state(), streams.state()]))
        again.restore(saved[0])
        other.restore(saved[1])
        for sampled in (one, again):
            for ask in asks[3:]:
                sampled.tell(*ask, accuracy(sampled, *ask))
        assert json.dumps(again.state()) == json.dumps(one.state())
        last = one.ask()
        assert again.ask() == last
        one.tell(*last, 0.5)
    assert one.state()["step"] == 12 * 9


@pytest.mark.parametrize("method", METHODS)
def test_state_of_another_method_is_refused(method):
    one, _ = make(method, SPACES[0])
    for state in ({"scores": [], "round": [], "step": 3}, {**one.state(), "method": "other"}):
        with pytest.raises(RequestError, match="start it anew"):
            one.restore(state)


@pytest.mark.parametrize("space", HUGE, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_huge_spaces_cost_what_is_visited(method, space):
    assert space.size > 10**6
    tracemalloc.start()
    one, _ = make(method, space, supernets=4)
    asks = play(one, 200)
    one.summary()
    supernet_N = one.supernet_of([space[space.size // 2], *(pooling for pooling, _ in asks[:9])])
    json.dumps(one.state())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * 2**20
    assert supernet_N.max() < one.supernets
    assert len(one.visited()) > 50
    begin = time.perf_counter()
    play(make(method, space, supernets=4)[0], 200)
    assert time.perf_counter() - begin < 2.0  # a dense step would take minutes


def test_names_are_told():
    assert sorted(METHODS) == METHODS
    assert len(METHODS) >= 8
    assert all(method.about and "\n" not in method.about for method in available())
    with pytest.raises(RequestError, match="did you mean 'mixture'"):
        sampler("mixtur")


def test_settled_settings():
    assert settled(Settings(method="mixture", supernets=4)).supernets == 4
    assert settled(Settings(method="spos", supernets=4)).supernets == 1
    assert settled(Settings(method="mcts", warm_up=0.5)).warm_up == 0.5
    assert settled(Settings(supernets=2, warm_up=0.5)).warm_up == 0.5
    with pytest.raises(RequestError, match=r"no warm-up.*boltzmann, mcts, mixture"):
        settled(Settings(method="fairnas", warm_up=0.5))
    with pytest.raises(RequestError, match="none to branch into"):
        settled(Settings(supernets=1, warm_up=0.5))


@pytest.mark.parametrize("method", [name for name in METHODS if sampler(name).warms_up and not sampler(name).single])
def test_the_first_supernet_is_alone_until_the_branch(method):
    one, _ = make(method, SPACES[0], steps=100, warm_up=0.305)
    assert one.branch == 31
    before = play(one, 31)
    assert {m for _, m in before} == {0}
    assert {m for _, m in play(one, 69)} == {0, 1, 2}

    other, _ = make(method, SPACES[0], steps=100, warm_up=0.305)
    play(other, 30)
    poolings = list(SPACES[0])
    assert np.array_equal(other.assignment_of(poolings), np.eye(3)[[0] * len(poolings)])
    assert (other.scores_of(poolings)[:, 1:] == 1).all()
    play(other, 1)
    scores_PM = other.scores_of(poolings)
    assert (scores_PM == scores_PM[:, :1]).all()
    assert not (scores_PM == 1).all()


@pytest.mark.parametrize("space", SPACES[:3], ids=str)
@pytest.mark.parametrize("steps", [5, 150])
def test_mixture_is_balanced(space, steps):
    one, _ = make("mixture", space, supernets=4, temperature=(1.0, 300.0), steps=150)
    play(one, steps)
    assert one.summary()["imbalance"] <= 1e-9
    columns_M = one.assignment_of(list(space)).mean(axis=0)
    assert (columns_M * np.log(4 * columns_M)).sum() <= 1.1e-9


@pytest.mark.parametrize("method", ["partition-random", "partition-first"])
@settings(max_examples=25, deadline=None)
@given(small_spaces(), st.integers(1, 5), st.integers(0, 9))
def test_partitions_are_even_and_stay(method, space, supernets, seed):
    one, _ = make(method, space, supernets=supernets, seed=seed)
    groups_P = one.supernet_of(list(space))
    sizes = np.bincount(groups_P, minlength=supernets)
    assert sizes.max() - sizes.min() <= 1
    assert all(one.supernet_of([pooling])[0] == m for pooling, m in play(one, 40))
    assert np.array_equal(one.supernet_of(list(space)), groups_P)


def test_random_partitions_are_random():
    """Two neighbours share a SuperNet as often as chance has it: 17 of 35."""
    together = []
    for seed in range(300):
        groups_P = make("partition-random", SPACES[0], supernets=2, seed=seed)[0].supernet_of(list(SPACES[0]))
        together.append((groups_P[1:] == groups_P[:-1]).mean())
    assert np.mean(together) == pytest.approx(17 / 35, abs=0.02)


def test_partition_by_first_pooling_is_contiguous():
    one, _ = make("partition-first", SPACES[0], supernets=4)
    groups_P = one.supernet_of(list(SPACES[0]))
    assert groups_P.tolist() == sorted(groups_P)
    firsts = [{pooling[0] for pooling, m in zip(SPACES[0], groups_P, strict=True) if m == g} for g in range(4)]
    assert firsts == [{1, 2}, {2, 3}, {3, 4, 5}, {5, 6, 7, 8}]


@pytest.mark.parametrize("method", ["mixture", "unbalanced", "partition-random", "partition-first", "fairnas"])
def test_rounds_visit_every_configuration_once(method):
    one, _ = make(method, SPACES[0])
    rounds = [[pooling for pooling, _ in play(one, 36)] for _ in range(3)]
    assert all(sorted(seen) == list(SPACES[0]) for seen in rounds)
    assert rounds[0] != rounds[1] != rounds[2]


def test_rounds_are_uniform():
    """Each of 6 configurations is first in a sixth of 3,000 rounds, and the pairs of first and second as often."""
    space = PoolingSpace(4, 2, shared_slots=True)
    assert len(space) == 6
    asks = [space.index(pooling) for pooling, _ in play(make("fairnas", space)[0], 18_000)]
    pairs = Counter(zip(asks[::6], asks[1::6], strict=True))
    assert len(pairs) == 30
    assert sum((count - 100) ** 2 / 100 for count in pairs.values()) < 58.3  # chi-square, 29 degrees, p = 0.001


@pytest.mark.parametrize(
    ("method", "options"), [("spos", {}), ("boltzmann", {"warm_up": 0.999}), ("mcts", {"warm_up": 0.999})]
)
def test_uniform_draws_are_uniform_and_independent(method, options):
    one, _ = make(method, SPACES[0], steps=7300, **options)
    counts = Counter(pooling for pooling, _ in play(one, 7200))
    assert len(counts) == 36
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 66.6  # chi-square, 35 degrees, p = 0.001


def planted(one, pooling, m):
    """The first pooling before layer 4 is good."""
    return 0.9 if pooling[0] == 4 else 0.2


@pytest.mark.parametrize("warm_up", [0.0, 0.5])
def test_tree_search_finds_the_planted_branch(warm_up):
    one, _ = make("mcts", SPACES[0], steps=1200, warm_up=warm_up)
    asks = play(one, 1200, planted)
    assert np.mean([pooling[0] == 4 for pooling, _ in asks[-400:]]) > 0.5  # 5 of 36 by chance


def test_tree_search_follows_uct():
    """The last ask against UCT worked out from the history alone."""
    space = PoolingSpace(10, 2)
    one, _ = make("mcts", space)
    asks = play(one, 300, planted)
    values, visits = {}, Counter()
    for pooling, _ in asks:
        for level in range(3):
            node, told = pooling.stages[:level], planted(one, pooling, 0)
            values[node] = 0.9 * values.get(node, told) + 0.1 * told
            visits[node] += 1
    path = ()
    for _ in range(2):
        children = [node for node in visits if len(node) == len(path) + 1 and node[: len(path)] == path]
        path = max(children, key=lambda n: values[n] + np.sqrt(np.log(visits[n[:-1]]) / visits[n]))
    assert one.ask()[0].stages[:2] == path


def test_tree_search_spreads_the_asks_of_a_block():
    one, _ = make("mcts", SPACES[0], steps=2000)
    firsts = [one.ask() for _ in range(8)]
    assert sorted(pooling[0] for pooling, _ in firsts) == list(range(1, 9))
    for ask in firsts:
        one.tell(*ask, planted(one, *ask))
    for _ in range(60):
        block = [one.ask() for _ in range(16)]
        for ask in block:
            one.tell(*ask, planted(one, *ask))
    assert len(set(block)) > 4
    assert np.mean([pooling[0] == 4 for pooling, _ in block]) > 0.4
    assert not one._open


def test_tree_search_tries_every_child_first():
    asks = play(make("mcts", SPACES[0])[0], 8, planted)
    assert sorted(pooling[0] for pooling, _ in asks) == list(range(1, 9))


def test_boltzmann_draws_by_the_softmax_of_the_scores():
    one, _ = make("boltzmann", SPACES[0], steps=10, temperature=(8.0, 8.0))
    play(one, 20)
    scores_P = one.scores_of(list(SPACES[0]))[:, 0]
    expected_P = np.exp(8 * scores_P) / np.exp(8 * scores_P).sum()
    counts_P = np.zeros(36)
    for _ in range(4000):
        a, _ = one._choose()
        counts_P[a] += 1
    assert (counts_P > 0).all()
    assert ((counts_P - 4000 * expected_P) ** 2 / (4000 * expected_P)).sum() < 66.6  # chi-square, 35 degrees, p = 0.001
    entropy = -(expected_P * np.log(expected_P)).sum()
    assert one.summary()["draw_entropy"] == pytest.approx(entropy)


def test_boltzmann_concentrates_at_high_temperature():
    one, _ = make("boltzmann", SPACES[0], steps=3000, temperature=(1.0, 300.0))
    best = SPACES[0][20]
    asks = play(one, 3000, lambda one, pooling, m: 0.9 if pooling == best else 0.3)
    assert np.mean([pooling == best for pooling, _ in asks[-200:]]) > 0.9
    assert one.summary()["draw_entropy"] < 0.5


def test_without_balancing_one_supernet_takes_everything():
    """SuperNet 0 is a little better at every configuration."""
    share = {}
    for method in ("mixture", "unbalanced"):
        one, _ = make(method, SPACES[0], supernets=2, steps=4000, temperature=(1.0, 300.0))
        asks = play(one, 4000, lambda one, pooling, m: 0.75 if m == 0 else 0.6)
        share[method] = np.mean([m == 0 for _, m in asks[-500:]])
    assert share["unbalanced"] > 0.97
    assert 0.4 < share["mixture"] < 0.6
