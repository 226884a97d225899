"""The API has no global state: searches in two threads do not affect each other, and process-wide state is restored."""

import dataclasses
import random
import signal
import sys
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

import poolwise
from poolwise.process import cudnn_kernels, generators_kept, threads_here


def in_a_thread(function):
    """Return what ``function`` returns in a thread that has not used torch yet."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


class Drawn(nn.Module):
    """A network whose weights come from every global generator."""

    def __init__(self, classes=10):
        super().__init__()
        self.blocks = nn.Sequential(*(self.block(i) for i in range(4)))
        self.head = nn.Linear(3, classes)
        with torch.no_grad():
            self.head.bias += float(np.random.rand()) + random.random()

    @staticmethod
    def block(i):
        layers = [nn.MaxPool2d(2)] if i in (1, 2) else []
        return nn.Sequential(*layers, nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())

    def forward(self, images):
        return self.head(self.blocks(images).mean((2, 3)))


def state():
    """Return process-wide state that a library must not change."""
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
        "threads here": torch.get_num_threads(),
        "threads of others": in_a_thread(torch.get_num_threads),
        "signals": [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)],
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
    }


def run_stages(config, run, **more):
    """Run all stages except the report."""
    poolwise.search(config, run, **more)
    poolwise.rank(run, source=more["source"])
    poolwise.retrain(run, source=more["source"])


def everything(run):
    """Return the bytes of the results of a run."""
    files = [run / "ranking.json", run / "retrain.json", *sorted((run / "checkpoints").iterdir())]
    return {file.name: file.read_bytes() for file in files}


@pytest.fixture(params=[1, pytest.param(2, marks=pytest.mark.slow)])
def requests(request, tiny_settings, tiny_source):
    """Return two searches that differ in threads and in their use of the global generators."""
    config = tiny_settings.replace(retrain_seeds=1, retrain_steps=3, steps=20)
    model = poolwise.backbone("drawn", Drawn)
    one = config.replace(model=model, width=None, threads=request.param, seed=1)
    two = config.replace(threads=1, seed=2, steps=24)
    turning = dataclasses.replace(tiny_source, augment=v2.RandomRotation(20))
    return {"one": (one, tiny_source), "two": (two, turning)}


def test_searches_in_two_threads_equal_sequential_ones(tmp_path, requests):
    sequential, parallel, failures = tmp_path / "alone", tmp_path / "together", []
    before = state()
    for name, (config, source) in requests.items():
        run_stages(config, sequential / name, source=source)
        assert state() == before
    inside = threading.Barrier(2)

    class Waits(poolwise.Listener):
        """Starts each search when the other one is ready."""

        def start(self, stage, total, done=0):
            if stage == "search":
                inside.wait(60)

    def search(name):
        config, source = requests[name]
        try:
            run_stages(config, parallel / name, source=source, listener=Waits())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=search, args=(name,)) for name in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for name in requests:
        assert everything(parallel / name) == everything(sequential / name)
    assert state() == before


def test_the_number_of_threads_is_set_for_one_thread():
    before = state()
    seen, inside, leave = {}, threading.Event(), threading.Event()

    def other():
        with threads_here(3):
            seen["other"] = torch.get_num_threads()
            inside.set()
            leave.wait(30)
            seen["other, later"] = torch.get_num_threads()

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(30)
    with threads_here(2):
        assert torch.get_num_threads() == 2
        assert in_a_thread(torch.get_num_threads) == before["threads of others"]
        leave.set()
        thread.join()
        assert torch.get_num_threads() == 2
    assert seen == {"other": 3, "other, later": 3}
    assert state() == before


def test_global_generators_are_locked():
    before, inside, drawn = state(), threading.Event(), []

    def other():
        inside.wait(30)
        with generators_kept():
            torch.manual_seed(5)
            drawn.append(torch.rand(3).tolist())

    thread = threading.Thread(target=other)
    thread.start()
    with generators_kept():
        torch.manual_seed(4)
        inside.set()
        thread.join(0.2)
        assert thread.is_alive(), "the other thread waits"
        mine = torch.rand(3).tolist()
    thread.join()
    assert mine == torch.rand(3, generator=torch.Generator().manual_seed(4)).tolist()
    assert drawn == [torch.rand(3, generator=torch.Generator().manual_seed(5)).tolist()]
    assert state() == before


def test_cudnn_flags_of_two_threads_are_restored():
    before, inside = state(), threading.Event()

    def other():
        inside.wait(30)
        with cudnn_kernels(True):
            assert torch.backends.cudnn.deterministic

    thread = threading.Thread(target=other)
    thread.start()
    with cudnn_kernels(False):
        inside.set()
        thread.join(0.2)
        with cudnn_kernels(False):
            assert torch.backends.cudnn.deterministic
            assert not torch.backends.cudnn.allow_tf32
    thread.join()
    assert state() == before


def test_a_run_needs_neither_the_main_thread_nor_a_terminal(tmp_path, tiny_settings, tiny_source, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys, "stdout", None)  # as in some notebook kernels
    run = in_a_thread(lambda: poolwise.search(tiny_settings, tmp_path / "run", source=tiny_source))
    assert run.to_rows()[-1]["step"] == tiny_settings.search.steps
