"""Replay a tiny seeded search: draws, scores and assignment must not change by accident.

After an intended change, rewrite the file with ``python tests/golden/test_golden.py`` and give the reason in the CHANGELOG.
Accuracies may differ by one image between processors, hence the tolerance on scores.
"""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import draw_images
from poolwise.config import Config
from poolwise.datasets.sources import Source
from poolwise.experiment import resolve
from poolwise.progress import Listener
from poolwise.rng import Streams
from poolwise.spaces import PoolingSpace
from poolwise.supernets.samplers import Task, sampler
from poolwise.supernets.state import SearchState
from poolwise.supernets.trainer import train_block

FILE = Path(__file__).with_name("search.json")


def tiny_search() -> dict:
    """Run 54 steps of ResNet20 of width 2 on tiny images, M = 3."""
    source = Source("tiny", draw_images(120, 8, 1), draw_images(30, 8, 2), ("red", "green", "blue"))
    config = Config.from_flat(
        width=2, supernets=3, steps=54, batch_size=20, lr=0.02, temperature=20, draw="rounds", block=1,
        precision="float32", device="cpu", seed=11,
    )  # fmt: skip
    state = SearchState(resolve(config, source))
    while state.step < state.steps:
        train_block(state)
    return numbers(state.sampler)


def numbers(one) -> dict:
    everything = list(one.space)
    return {"scores": one.scores_of(everything).tolist(), "assignment": one.assignment_of(everything).tolist()}


def sampler_draws() -> dict:
    """Answer 300 asks with seeded accuracies: no network, no rounding of convolutions."""
    streams, accuracies = Streams(5), np.random.default_rng(5)
    task = Task(PoolingSpace(10, 2), 4, 300, (1, 100), "rounds", streams["draw"], streams["assign"])
    one, asks = sampler("mixture")(task), []
    for _ in range(300):
        pooling, m = one.ask()
        asks.append(f"{pooling}@{m}")
        one.tell(pooling, m, float(accuracies.integers(30, 90)) / 100)
    return {"asks": asks, **numbers(one)}


def test_sampler_replays():
    stored, replayed = json.loads(FILE.read_text())["sampler"], sampler_draws()
    assert replayed["asks"] == stored["asks"]
    assert np.allclose(replayed["scores"], stored["scores"], atol=1e-12)
    assert np.allclose(replayed["assignment"], stored["assignment"], atol=1e-6)


def test_search_replays():
    stored, replayed = json.loads(FILE.read_text())["search"], tiny_search()
    assert np.allclose(replayed["scores"], stored["scores"], atol=0.012)  # two images of twenty, in a moving average
    assert np.allclose(replayed["assignment"], stored["assignment"], atol=0.1)


if __name__ == "__main__":
    FILE.write_text(json.dumps({"search": tiny_search(), "sampler": sampler_draws()}) + "\n")
    Listener().note(f"wrote {FILE}")
