"""The beam: as wide as the space it scores everything, narrow it finds the top of what changes slowly, and says what it saw."""

import numpy as np
import pytest

import poolwise
from poolwise.rankings.beam import beam
from poolwise.rng import Streams
from poolwise.spaces import PoolingSpace, Subspace, space_of
from poolwise.storage import RunFolder

SPACES = [
    PoolingSpace(10, 2),
    PoolingSpace(9, 3),
    PoolingSpace(8, 2, shared_slots=True),
    space_of(9, (1, 3)),
]


class Truth:
    """Accuracy that changes slowly with the positions, and how often it was asked for."""

    def __init__(self, layers):
        self.layers, self.asked = layers, []

    def of(self, pooling):
        wanted = np.linspace(0.5, 0.8, max(pooling.poolings, 1)) * self.layers
        return -float(((np.array(pooling.positions, float) - wanted[: pooling.poolings]) ** 2).sum())

    def __call__(self, poolings):
        self.asked += poolings
        return np.array([self.of(pooling) for pooling in poolings])


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_as_wide_as_the_space_it_scores_everything_once(space):
    truth = Truth(space.layers)
    told = beam(space, space.size, truth, Streams(0)["beam"])
    assert list(told) == sorted(space)
    assert sorted(truth.asked) == sorted(space)
    assert all(value == truth.of(pooling) for pooling, value in told.items())


def test_a_chosen_part_of_a_space_is_gone_through_too():
    space = PoolingSpace(10, 2)
    chosen = Subspace.of(space, [space[i] for i in range(0, 36, 5)])
    assert list(beam(chosen, 36, Truth(10), Streams(0)["beam"])) == list(chosen)


def test_a_narrow_one_finds_the_top_of_a_large_space():
    """How often, by width: benchmarks/beam_recall.py."""
    space, found = PoolingSpace(20, 4), 0
    best = sorted(space, key=Truth(20).of)[-10:]
    for seed in range(10):
        truth = Truth(20)
        told = beam(space, 30, truth, Streams(seed)["beam"])
        assert len(told) == len(truth.asked) < space.size / 4
        found += max(told, key=told.get) in best
    assert found >= 9


def test_what_must_be_scored_is_and_draws_repeat():
    space = PoolingSpace(30, 5)
    first = [space[7], space[70_000]]
    one, again, other = (beam(space, 2, Truth(30), Streams(seed)["beam"], first) for seed in (0, 0, 1))
    assert one == again != other
    assert set(first) <= set(one)


def test_a_run_ranked_by_a_wide_beam_is_ranked_as_without(tmp_path, tiny_settings, tiny_source):
    told = []
    for name, width in (("plain", None), ("wide", 36), ("narrow", 1)):
        config = tiny_settings.replace(rank_beam=width)
        folder = poolwise.search(config, tmp_path / name, source=tiny_source)
        told.append(poolwise.rank(folder.path, source=tiny_source))
    plain, wide, narrow = told
    assert [(row["pooling"], row["score"]) for row in wide["ranking"]] == [
        (row["pooling"], row["score"]) for row in plain["ranking"]
    ]
    assert 1 < narrow["covered"] < 36 == narrow["configurations"]
    scores = {row["pooling"]: row["score"] for row in plain["ranking"]}
    assert all(row["score"] == scores[row["pooling"]] for row in narrow["ranking"])
    assert "4-3-3" in {row["pooling"] for row in narrow["ranking"]}
    assert "beam of width 1" in narrow["coverage"]


def test_a_run_that_ranks_by_a_beam_has_a_report(tmp_path, tiny_settings, tiny_source):
    """Its assignment through time is of the whole space, its ranking of what the beam came by."""
    config = tiny_settings.replace(rank_beam=1)
    poolwise.run(config, tmp_path / "run", source=tiny_source)
    assert 0 < len(RunFolder.open(tmp_path / "run").read("ranking.json", "")["ranking"]) < 36
    assert "Most probable SuperNet" in (tmp_path / "run" / "report.html").read_text()
