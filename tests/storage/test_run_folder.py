"""The run folder, atomic writes and the lock."""

import json
import os
import subprocess
import sys

import pytest
import torch

from poolwise.errors import RequestError, RunFailure
from poolwise.storage import RunFolder, exclusive, read_json, write_atomically


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", {"stages": []})


def test_a_folder_holds_only_one_run(tmp_path, folder):
    with pytest.raises(RequestError, match="holds another run"):
        RunFolder.create(folder.path, {})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("precious")
    with pytest.raises(RequestError, match="not an empty folder"):
        RunFolder.create(tmp_path / "full", {})
    with pytest.raises(RequestError, match="not a run folder"):
        RunFolder.open(tmp_path / "full")
    assert (tmp_path / "full" / "mine.txt").read_text() == "precious"


def test_a_failed_write_keeps_only_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomically(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFailure, match="No space left on device"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1', "null", "[" * 100_000])
def test_damaged_json_is_reported_in_one_line(tmp_path, text):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(RequestError) as error:
        read_json(path)
    assert "\n" not in str(error.value)


def test_checkpoint_round_trip_and_damage(folder):
    folder.save_checkpoint("search", {"a": torch.arange(6.0).reshape(2, 3).t()}, {"step": 3})
    tensors, meta = folder.load_checkpoint("search")
    assert torch.equal(tensors["a"], torch.arange(6.0).reshape(2, 3).t())
    assert meta["step"] == 3
    assert folder.load_checkpoint("other") is None
    path = folder.path / "checkpoints" / "search.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RequestError, match="is damaged"):
        folder.load_checkpoint("search")


def test_events_survive_an_incomplete_line(folder):
    for step in (1, 2, 3):
        folder.log({"event": "search", "step": step})
    folder.log({"event": "other", "step": 3})
    with (folder.path / "events.jsonl").open("a") as file:
        file.write('{"event": "sea')
    assert [event["step"] for event in folder.events("search")] == [1, 2, 3]
    folder.forget_events("search", 3)
    assert [event["step"] for event in folder.events("search")] == [1, 2]
    assert len(folder.events("other")) == 1


def test_trials(folder):
    trials = folder.trials()
    assert trials.accuracy("4-3-3", 1, 10) is None
    trials.record("4-3-3", 1, 10, 0.5, [[1, 2.0]], 3.0)
    trials.record("4-3-3", 1, 20, 0.6, [[1, 2.0]], 3.0)
    assert trials.accuracy("4-3-3", 1, 10) == 0.5
    assert [trial["budget"] for trial in folder.trials().all()] == [10, 20]
    trials.path.write_bytes(b"not a database at all, but long enough to be read as one" * 40)
    with pytest.raises(RunFailure, match=r"trials\.sqlite"):
        folder.trials()


def test_request_is_plain_json(folder):
    assert json.loads((folder.path / "run.json").read_text()) == {"format": 1, "stages": []}


def test_a_folder_is_exclusive_to_one_process(tmp_path):
    held = "import sys, time; from pathlib import Path; from poolwise.storage import exclusive\n"
    held += "with exclusive(Path(sys.argv[1])):\n"
    held += "    print('held', flush=True)\n    time.sleep(60)\n"
    with subprocess.Popen([sys.executable, "-c", held, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RequestError, match=f"in use by process {other.pid}: wait"), exclusive(tmp_path):
            pass
        other.kill()
        other.wait()
    with exclusive(tmp_path):  # the lock of a killed process is released
        assert (tmp_path / "holder.json").exists()
    assert not (tmp_path / "holder.json").exists()
    with exclusive(tmp_path):
        pass
