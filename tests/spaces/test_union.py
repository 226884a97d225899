"""Spaces with several numbers of downsamplings, in one order and in closed form."""

import itertools
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolwise.errors import RequestError
from poolwise.spaces import Pooling, PoolingSpace, Subspace, UnionSpace, positions, read, space_of, subset


@st.composite
def unions(draw, most_layers=11):
    """A union with what it was made of: all members by hand, in order."""
    layers, shared = draw(st.integers(2, most_layers)), draw(st.booleans())
    most = 4 if shared else min(layers - 1, 4)
    counts = draw(st.sets(st.integers(0, most), min_size=1, max_size=4))
    least = 1 if shared else draw(st.integers(1, layers // (max(counts) + 1)))
    spare = [count for count in range(most + 1) if count not in counts and (shared or least * (count + 1) <= layers)]
    also = [draw(st.sampled_from(list(PoolingSpace(layers, count, least, shared)))) for count in spare[:1]]
    space = space_of(layers, counts, least, shared, also)
    plain = [pooling for count in counts for pooling in PoolingSpace(layers, count, least, shared)]
    return space, sorted([*plain, *also])


@settings(deadline=None, max_examples=30)
@given(unions())
def test_members_are_those_of_the_parts_sorted(made):
    space, expected = made
    assert list(space) == expected
    assert space.size == len(space) == len(expected)
    assert [space.index(pooling) for pooling in expected] == list(range(len(expected)))
    assert space[-1] == expected[-1]
    assert all(pooling in space for pooling in expected)
    assert space.counts == tuple(sorted({pooling.poolings for pooling in expected}))
    assert space.poolings == max(space.counts)


@settings(deadline=None, max_examples=30)
@given(unions(), st.data())
def test_json_round_trip_of_spaces_and_subspaces(made, data):
    space, expected = made
    assert read(space.to_json()) == space
    chosen = data.draw(st.lists(st.sampled_from(expected), min_size=1, unique=True))
    part = Subspace.of(space, chosen)
    assert list(part) == sorted(chosen)
    assert read(part.to_json()) == part
    assert part.full == space


@settings(deadline=None, max_examples=30)
@given(unions(8))
def test_next_stages_reach_every_member_once(made):
    space, expected = made

    def walk(prefix):
        assert space.completions(prefix) == sum(p.stages[: len(prefix)] == prefix for p in expected)
        if sum(prefix) == space.layers:
            return [Pooling(prefix)]
        first = space.below(prefix)
        assert all(space[first + i].stages[: len(prefix)] == prefix for i in range(space.completions(prefix)))
        return [pooling for stage in space.next_stages(prefix) for pooling in walk((*prefix, stage))]

    assert walk(()) == expected


@settings(deadline=None, max_examples=30)
@given(unions(9), st.data())
def test_neighbours_are_symmetric_and_reach_everything(made, data):
    space, expected = made
    around = {pooling: space.neighbours(pooling) for pooling in expected}
    for pooling, neighbours in around.items():
        assert neighbours == sorted(set(neighbours) - {pooling})
        assert all(pooling in around[other] for other in neighbours)
        same = [other for other in neighbours if other.poolings == pooling.poolings]
        assert same == [o for o in expected if o.poolings == pooling.poolings and apart(pooling, o) == 1]
    if not any(isinstance(part, Subspace) for part in getattr(space, "parts", ())):
        reached, waiting = set(), [expected[0]]
        while waiting:
            pooling = waiting.pop()
            if pooling not in reached:
                reached.add(pooling)
                waiting += around[pooling]
        assert reached == set(expected)


def apart(one, other):
    """Return the difference in downsamplings passed, summed over layers."""
    return sum(abs(a - b) for a, b in zip(one.depths(), other.depths(), strict=True))


@settings(deadline=None, max_examples=30)
@given(unions(9))
def test_position_distance_equals_depth_distance(made):
    _, expected = made
    padded = positions(expected)
    for (a, one), (b, other) in itertools.product(enumerate(expected), repeat=2):
        assert sum(abs(x - y) for x, y in zip(padded[a], padded[b], strict=True)) == apart(one, other)


@settings(deadline=None, max_examples=30)
@given(unions(9), st.integers(0, 8))
def test_depths_at_a_layer(made, layer):
    space, expected = made
    if layer >= space.layers or any(isinstance(part, Subspace) for part in getattr(space, "parts", ())):
        return
    assert space.depths_at(layer) == sorted({pooling.depths()[layer] for pooling in expected})


def test_single_number_gives_the_plain_space():
    assert space_of(10, [2]) == PoolingSpace(10, 2)
    assert space_of(10, [2], also=["4-3-3"]) == PoolingSpace(10, 2)
    assert space_of(10, [2, 3]).to_json() == {"layers": 10, "poolings": [2, 3], "min_stage": 1, "shared_slots": False}
    assert isinstance(space_of(10, [3], also=["4-3-3"]), UnionSpace)
    assert space_of(10, [3], also=["4-3-3"]).size == 85


def test_invalid_unions_are_rejected():
    with pytest.raises(RequestError, match=r"10 downsamplings .* need 11 layers"):
        space_of(10, [2, 10])
    with pytest.raises(RequestError, match="at least one"):
        space_of(10, [])
    with pytest.raises(RequestError, match="10 layers and 2 or 3 downsamplings"):
        space_of(10, [2, 3]).parse("4-6")
    with pytest.raises(IndexError):
        space_of(10, [2, 3])[1000]


def test_large_space_is_never_enumerated():
    space = space_of(56, [4, 5], also=[Pooling((20, 18, 18))])
    assert space.size == 3_478_761 + 341_055 + 1
    started = time.perf_counter()
    drawn = space.sample(np.random.default_rng(0), 100)
    assert [space[space.index(pooling)] for pooling in drawn] == drawn
    assert all(space.neighbours(pooling) for pooling in drawn)
    assert time.perf_counter() - started < 10
    tracemalloc.start()
    chosen = subset(space, 500, np.random.default_rng(1), [Pooling((20, 18, 18))])
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()
    assert chosen.size == 500
    assert Pooling((20, 18, 18)) in chosen
    many = [pooling.poolings for pooling in chosen]
    assert 0.04 < many.count(4) / 500 < 0.15  # 9 % have four


def test_a_subset_is_seeded_and_uniform():
    space = space_of(8, [1, 2])
    draw = lambda seed: subset(space, 7, np.random.default_rng(seed), [Pooling((3, 3, 2))])  # noqa: E731
    assert list(draw(3)) == list(draw(3)) != list(draw(4))
    counts = np.zeros(space.size)
    for seed in range(1000):
        for pooling in draw(seed):
            counts[space.index(pooling)] += 1
    kept = space.index("3-3-2")
    assert counts[kept] == 1000
    others = np.delete(counts, kept)
    expected = 6000 / len(others)
    assert ((others - expected) ** 2 / expected).sum() < 52.6  # chi-square at 0.1 %, 26 degrees of freedom or fewer
    assert subset(space, space.size, np.random.default_rng(0)) is space
