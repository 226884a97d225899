"""The installed command on real CIFAR-10 images: search, rank, retrain, report."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from poolwise.datasets import cifar10

POOLWISE = shutil.which("poolwise", path=str(Path(sys.executable).parent))
SMALL = ["--images", "600", "--width", "4", "--steps", "72", "--batch-size", "32", "--supernets", "2"]
SHORT = ["--retrain-steps", "20", "--retrain-seeds", "2"]


def poolwise(*arguments):
    return subprocess.run([POOLWISE, *map(str, arguments)], capture_output=True, text=True, timeout=900)


@pytest.mark.slow
def test_cifar10_has_the_official_content():
    done = poolwise("data", "cifar10", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["shapes"]["train_images"] == [50_000, 32, 32, 3]
    source = cifar10.load()
    assert np.bincount(source.train.labels).tolist() == [5000] * 10
    assert np.bincount(source.test.labels).tolist() == [1000] * 10


@pytest.mark.slow
def test_two_processes_fill_an_empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POOLWISE_CACHE", str(tmp_path))
    both = [subprocess.Popen([POOLWISE, "data", "cifar10"], stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=600) for process in both] == [0, 0]
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["cifar10", "cifar10.lock"]
    (tmp_path / "cifar10" / "test_labels.npy").write_bytes(b"damaged")
    assert poolwise("data", "cifar10").returncode == 0
    assert cifar10.fetch()["test_labels"].shape == (10_000,)


@pytest.mark.slow
def test_stages_equal_the_run_in_another_process(tmp_path):
    staged, run = tmp_path / "staged", tmp_path / "whole"
    for command in (
        ["search", *SMALL, "--out", staged],
        ["rank", staged],
        ["retrain", staged, *SHORT],
        ["report", staged],
    ):
        done = poolwise(*command)
        assert done.returncode == 0, done.stderr
    done = poolwise("run", *SMALL, *SHORT, "--out", run)
    assert done.returncode == 0, done.stderr
    assert "verdict: " in done.stdout
    assert "This was a demonstration" in done.stdout.splitlines()[-1]
    ours, theirs = (json.loads((path / "ranking.json").read_text()) for path in (staged, run))
    assert ours["ranking"] == theirs["ranking"]
    assert ours["data"]["fingerprint"] == theirs["data"]["fingerprint"]
    again = poolwise("run", *SMALL, *SHORT, "--out", tmp_path / "again")
    assert again.returncode == 0
    assert (tmp_path / "again" / "ranking.json").read_bytes() == (run / "ranking.json").read_bytes()
    assert (tmp_path / "again" / "retrain.json").read_bytes() == (run / "retrain.json").read_bytes()
    page = (run / "report.html").read_text()
    assert page.count("<svg") == 5
    assert "airplane" in page
