"""Named random streams."""

import json
import subprocess
import sys

import numpy as np
import torch

from poolwise.rng import Streams


def test_streams_depend_only_on_seed_scope_and_name():
    first = Streams(3)
    first["other"].random(100)
    assert first["draw"].random() == Streams(3)["draw"].random()
    values = {s["draw"].random() for s in (Streams(3), Streams(4), Streams(3).child("a"), Streams(3).child("b"))}
    assert len(values) == 4
    assert Streams(3)["draw"].random() != Streams(3)["assign"].random()


def test_state_survives_json():
    streams = Streams(1)
    streams["draw"].random(7)
    state = json.loads(json.dumps(streams.state()))
    expected = streams["draw"].random(5)
    again = Streams(1)
    held, late = again["draw"], again["late"]
    late.random(3)
    again.restore(state)
    assert np.array_equal(held.random(5), expected)
    assert late.random() == Streams(1)["late"].random()


def test_another_process_draws_the_same_numbers():
    code = (
        "from poolwise.rng import Streams; print(Streams(5)['draw'].random(), Streams(5).torch('init').initial_seed())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == [str(Streams(5)["draw"].random()), str(Streams(5).torch("init").initial_seed())]


def test_global_generators_are_unchanged():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    Streams(0)["draw"].random()
    torch.rand(3, generator=Streams(0).torch("init"))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
