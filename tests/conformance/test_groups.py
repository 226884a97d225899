"""Conformance tests of all samplers: groups of configurations that train in one step."""

import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playing import SPACES, accuracy, answer, ask_group, make, play, small_spaces, survey

from poolwise.rng import Streams
from poolwise.spaces import Pooling, PoolingSpace
from poolwise.supernets.samplers import OutOfTurn, available, sampler
from poolwise.supernets.samplers.base import draw_from
from poolwise.supernets.samplers.draws import GroupRounds, group_sizes

METHODS = [method.name for method in available()]
SURVEYING = [method.name for method in available() if method.surveys]
IN_ROUNDS = [name for name in METHODS if make(name, SPACES[0], draw="rounds")[0].in_rounds]


def tell(one, poolings, m):
    one.tell_group(poolings, m, [accuracy(one, pooling, m) for pooling in poolings])


def play_groups(one, steps):
    asks = []
    for _ in range(steps):
        asks.append(ask_group(one))
        tell(one, *asks[-1])
    return asks


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 80), st.integers(1, 90), st.integers(0, 9))
def test_rounds_of_groups_visit_every_index_once(size, most, seed):
    rounds = GroupRounds(size, most, Streams(seed)["draw"])
    for _ in range(3):
        groups = [rounds.next() for _ in range(rounds.groups)]
        assert sorted(i for group in groups for i in group) == list(range(size))
        assert Counter(map(len, groups)) == Counter(group_sizes(size, most))
        assert max(map(len, groups)) <= most
        assert max(map(len, groups)) - min(map(len, groups)) <= 1
        for group in groups:
            assert all((b - a) % size == 1 % size for a, b in pairwise(group))


def test_groups_change_between_rounds():
    rounds = GroupRounds(36, 6, Streams(0)["draw"])
    partitions = {frozenset(frozenset(rounds.next()) for _ in range(rounds.groups)) for _ in range(60)}
    assert len(partitions) == 6  # every place at which the cyclic order can be cut


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=15, deadline=None)
@given(small_spaces(), st.integers(1, 4), st.integers(1, 7), st.sampled_from(["rounds", "iid"]))
def test_groups_are_in_range_and_repeatable(method, space, supernets, group, draw):
    options = {"supernets": supernets, "group": group, "draw": draw, "steps": 30}
    one, _ = make(method, space, **options)
    asks = play_groups(one, 30)
    for poolings, m in asks:
        assert 1 <= len(poolings) == len(set(poolings)) <= min(group, len(space))
        assert all(pooling in space for pooling in poolings)
        assert 0 <= m < one.supernets
    assert play_groups(make(method, space, **options)[0], 30) == asks


@pytest.mark.parametrize("method", METHODS)
def test_a_group_of_one_draws_what_ask_draws(method):
    one, _ = make(method, SPACES[0])
    other, _ = make(method, SPACES[0], group=1)
    assert play_groups(other, 80) == [((pooling,), m) for pooling, m in play(one, 80)]
    assert json.dumps(other.state()) == json.dumps(one.state())
    assert "groups" not in one.state()


