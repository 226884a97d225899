"""Conformance tests of all samplers in the registry."""

import json
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playing import SPACES, accuracy, ask, make, play, small_spaces, survey

from poolwise.config import Config
from poolwise.errors import RequestError
from poolwise.spaces import Pooling, PoolingSpace, space_of
from poolwise.supernets.samplers import OutOfTurn, available, left_open, sampler, settled

METHODS = [method.name for method in available()]
SURVEYING = [method.name for method in available() if method.surveys]
HUGE = [
    PoolingSpace(60, 5),
    space_of(60, [3, 5], also=["20-20-20"]),
    PoolingSpace(400, 12),
]  # 5e6, and 2e22, which is above 2^63


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25, deadline=None)
@given(small_spaces(), st.integers(1, 5), st.sampled_from(["rounds", "iid"]), st.sampled_from([0.0, 0.4]))
def test_answers_are_in_range_and_repeatable(method, space, supernets, draw, warm_up):
    options = {"supernets": supernets, "draw": draw, "warm_up": warm_up, "steps": 60}
    one, _ = make(method, space, **options)
    asks = play(one, 60)
    assert one.supernets == sampler(method).supernets_used(supernets)
    assert all(pooling in space and 0 <= m < one.supernets for pooling, m in asks)
    assert all(type(m) is int for _, m in asks)
    assert play(make(method, space, **options)[0], 60) == asks
    assert one.visited() == list(dict.fromkeys(space.index(pooling) for pooling, _ in asks))


@pytest.mark.parametrize("method", METHODS)
def test_other_seeds_ask_otherwise(method):
    asks = [play(make(method, SPACES[0], seed=seed)[0], 40) for seed in range(3)]
    assert asks[0] != asks[1] != asks[2]


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_assignments_scores_and_leaders_are_consistent(method, space):
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
    assigned_scores_P = scores_PM[range(len(space)), supernet_P]
    best = one.leaders(3)
    seen = sorted(
        (assigned_scores_P[i] for i in range(len(space)) if space.index(everything[i]) in set(one.visited())),
        reverse=True,
    )
    assert [score for _, score in best] == pytest.approx(seen[: len(best)])
    assert len(best) == min(3, len(one.visited()))


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_the_moving_averages_of_the_rewards(method):
    one, _ = make(method, SPACES[0])
    scores_PM = np.ones((36, one.supernets))
    for _ in range(150):
        pooling, m = ask(one)
        reward = accuracy(one, pooling, m)
        one.tell(pooling, m, reward)
        a = one.space.index(pooling)
        scores_PM[a, m] = 0.9 * scores_PM[a, m] + 0.1 * reward
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
    play(again, 13)  # restore replaces this state
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
    pooling, m = ask(one)
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
    asks = [ask(one) for _ in range(3)]
    pooling, m = asks[0]
    other = SPACES[0][(SPACES[0].index(pooling) + 1) % 36]
    for wrong in ((other, m), (pooling, m + 1), (Pooling((4, 6)), m)):
        with pytest.raises(OutOfTurn, match="oldest pending ask"):
            one.tell(*wrong, 0.5)
    for pair in asks:
        one.tell(*pair, 0.5)
    with pytest.raises(OutOfTurn, match="oldest pending ask"):
        one.tell(*asks[-1], 0.5)
    play(one, 3)


@pytest.mark.parametrize("warm_up", [0.0, 0.3])
@pytest.mark.parametrize("method", METHODS)
def test_blocks_of_asks(method, warm_up):
    """A sampler restored within a block continues identically, and every tell is counted."""
    one, streams = make(method, SPACES[0], warm_up=warm_up)
    again, other = make(method, SPACES[0], warm_up=warm_up, seed=7)
    for _ in range(12):
        asks = [ask(one) for _ in range(8)]
        for pair in asks[:3]:
            one.tell(*pair, accuracy(one, *pair))
        saved = json.loads(json.dumps([one.state(), streams.state()]))
        again.restore(saved[0])
        other.restore(saved[1])
        for sampled in (one, again):
            for pair in asks[3:]:
                sampled.tell(*pair, accuracy(sampled, *pair))
        assert json.dumps(again.state()) == json.dumps(one.state())
        last = ask(one)
        assert ask(again) == last
        one.tell(*last, 0.5)
    assert one.state()["step"] == 12 * 9


