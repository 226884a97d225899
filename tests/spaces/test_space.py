import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolwise.errors import PoolwiseError, RequestError
from poolwise.spaces import Pooling, PoolingSpace


@st.composite
def spaces(draw, most_layers=14):
    layers = draw(st.integers(1, most_layers))
    if draw(st.booleans()):
        return PoolingSpace(layers, draw(st.integers(0, 4)) if layers > 1 else 0, shared_slots=True)
    poolings = draw(st.integers(0, min(layers - 1, 4)))
    return PoolingSpace(layers, poolings, min_stage=draw(st.integers(1, layers // (poolings + 1))))


def enumerated(space: PoolingSpace) -> list[tuple[int, ...]]:
    """Return all members by trying every combination of positions."""
    choose = itertools.combinations_with_replacement if space.shared_slots else itertools.combinations
    members = []
    for positions in choose(range(1, space.layers), space.poolings):
        edges = [0, *positions, space.layers]
        stages = tuple(b - a for a, b in itertools.pairwise(edges))
        if space.shared_slots or min(stages) >= space.min_stage:
            members.append(stages)
    return sorted(members)


@pytest.mark.parametrize(("layers", "poolings", "size"), [(10, 2, 36), (9, 3, 56), (17, 3, 560), (16, 3, 455)])
def test_published_sizes(layers, poolings, size):
    assert len(PoolingSpace(layers, poolings)) == size
    assert len(list(PoolingSpace(layers, poolings))) == size


@given(spaces())
def test_members_match_enumeration(space):
    assert [tuple(pooling) for pooling in space] == enumerated(space)
    assert len(space) == len(enumerated(space))


@given(spaces(), st.data())
def test_index_inverts_getitem(space, data):
    i = data.draw(st.integers(0, len(space) - 1))
    assert space.index(space[i]) == i
    assert space[i] in space
    assert space[i - len(space)] == space[i]


@given(spaces(), st.data())
def test_text_round_trip(space, data):
    pooling = space[data.draw(st.integers(0, len(space) - 1))]
    assert space.parse(str(pooling)) == pooling
    assert space.parse(str(list(pooling))) == pooling
    assert Pooling.from_positions(pooling.positions, space.layers) == pooling
    assert pooling.depths().count(0) == pooling[0]


@given(spaces(9), st.data())
def test_neighbours_move_one_pooling_by_one_layer(space, data):
    pooling = space[data.draw(st.integers(0, len(space) - 1))]

    def distance(other):
        return sum(abs(a - b) for a, b in zip(pooling.positions, other.positions, strict=True))

    assert space.neighbours(pooling) == [other for other in space if distance(other) == 1]
    assert all(pooling in space.neighbours(other) for other in space.neighbours(pooling))


def test_large_spaces_stay_lazy():
    space = PoolingSpace(200, 12)
    assert space.size > 10**18
    assert space.index(space[space.size // 3]) == space.size // 3
    huge = PoolingSpace(2_000, 40)
    drawn = huge.sample(np.random.default_rng(0), 20)
    assert len(set(drawn)) == 20
    assert all(pooling in huge for pooling in drawn)


def test_sampling_is_uniform():
    space = PoolingSpace(6, 2)
    counts = np.zeros(len(space))
    for pooling in space.sample(np.random.default_rng(0), 5000):
        counts[space.index(pooling)] += 1
    expected = 5000 / len(space)
    assert ((counts - expected) ** 2 / expected).sum() < 27.9  # chi-square, 9 degrees of freedom, 0.1 %


@given(st.text(max_size=30))
def test_parse_returns_a_pooling_or_raises_one_line(text):
    try:
        pooling, message = Pooling.parse(text), ""
    except PoolwiseError as error:
        pooling, message = None, str(error)
    assert "\n" not in message
    assert pooling is None or Pooling.parse(str(pooling)) == pooling


@pytest.mark.parametrize(
    "text", ["", "5", "5-3-2-0", "0-5-5", "5--2", "5-3-a", "[5,3", "5-3-3", "5-5", "-5-3-2", "٥-3-2"]
)
def test_invalid_configurations_are_rejected(text):
    with pytest.raises(RequestError):
        PoolingSpace(10, 2).parse(text)


def test_invalid_spaces_are_rejected():
    with pytest.raises(RequestError, match="need 11 layers"):
        PoolingSpace(10, 10)
    for arguments in ((0, 0), (10, -1), (10, 2.0), (10, True)):
        with pytest.raises(RequestError):
            PoolingSpace(*arguments)
    with pytest.raises(RequestError):
        PoolingSpace(10, 2, min_stage=4)
    with pytest.raises(IndexError):
        PoolingSpace(10, 2)[36]


def test_space_does_not_import_torch():
    code = "import sys, poolwise; poolwise.PoolingSpace(10, 2); assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@given(spaces(most_layers=9))
def test_next_stages_reach_every_member_once(space):
    def walk(prefix):
        if len(prefix) == space.poolings + 1:
            return [Pooling(prefix)]
        return [pooling for stage in space.next_stages(prefix) for pooling in walk((*prefix, stage))]

    assert walk(()) == list(space)
