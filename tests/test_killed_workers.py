"""Worker processes that are killed, and workers of a killed parent."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from poolwise import api
from poolwise.errors import RunFailure
from poolwise.progress import Listener

POOLWISE = shutil.which("poolwise", path=str(Path(sys.executable).parent))


@pytest.fixture(scope="module")
def config(short_settings):
    return short_settings


class Kills(Listener):
    """Kills one worker process at the first steps of a stage."""

    def __init__(self, stage):
        self.wanted, self.killed = stage, 0

    def start(self, stage, total, done=0):
        self.stage = stage

    def advance(self, units=1, **info):
        if self.stage != self.wanted or self.killed or not units:
            return
        for child in psutil.Process().children():
            if "spawn_main" in " ".join(child.cmdline()):
                child.send_signal(signal.SIGKILL)
                self.killed = child.pid
                return


@pytest.mark.slow
def test_a_search_resumes_after_a_killed_worker(config, tiny_source, tmp_path):
    config = config.replace(workers=2, threads=1, block=4, steps=40)
    api.search(config, tmp_path / "undisturbed", source=tiny_source)
    killer = Kills("search")
    with pytest.raises(RunFailure, match="a worker process died"):
        api.search(config, tmp_path / "run", source=tiny_source, listener=killer)
    assert killer.killed
    api.resume(tmp_path / "run", source=tiny_source)
    name = "checkpoints/search.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


@pytest.mark.slow
def test_the_training_of_a_killed_worker_is_repeated(config, tiny_source, tmp_path):
    config = config.replace(retrain_steps=20)
    api.run(config, tmp_path / "undisturbed", source=tiny_source)
    killer = Kills("retrain")
    api.run(config.replace(workers=2), tmp_path / "run", source=tiny_source, listener=killer)
    assert killer.killed
    for path in (tmp_path / "undisturbed" / "checkpoints").iterdir():
        assert (tmp_path / "run" / "checkpoints" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_workers_end_with_a_killed_parent(tmp_path, image_folder):
    options = ["--width", "2", "--steps", "3000", "--batch-size", "8", "--image-size", "8", "--device", "cpu"]
    options += ["--precision", "float32", "--block", "4", "--workers", "2", "--data", f"folder:{image_folder}"]
    options += ["--supernets", "2"]
    with subprocess.Popen(
        [POOLWISE, "search", *options, "--out", str(tmp_path / "run")], stdout=subprocess.DEVNULL
    ) as run:
        until, workers = time.monotonic() + 60, []
        while len(workers) < 2 and time.monotonic() < until:
            time.sleep(0.1)
            workers = psutil.Process(run.pid).children(recursive=True)
        run.kill()
    assert len(workers) >= 2
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []
