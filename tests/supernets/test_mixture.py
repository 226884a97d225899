"""SuperNets on a GPU: streams change how long a block takes and nothing else."""

import pytest
import torch

from poolwise.experiment import Experiment
from poolwise.rng import Streams
from poolwise.settings import Settings
from poolwise.supernets.mixture import TRIED_BLOCKS, Job, Lanes, SuperNets


def lanes_after(plain, streamed):
    lanes = Lanes(torch.device("cpu"), 3, "off")
    assert lanes.streams == []
    lanes.streams = ["streams of a GPU"]
    lanes._seconds = [plain, streamed]
    return lanes


def test_a_cpu_has_no_streams_and_blocks_run_in_order():
    lanes = Lanes(torch.device("cpu"), 3, "off")
    assert not lanes.active
    assert lanes.run([2, 0, 1], lambda i: i * i, lambda results: [*results, "waited"]) == [0, 1, 4, "waited"]


def test_both_ways_are_tried_in_turn_and_the_faster_is_kept():
    assert not lanes_after([], []).active
    assert lanes_after([0.1], []).active
    assert not lanes_after([0.1], [0.1]).active
    tried, slow_once = [0.1] * TRIED_BLOCKS, [9.0, *[0.05] * (TRIED_BLOCKS - 1)]
    assert lanes_after(tried, slow_once).active
    assert not lanes_after(slow_once, tried).active


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_streams_change_no_result(tiny_source, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    settings = Settings(width=4, supernets=3, steps=8, batch_size=16, device="cuda", precision="float32")
    problem, found = Experiment(settings, tiny_source), []
    for active in (False, True):
        nets = SuperNets(problem, Streams(0))
        nets.lanes._seconds = [[float(active)] * TRIED_BLOCKS, [float(not active)] * TRIED_BLOCKS]
        assert nets.lanes.active == active
        jobs = [Job(problem.space[i], i % 3, 0.1, nets.training.draw(), nets.scoring.draw()) for i in range(8)]
        found.append((nets.run_all(jobs), [p.detach().cpu() for net in nets.networks for p in net.parameters()]))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(one, other) for one, other in zip(found[0][1], found[1][1], strict=True))
