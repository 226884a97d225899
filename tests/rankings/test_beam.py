"""Beam search: as wide as the space, it scores everything; narrow, it finds the best configurations of a smooth score."""

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
    """Accuracy that changes slowly with the positions, and the configurations for which it was requested."""

    def __init__(self, layers):
        self.layers, self.requested = layers, []

    def of(self, pooling):
        wanted = np.linspace(0.5, 0.8, max(pooling.poolings, 1)) * self.layers
        return -float(((np.array(pooling.positions, float) - wanted[: pooling.poolings]) ** 2).sum())

    def __call__(self, poolings):
        self.requested += poolings
        return np.array([self.of(pooling) for pooling in poolings])


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_beam_as_wide_as_the_space_scores_everything_once(space):
    truth = Truth(space.layers)
    scores = beam(space, space.size, truth, Streams(0)["beam"])
    assert list(scores) == sorted(space)
    assert sorted(truth.requested) == sorted(space)
    assert all(value == truth.of(pooling) for pooling, value in scores.items())


def test_subspace_is_searched():
    space = PoolingSpace(10, 2)
    chosen = Subspace.of(space, [space[i] for i in range(0, 36, 5)])
    assert list(beam(chosen, 36, Truth(10), Streams(0)["beam"])) == list(chosen)


def test_narrow_beam_finds_the_best_of_a_large_space():
    """The recall by width is measured in benchmarks/beam_recall.py."""
    space, hits = PoolingSpace(20, 4), 0
    best = sorted(space, key=Truth(20).of)[-10:]
    for seed in range(10):
        truth = Truth(20)
        scores = beam(space, 30, truth, Streams(seed)["beam"])
        assert len(scores) == len(truth.requested) < space.size / 4
        hits += max(scores, key=scores.get) in best
    assert hits >= 9


def test_required_configurations_are_scored_and_draws_are_reproducible():
    space = PoolingSpace(30, 5)
    first = [space[7], space[70_000]]
    one, again, other = (beam(space, 2, Truth(30), Streams(seed)["beam"], first) for seed in (0, 0, 1))
    assert one == again != other
    assert set(first) <= set(one)


def test_wide_beam_ranks_like_full_scoring(tmp_path, tiny_settings, tiny_source):
    rankings = []
    for name, width in (("plain", None), ("wide", 36), ("narrow", 1)):
        config = tiny_settings.replace(rank_beam=width)
        folder = poolwise.search(config, tmp_path / name, source=tiny_source)
        rankings.append(poolwise.rank(folder.path, source=tiny_source))
    plain, wide, narrow = rankings
    assert [(row["pooling"], row["score"]) for row in wide["ranking"]] == [
        (row["pooling"], row["score"]) for row in plain["ranking"]
    ]
    assert 1 < narrow["covered"] < 36 == narrow["configurations"]
    scores = {row["pooling"]: row["score"] for row in plain["ranking"]}
    assert all(row["score"] == scores[row["pooling"]] for row in narrow["ranking"])
    assert "4-3-3" in {row["pooling"] for row in narrow["ranking"]}
    assert "beam search of width 1" in narrow["coverage"]


def test_beam_ranking_has_a_report(tmp_path, tiny_settings, tiny_source):
    """The assignment over time covers the entire space, the ranking only the configurations that the beam search scored."""
    config = tiny_settings.replace(rank_beam=1)
    poolwise.run(config, tmp_path / "run", source=tiny_source)
    assert 0 < len(RunFolder.open(tmp_path / "run").read("ranking.json", "")["ranking"]) < 36
    assert "Most probable SuperNet" in (tmp_path / "run" / "report.html").read_text()
