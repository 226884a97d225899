"""Trees over configurations: their shape, their draws, and the samplers that build them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playing import SPACES, ask, make, play

from poolwise.supernets.samplers import Survey
from poolwise.supernets.samplers.iterative_mcts import halved
from poolwise.supernets.samplers.search_tree import SearchTree

SPACE = SPACES[0]


def leaves_below(children, count):
    """Return the leaves below every node, in order from left to right."""
    below = [[leaf] for leaf in range(count)]
    for left, right in children:
        below.append(below[left] + below[right])
    return below


@given(st.integers(1, 70).flatmap(lambda count: st.permutations(range(count))))
def test_halving_keeps_the_order_and_splits_evenly(order):
    children = halved(order)
    below = leaves_below(children, len(order))
    assert below[-1] == list(order)
    for left, right in children:
        assert 0 <= len(below[right]) - len(below[left]) <= 1
    assert len(children) == len(order) - 1


def random_tree(count, generator):
    """Return the children of a tree that merges random nodes."""
    alive, children = list(range(count)), []
    while len(alive) > 1:
        pair = tuple(int(i) for i in generator.choice(alive, 2, replace=False))
        children.append(pair)
        alive = [node for node in alive if node not in pair] + [count + len(children) - 1]
    return children


def drawn_from(tree, generator):
    """Draw a leaf and count it as pending."""
    leaf = tree.draw(generator)
    tree.expect(leaf)
    return leaf


def restated(children, count, history, pending):
    """Return the probability of each leaf, computed from past visits (leaf, accuracy) and pending draws only."""
    below = leaves_below(children, count)
    visits = [sum(leaf in leaves for leaf, _ in history) for leaves in below]
    waiting = [sum(leaf in leaves for leaf in pending) for leaves in below]
    values = []
    for leaves in below:
        accuracies = [accuracy for leaf, accuracy in history if leaf in leaves]
        weight = 0.1 * 0.9 ** np.arange(len(accuracies))[::-1]  # the first accuracy has the rest
        values.append(
            accuracies[0] * 0.9 ** (len(accuracies) - 1) + weight[1:] @ accuracies[1:] if accuracies else None
        )
    chances = np.ones(len(below))
    for i in reversed(range(len(children))):
        parent, pair = count + i, children[i]
        known = [values[child] is not None for child in pair]
        fresh = [not visits[child] + waiting[child] for child in pair]
        if any(fresh):
            share = np.array(fresh) / sum(fresh)
        elif not all(known):
            share = np.array(known) / sum(known) if any(known) else np.array([0.5, 0.5])
        else:
            total = np.log(visits[parent] + waiting[parent])
            uct = [values[child] + 1.0 * np.sqrt(total / (visits[child] + waiting[child])) for child in pair]
            share = np.exp(np.array(uct) / 0.7) / np.exp(np.array(uct) / 0.7).sum()
        for child, part in zip(pair, share, strict=True):
            chances[child] = chances[parent] * part
    return chances[:count]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(0, 60), st.integers(0, 6), st.integers(0, 10**6))
def test_draws_follow_uct_and_the_softmax(count, visited, waiting, seed):
    generator = np.random.default_rng(seed)
    children = random_tree(count, generator)
    tree, history = SearchTree(children), []
    for _ in range(visited):
        history.append((drawn_from(tree, generator), float(generator.random())))
        tree.update(*history[-1])
    assert not any(tree.pending)
    pending = [drawn_from(tree, generator) for _ in range(waiting)]
    chances = tree.chances()
    assert chances.sum() == pytest.approx(1)
    assert np.allclose(chances, restated(children, count, history, pending), atol=1e-12)
    assert tree.visits[-1] == visited
    for i, (left, right) in enumerate(children):
        assert tree.visits[count + i] == tree.visits[left] + tree.visits[right]


def test_draws_have_the_stated_chances():
    generator = np.random.default_rng(0)
    tree = SearchTree(halved(range(9)))
    for leaf in range(9):
        tree.expect(leaf)
        tree.update(leaf, 0.05 * leaf)
    chances, counts, state = tree.chances(), np.zeros(9), tree.state()
    for _ in range(3000):
        counts[SearchTree.restored(state).draw(generator)] += 1
    assert ((counts - 3000 * chances) ** 2 / (3000 * chances)).sum() < 26.1  # chi-square, 8 degrees, p = 0.001
    assert chances[0] < chances[1]  # siblings


def survey(accuracy_P, outputs_PV=None):
    return Survey(np.repeat(np.asarray(accuracy_P, float)[:, None], 5, axis=1), outputs_PV)


def test_each_iteration_sorts_anew_and_forgets_the_old_tree():
    one, _ = make("iterative-mcts", SPACE, steps=100, warm_up=0.2)
    play(one, 20)
    accuracy_P = np.random.default_rng(0).permutation(36) / 36
    one.learn_survey(survey(accuracy_P))
    best_first = np.argsort(-accuracy_P)
    assert leaves_below(one._tree.children, 36)[-1] == best_first.tolist()
    assert sum(one._tree.visits) == 0
    assert [one._tree.visits[-1] for _ in range(20) if play(one, 1)] == list(range(1, 21))
    one.learn_survey(survey(-accuracy_P))
    assert leaves_below(one._tree.children, 36)[-1] == best_first[::-1].tolist()
    assert sum(one._tree.visits) == 0
    assert one.state()["surveyed"] == 2


def test_equal_accuracies_keep_the_order_of_the_space():
    one, _ = make("iterative-mcts", SPACE)
    one.learn_survey(survey(np.ones(36)))
    assert leaves_below(one._tree.children, 36)[-1] == list(range(36))


@pytest.mark.parametrize("method", ["iterative-mcts", "learned-hierarchy"])
def test_the_warm_up_is_uniform_and_the_search_prefers_a_good_branch(method):
    one, _ = make(method, SPACE, steps=3000, warm_up=0.4, draw="rounds")
    good = np.array([pooling[0] == 4 for pooling in SPACE])
    outputs_PV = np.random.default_rng(0).random((36, 8)) / 8 + good[:, None]

    def reward(_, pooling, __):
        return 0.9 if pooling[0] == 4 else 0.1

    first = play(one, 36 * 20, reward)
    assert {pooling: first.count((pooling, 0)) for pooling in SPACE} == dict.fromkeys(SPACE, 20)
    play(one, 1200 - 36 * 20, reward)
    drawn = []
    while one.state()["step"] < 3000:
        if one.next_survey == one.state()["step"]:
            one.learn_survey(survey([reward(one, p, 0) for p in SPACE], outputs_PV))
        drawn += play(one, 1, reward)
    assert np.mean([pooling[0] == 4 for pooling, _ in drawn]) > 2 * good.mean()


def test_the_hierarchy_separates_different_outputs_first():
    generator = np.random.default_rng(3)
    one, _ = make("learned-hierarchy", SPACE)
    group_P = generator.integers(2, size=36)
    subgroup_P = generator.integers(2, size=36)
    centers = np.array([[0, 0, 0], [0, 0.2, 0], [1, 0, 0], [1, 0, 0.2]])
    outputs_PV = (centers[2 * group_P + subgroup_P] + generator.normal(0, 0.01, (36, 3))).astype(np.float32)
    one.learn_survey(survey(np.zeros(36), outputs_PV))
    below = leaves_below(one._tree.children, 36)
    for side in one._tree.children[-1]:
        assert len(set(group_P[below[side]])) == 1
        for inner in one._tree.children[side - 36]:
            assert len(set(subgroup_P[below[inner]])) == 1


def test_a_diverged_network_does_not_stop_the_clustering():
    one, _ = make("learned-hierarchy", SPACE)
    outputs_PV = np.random.default_rng(0).random((36, 8))
    outputs_PV[3] = np.nan
    one.learn_survey(survey(np.zeros(36), outputs_PV))
    assert sorted(leaves_below(one._tree.children, 36)[-1]) == list(range(36))


def test_the_log_has_the_entropy_of_the_draws():
    one, _ = make("iterative-mcts", SPACE, warm_up=0.1)
    assert one.summary() == {"temperature": 0.7}
    play(one, 20)
    one.learn_survey(survey(np.arange(36)))
    assert one.summary()["draw_entropy"] == pytest.approx(-sum(p * np.log(p) for p in one._tree.chances()))
    ask(one)
    assert 0 <= one.summary()["draw_entropy"] < np.log(36)