@pytest.mark.parametrize("method", METHODS)
def test_state_of_another_method_is_refused(method):
    one, _ = make(method, SPACES[0])
    for state in ({"scores": [], "round": [], "step": 3}, {**one.state(), "method": "other"}):
        with pytest.raises(RequestError, match="start a new run"):
            one.restore(state)


@pytest.mark.parametrize("space", HUGE, ids=str)
@pytest.mark.parametrize("method", SURVEYING)
def test_a_method_that_scores_all_configurations_refuses_a_huge_space(method, space):
    with pytest.raises(RequestError, match=r"^method .* scores all configurations.* use another --method$"):
        make(method, space)


@pytest.mark.parametrize("method", SURVEYING)
@pytest.mark.parametrize("warm_up", [0.0, 0.3])
def test_surveys_are_evenly_spaced_after_the_warm_up_and_required(method, warm_up):
    one, _ = make(method, SPACES[0], steps=100, warm_up=warm_up)
    expected = [
        round(100 * warm_up) + i * round(100 * (1 - warm_up)) // one.surveys.count for i in range(one.surveys.count)
    ]
    surveyed = []
    for step in range(100):
        if one.next_survey == step:
            with pytest.raises(OutOfTurn, match="a survey is due"):
                one.ask()
            one.learn_survey(survey(one))
            surveyed.append(step)
        with pytest.raises(OutOfTurn, match="when a survey is due"):
            one.learn_survey(survey(one))
        play(one, 1)
    assert surveyed == expected
    assert one.next_survey is None


@pytest.mark.parametrize("method", SURVEYING)
def test_surveys_follow_the_length_of_the_search(method):
    one, _ = make(method, SPACES[0], steps=100, warm_up=0.5)
    play(one, 55)
    before = one.next_survey
    one.lengthen(200)
    assert one.next_survey is None if before is None else one.next_survey > before
    one.lengthen(56)  # all surveys are overdue, and one serves them all
    play(one, 1)
    assert one.next_survey is None


@pytest.mark.parametrize(
    "space", [*(pytest.param(space, marks=pytest.mark.slow) for space in HUGE[:2]), HUGE[2]], ids=str
)
@pytest.mark.parametrize("method", [name for name in METHODS if name not in SURVEYING])
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
    started = time.process_time()
    play(make(method, space, supernets=4)[0], 200)
    assert time.process_time() - started < 10.0  # a dense step would take minutes


def test_unknown_names_get_a_hint():
    assert sorted(METHODS) == METHODS
    assert len(METHODS) >= 8
    assert all(method.about and "\n" not in method.about for method in available())
    with pytest.raises(RequestError, match="did you mean 'mixture'"):
        sampler("mixtur")


def test_settled_settings():
    assert settled(Config.from_flat(method="mixture", supernets=4)).search.supernets == 4
    assert settled(Config.from_flat(method="spos", supernets=4)).search.supernets == 1
    assert settled(Config.from_flat(method="mcts", warm_up=0.5)).search.warm_up == 0.5
    assert settled(Config.from_flat(supernets=2, warm_up=0.5)).search.warm_up == 0.5
    assert settled(Config.from_flat(method="iterative-mcts")).search.warm_up == 0.45
    assert settled(Config.from_flat(method="iterative-mcts", warm_up=0.2)).search.warm_up == 0.2
    with pytest.raises(RequestError, match=r"no warm-up.*boltzmann, .*mcts, mixture"):
        settled(Config.from_flat(method="fairnas", warm_up=0.5))
    with pytest.raises(RequestError, match="use 2 or more SuperNets with a warm-up"):
        settled(Config.from_flat(supernets=1, warm_up=0.5))
    with pytest.raises(RequestError, match="a fixed number of SuperNets: use mixture, unbalanced"):
        settled(Config.from_flat(method="partition-first", branching="measured"))
    with pytest.raises(RequestError, match="omit one of them"):
        settled(Config.from_flat(warm_up=0.5, branching="measured"))
    with pytest.raises(RequestError, match="1, 2, 4 or auto"):
        settled(Config.from_flat(supernets=3, branching="measured"))


