"""Short versions of benchmarks/reliability/soak.py and power.py: kills, damage and power failures at random times."""

import importlib.util
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

RELIABILITY = Path(__file__).parents[1] / "benchmarks" / "reliability"


@pytest.fixture(scope="module")
def bench():
    """Return a function that loads a script of benchmarks/reliability by name."""

    def load(name):
        spec = importlib.util.spec_from_file_location(name, RELIABILITY / f"{name}.py")
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    paths = list(sys.path)
    yield load
    sys.path[:] = paths
    for name in ("soak", "power", "common"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def data(bench, tmp_path_factory):
    return bench("soak").pictures(tmp_path_factory.mktemp("soak") / "pictures")


@pytest.mark.slow
def test_killed_commands_give_the_same_bytes():
    options = ["--kills", "2", "--damages", "0", "--no-write"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, RELIABILITY / "soak.py", *options],
        capture_output=True,
        text=True,
        timeout=580,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": 2 of 2 equal") == 6


@pytest.mark.slow
def test_damage_is_repaired_or_reported(bench, data, tmp_path):
    counts = bench("soak").soak_damages(21, tmp_path, data, random.Random("test"))
    assert counts["equal"] + counts["one line"] == 21
    assert counts["wrong"] == 0
    assert counts["equal"] > 10


@pytest.mark.slow
def test_memory_and_handles_do_not_grow(bench, data, tmp_path):
    seen = bench("soak").long_run(1000, tmp_path, data)
    assert len(seen) == 2
    assert seen[-1]["MiB"] - seen[0]["MiB"] < 20
    assert seen[-1]["handles"] == seen[0]["handles"]


@pytest.mark.parametrize("name", ["run", pytest.param("stages", marks=pytest.mark.slow), "exhaustive"])
def test_power_failures_lose_no_saved_results(bench, data, tmp_path, name):
    power, cuts = bench("power"), 4 if name == "run" else 6
    counts = power.cut(name, power.scripts(data)[name], cuts, tmp_path.resolve(), random.Random("test"))
    assert counts["moments"] > 20
    assert (counts["equal"], counts["wrong"]) == (cuts, 0)


@pytest.mark.slow
@pytest.mark.parametrize("forgotten", ["contents", "names"])
def test_a_missing_sync_is_detected(bench, data, tmp_path, monkeypatch, forgotten):
    """Without fsync of the files, or of the folders, saved checkpoints are lost when power fails."""
    from poolwise.storage import events, files, manifest, run_folder

    power = bench("power")
    if forgotten == "names":
        for module in (events, files, run_folder):
            monkeypatch.setattr(module, "sync_folder", lambda path: None)
    else:
        real = files.replace_file
        for module in (events, files, run_folder, manifest):
            monkeypatch.setattr(
                module, "replace_file", lambda path, payload, sync=True: real(path, payload, sync=False)
            )
    counts = power.cut("run", power.scripts(data)["run"], 6, tmp_path.resolve(), random.Random("test"))
    assert counts["wrong"] > 0
