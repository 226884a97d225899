"""Tests of single samplers, beyond the conformance tests."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playing import SPACES, make, play, small_spaces

from poolwise.spaces import PoolingSpace


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
    """Two neighbors share a SuperNet as often as expected by chance: 17 of 35."""
    shared_fractions = []
    for seed in range(300):
        groups_P = make("partition-random", SPACES[0], supernets=2, seed=seed)[0].supernet_of(list(SPACES[0]))
        shared_fractions.append((groups_P[1:] == groups_P[:-1]).mean())
    assert np.mean(shared_fractions) == pytest.approx(17 / 35, abs=0.02)


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
    """Each of 6 configurations is first in a sixth of 3,000 rounds, and all pairs of first and second are equally frequent."""
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
    """Return a high accuracy if the first pooling is before layer 4."""
    return 0.9 if pooling[0] == 4 else 0.2


@pytest.mark.parametrize("warm_up", [0.0, 0.5])
def test_tree_search_finds_the_planted_branch(warm_up):
    one, _ = make("mcts", SPACES[0], steps=1200, warm_up=warm_up)
    asks = play(one, 1200, planted)
    assert np.mean([pooling[0] == 4 for pooling, _ in asks[-400:]]) > 0.5  # 5 of 36 by chance


def test_tree_search_follows_uct():
    """The last ask equals UCT computed only from the history."""
    space = PoolingSpace(10, 2)
    one, _ = make("mcts", space)
    asks = play(one, 300, planted)
    values, visits = {}, Counter()
    for pooling, _ in asks:
        for level in range(3):
            node, reward = pooling.stages[:level], planted(one, pooling, 0)
            values[node] = 0.9 * values.get(node, reward) + 0.1 * reward
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
        a = one._draw_configuration()
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
    """SuperNet 0 is slightly better at every configuration."""
    share = {}
    for method in ("mixture", "unbalanced"):
        one, _ = make(method, SPACES[0], supernets=2, steps=4000, temperature=(1.0, 300.0))
        asks = play(one, 4000, lambda one, pooling, m: 0.75 if m == 0 else 0.6)
        share[method] = np.mean([m == 0 for _, m in asks[-500:]])
    assert share["unbalanced"] > 0.97
    assert 0.4 < share["mixture"] < 0.6