def test_the_number_of_supernets_left_open():
    def decided(steps, **options):
        config, reason = left_open(settled(Config.from_flat(supernets=None, **options)), steps, 36, 100)
        return config.search.supernets, config.search.branching, reason

    assert decided(3999)[:2] == (1, None)
    assert decided(7999)[:2] == (2, "measured")  # they double, so three are never reached
    assert decided(8000)[:2] == (4, "measured")
    assert "up to 4 if that lowers the loss" in decided(8000)[2]
    assert decided(8000, branching="fixed")[:2] == (4, "fixed")
    assert decided(6500, method="partition-first")[:2] == (3, None)
    assert decided(8000, method="fairnas")[:2] == (1, None)


@pytest.mark.parametrize("method", [name for name in METHODS if sampler(name).warms_up and not sampler(name).single])
def test_only_the_first_supernet_trains_until_the_branch(method):
    one, _ = make(method, SPACES[0], steps=100, warm_up=0.305)
    assert one.warm_up_end == 31
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


@pytest.mark.parametrize("method", [name for name in METHODS if sampler(name).warms_up and not sampler(name).single])
def test_supernets_branch_once_however_the_length_changes(method):
    poolings = list(SPACES[0])
    one, streams = make(method, SPACES[0], steps=100, warm_up=0.4)
    assert {m for _, m in play(one, 38)} == {0}
    assert not one.branched
    one.lengthen(90)  # the warm-up ended two steps ago
    assert one.branched
    scores_PM = one.scores_of(poolings)
    assert (scores_PM == scores_PM[:, :1]).all()
    one.lengthen(200)  # 40 % are 80 steps, but it has branched
    assert {m for _, m in play(one, 30)} == {0, 1, 2}
    before_PM = one.scores_of(poolings)
    assert not (before_PM == before_PM[:, :1]).all()

    saved = json.loads(json.dumps([one.state(), streams.state()]))
    expected = play(one, 30)  # passes step 80
    again, other = make(method, SPACES[0], steps=200, warm_up=0.4)
    again.restore(saved[0])
    other.restore(saved[1])
    assert again.branched
    assert play(again, 30) == expected
    after_PM = one.scores_of(poolings)
    assert not (after_PM == after_PM[:, :1]).all()


@pytest.mark.parametrize(
    ("steps", "length", "branched"), [(30, 100, False), (40, 100, True), (60, 200, True), (38, 90, False)]
)
def test_an_older_state_tells_whether_it_branched(steps, length, branched):
    one, _ = make("mixture", SPACES[0], steps=100, warm_up=0.4)
    play(one, steps)
    old = one.state()
    del old["branched"]
    again, _ = make("mixture", SPACES[0], steps=length, warm_up=0.4)
    again.restore(old)
    assert again.branched == branched


@pytest.mark.parametrize("method", [name for name in METHODS if sampler(name).doubles])
def test_supernets_double_with_their_scores_and_equal_shares(method):
    one, streams = make(method, SPACES[0], supernets=5, grows=True)
    poolings = list(SPACES[0])
    assert {m for _, m in play(one, 50)} == {0}
    before_PM = one.scores_of(poolings)
    assert before_PM.shape == (36, 1)
    for count in (2, 4):
        assert one.can_double
        one.double()
        assert one.supernets == count
        scores_PM, assignment_PM = one.scores_of(poolings), one.assignment_of(poolings)
        assert np.array_equal(scores_PM, np.tile(before_PM, 2))
        assert np.allclose(assignment_PM[:, : count // 2], assignment_PM[:, count // 2 :], atol=1e-9)
        assert {m for _, m in play(one, 50)} == set(range(count))
        before_PM = one.scores_of(poolings)
    assert not one.can_double  # 8 would exceed the limit of 5

    saved = json.loads(json.dumps([one.state(), streams.state()]))
    expected = play(one, 30)
    again, other = make(method, SPACES[0], supernets=5, grows=True)
    again.restore(saved[0])
    other.restore(saved[1])
    assert play(again, 30) == expected
    assert not make(method, SPACES[0], supernets=5)[0].can_double
