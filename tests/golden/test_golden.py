"""A tiny seeded search, stored and replayed: draws, scores and assignment must not change by accident.

After a change that is meant to alter them: ``python tests/golden/test_golden.py`` writes the file anew; say why in the
CHANGELOG. Accuracies of other processors may differ by an image, hence the tolerance on scores.
"""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import draw_images
from poolwise.images.sources import Source
from poolwise.problem import Problem
from poolwise.progress import Listener
from poolwise.rng import Streams
from poolwise.searching.loop import SearchState
from poolwise.searching.samplers import BalancedMixture
from poolwise.settings import Settings
from poolwise.space import PoolingSpace

FILE = Path(__file__).with_name("search.json")


def tiny_search() -> dict:
    """54 steps of ResNet20 of width 2 on tiny images, M = 3."""
    source = Source("tiny", draw_images(120, 8, 1), draw_images(30, 8, 2), ("red", "green", "blue"))
    settings = Settings(
        width=2, supernets=3, steps=54, batch_size=20, lr=0.02, temperature=20, draw="rounds", block=1,
        precision="float32", device="cpu", seed=11,
    )  # fmt: skip
    state = SearchState(Problem(settings, source))
    while state.step < state.steps:
        state.advance()
    return {"scores": state.sampler.scores.tolist(), "assignment": state.sampler.assignment().tolist()}


def sampler_alone() -> dict:
    """300 asks answered by seeded accuracies: no network, no rounding of convolutions."""
    streams, accuracies = Streams(5), np.random.default_rng(5)
    sampler = BalancedMixture(PoolingSpace(10, 2), 4, 300, (1, 100), "rounds", streams["draw"], streams["assign"])
    asks = []
    for _ in range(300):
        pooling, m = sampler.ask()
        asks.append(f"{pooling}@{m}")
        sampler.tell(pooling, m, float(accuracies.integers(30, 90)) / 100)
    return {"asks": asks, "scores": sampler.scores.tolist(), "assignment": sampler.assignment().tolist()}


def test_sampler_replays():
    stored, found = json.loads(FILE.read_text())["sampler"], sampler_alone()
    assert found["asks"] == stored["asks"]
    assert np.allclose(found["scores"], stored["scores"], atol=1e-12)
    assert np.allclose(found["assignment"], stored["assignment"], atol=1e-6)


def test_search_replays():
    stored, found = json.loads(FILE.read_text())["search"], tiny_search()
    assert np.allclose(found["scores"], stored["scores"], atol=0.012)  # two images of twenty, in a moving average
    assert np.allclose(found["assignment"], stored["assignment"], atol=0.1)


def test_sampler_state_continues_identically():
    def make():
        streams = Streams(2)
        sampler = BalancedMixture(PoolingSpace(10, 2), 2, 80, (1, 100), "rounds", streams["draw"], streams["assign"])
        return streams, sampler

    def play(sampler, steps):
        asks = []
        for i in range(steps):
            asks.append(sampler.ask())
            sampler.tell(*asks[-1], 0.5 + 0.01 * (i % 7))
        return asks

    streams, sampler = make()
    play(sampler, 30)
    saved = json.loads(json.dumps([streams.state(), sampler.state()]))
    expected = play(sampler, 40)
    again_streams, again = make()
    again_streams.restore(saved[0])
    again.restore(saved[1])
    assert play(again, 40) == expected
    assert np.array_equal(again.scores, sampler.scores)


def test_rounds_visit_every_configuration_once():
    streams, space = Streams(0), PoolingSpace(10, 2)
    sampler = BalancedMixture(space, 2, 100, (1, 100), "rounds", streams["draw"], streams["assign"])
    for _ in range(2):
        seen = []
        for _ in range(36):
            pooling, m = sampler.ask()
            sampler.tell(pooling, m, 0.5)
            seen.append(pooling)
        assert sorted(seen) == list(space)


if __name__ == "__main__":
    FILE.write_text(json.dumps({"search": tiny_search(), "sampler": sampler_alone()}) + "\n")
    Listener().note(f"wrote {FILE}")