@pytest.mark.parametrize("group", [2, 5, 50])
@pytest.mark.parametrize("method", IN_ROUNDS)
def test_a_round_of_groups_visits_every_configuration_once(method, group):
    warm_up = 0.5 if method in SURVEYING else 0.0  # these draw from a tree later
    one, _ = make(method, SPACES[0], group=group, steps=500, warm_up=warm_up)
    visits, steps = Counter(), 0
    for _ in range(4):
        before = sum(visits.values())
        while sum(visits.values()) < before + 36:
            visits.update(one_step := ask_group(one)[0])
            tell(one, one_step, one._pending[0][1])
            steps += 1
        assert set(visits.values()) == {before // 36 + 1}
        assert len(visits) == 36
    assert steps >= 4 * -(-36 // min(group, 36))


@pytest.mark.parametrize("method", ["spos", "mixture"])
def test_independent_groups_visit_all_configurations_equally_often(method):
    one, _ = make(method, SPACES[0], group=4, draw="iid", supernets=1)
    starts, visits = Counter(), Counter()
    for poolings, _ in play_groups(one, 1800):
        visits.update(poolings)
        starts[poolings[0]] += 1
    assert set(visits) == set(SPACES[0])
    # chi-square, 35 degrees, p = 0.001: the first of a group is uniform
    assert sum((starts[pooling] - 50) ** 2 / 50 for pooling in SPACES[0]) < 66.6


def test_the_assignment_of_groups_is_the_mean_of_their_rows_and_balanced():
    """Weighted by their sizes, the groups of a round use every SuperNet equally, however the scores differ."""
    one, _ = make("mixture", SPACES[0], supernets=3, group=5, temperature=(60.0, 60.0))
    play_groups(one, 120)
    assignment_PM = one.assignment_of(list(SPACES[0]))
    assert assignment_PM.max() > 0.9  # far from even
    mean_M, drawn = np.zeros(3), Counter()
    rounds = GroupRounds(36, 5, Streams(3)["draw"])
    for indices in [rounds.next() for _ in range(rounds.groups)]:
        row_M = assignment_PM[indices].mean(axis=0)
        mean_M += len(indices) / 36 * row_M
        drawn = Counter(one._draw_group_supernet(indices) for _ in range(400))
        expected_M = 400 * row_M
        likely = expected_M > 5
        error = sum((drawn[m] - expected_M[m]) ** 2 / expected_M[m] for m in np.flatnonzero(likely))
        assert error < 16.3  # chi-square, 3 degrees, p = 0.001
    assert np.allclose(mean_M, 1 / 3, atol=1e-4)


def test_each_supernet_trains_equally_many_configurations():
    one, _ = make("mixture", SPACES[0], supernets=3, group=6, steps=1500)
    trained = Counter()
    for poolings, m in play_groups(one, 1500):
        trained[m] += len(poolings)
    assert all(abs(trained[m] / 9000 - 1 / 3) < 0.03 for m in range(3))


def test_an_index_is_drawn_by_its_probability():
    generator = np.random.Generator(np.random.PCG64(0))
    assert [draw_from(np.array([0.0, 1.0, 0.0]), generator) for _ in range(20)] == [1] * 20
    assert np.mean([draw_from(np.array([0.2, 0.6]), generator) for _ in range(4000)]) == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("draw", ["rounds", "iid"])
@pytest.mark.parametrize("method", [name for name in METHODS if name.startswith("partition")])
def test_a_partition_splits_groups_at_its_parts(method, draw):
    one, _ = make(method, SPACES[0], group=6, draw=draw)
    for poolings, m in play_groups(one, 150):
        assert set(one.supernet_of(poolings)) == {m}


@pytest.mark.parametrize("method", METHODS)
def test_scores_of_a_group_are_moving_averages(method):
    one, _ = make(method, SPACES[0], group=4)
    scores_PM, steps = np.ones((36, one.supernets)), 0
    for _ in range(60):
        poolings, m = ask_group(one)
        accuracies = [accuracy(one, pooling, m) for pooling in poolings]
        one.tell_group(poolings, m, accuracies)
        for pooling, reward in zip(poolings, accuracies, strict=True):
            a = one.space.index(pooling)
            scores_PM[a, m] = 0.9 * scores_PM[a, m] + 0.1 * reward
        steps += 1
    assert np.allclose(one.scores_of(list(one.space)), scores_PM, atol=1e-12)
    assert one.state()["step"] == steps  # the schedules count steps, not configurations


@pytest.mark.parametrize("warm_up", [0.0, 0.3])
@pytest.mark.parametrize("method", METHODS)
def test_restored_between_asks_of_groups(method, warm_up):
    warm_up = warm_up if sampler(method).warms_up else 0.0
    one, streams = make(method, SPACES[0], warm_up=warm_up, group=5)
    again, other = make(method, SPACES[0], warm_up=warm_up, group=5, seed=7)
    play_groups(again, 3)
    for _ in range(12):
        asks = [ask_group(one) for _ in range(4)]
        tell(one, *asks[0])
        saved = json.loads(json.dumps([one.state(), streams.state()]))
        again.restore(saved[0])
        other.restore(saved[1])
        for ask in asks[1:]:
            tell(one, *ask)
            tell(again, *ask)
        assert again.state() == one.state()
        drawn = ask_group(one)
        assert ask_group(again) == drawn
        tell(one, *drawn)


@pytest.mark.parametrize("method", METHODS)
def test_a_group_out_of_turn_is_an_error(method):
    one, _ = make(method, PoolingSpace(10, 2), group=4)
    poolings, m = ask_group(one)
    for wrong in (((*poolings[::-1], Pooling((4, 6))), m), (poolings, m + 1), ((), m)):
        with pytest.raises(OutOfTurn, match="oldest pending ask"):
            one.tell_group(*wrong, [0.5] * len(wrong[0]))
    tell(one, poolings, m)
    with pytest.raises(OutOfTurn, match="oldest pending ask"):
        one.tell_group((), -1, [])


@pytest.mark.parametrize("method", [name for name in METHODS if name not in SURVEYING])
def test_groups_of_a_space_too_large_to_hold(method):
    one, _ = make(method, PoolingSpace(400, 12), group=3)
    for poolings, _ in play_groups(one, 6):
        indices = [one.space.index(pooling) for pooling in poolings]
        assert all((b - a) % one.space.size == 1 for a, b in pairwise(indices)) or (
            method == "partition-random"  # has only those of one part
        )


def test_tree_search_counts_the_pending_members_of_a_group():
    one, _ = make("mcts", SPACES[0], group=4)
    asks = [ask_group(one) for _ in range(3)]
    assert one._open[()] == 12
    for ask in asks:
        tell(one, *ask)
    assert not one._open


@pytest.mark.parametrize("method", SURVEYING)
def test_trees_of_configurations_count_the_pending_members_of_a_group(method):
    one, _ = make(method, SPACES[0], group=4, warm_up=0.0)
    asks = [ask_group(one) for _ in range(3)]
    again, _ = make(method, SPACES[0], group=4, warm_up=0.0)
    again.restore(json.loads(json.dumps(one.state())))
    leaves = Counter(one.space.index(pooling) for poolings, _ in asks for pooling in poolings)
    for tree in (one._tree, again._tree):
        assert {a: count for a, count in enumerate(tree.pending[:36]) if count} == leaves
        assert tree.pending[-1] == 12
    for asked in asks:
        tell(one, *asked)
    assert not any(one._tree.pending)
    assert one._tree.visits[-1] == 12


@pytest.mark.parametrize("method", SURVEYING)
def test_a_group_waits_for_a_survey(method):
    one, streams = make(method, SPACES[0], group=4)
    before = one.state(), streams.state()
    with pytest.raises(OutOfTurn, match="a survey is due"):
        one.ask_group()
    assert (one.state(), streams.state()) == before
    one.learn_survey(survey(one))
    poolings, m = one.ask_group()
    with pytest.raises(OutOfTurn, match="between tell and ask"):
        one.learn_survey(survey(one))
    tell(one, poolings, m)


@pytest.mark.parametrize("method", SURVEYING)
def test_groups_of_a_tree_contain_its_draw(method):
    """The run around a draw, at a random place: the tree draws once for a group."""
    one, _ = make(method, SPACES[0], group=5)
    answer(one)
    drawn, draw = [], one._tree.draw
    one._tree.draw = lambda generator: drawn.append(draw(generator)) or drawn[-1]
    places = Counter()
    for i in range(120):
        poolings, m = one.ask_group()
        tell(one, poolings, m)
        indices = [one.space.index(pooling) for pooling in poolings]
        assert len(drawn) == i + 1
        places[indices.index(drawn[-1])] += 1
        if one.next_survey == one.state()["step"]:
            break
    assert sum(places.values()) >= 50
    assert set(places) == set(range(5))
