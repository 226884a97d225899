"""Damaged files are detected, reported, and restored or recreated."""

import json
import os
import sqlite3
import zlib

import pytest
import torch

from poolwise import api
from poolwise.config import Config
from poolwise.errors import RequestError, RunFailure
from poolwise.progress import Listener
from poolwise.storage import RunFolder

REQUEST = {"stages": [], "macs": 1}


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", REQUEST)


def spoil(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


def repaired(folder):
    notes = []
    lost = folder.repair(notes.append)
    return notes, lost


@pytest.mark.parametrize("how", [spoil, os.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_json_file_is_restored_from_its_copy(folder, how):
    folder.write_json("notes.json", {"format": 1, "ranking": list(range(50))})
    kept = (folder.path / "notes.json").read_bytes()
    how(folder.path / "notes.json")
    assert folder.read("notes.json", "")["ranking"] == list(range(50))
    notes, lost = repaired(folder)
    assert ["restored from its copy" in line for line in notes] == [True]
    assert lost == []
    assert (folder.path / "notes.json").read_bytes() == kept


def test_a_file_damaged_with_its_copy_is_reported_as_lost(folder):
    folder.write_json("ranking.json", {"format": 1})
    for path in (folder.path / "ranking.json", folder.path / "spare" / "ranking.json"):
        spoil(path)
    with pytest.raises(RequestError, match="and its copy are damaged"):
        folder.read("ranking.json", "")
    notes, lost = repaired(folder)
    assert lost == ["ranking.json"]
    assert "will be recreated" in notes[0]
    assert not folder.has("ranking.json")


def test_the_request_survives_and_the_manifest_of_another_run_is_rejected(tmp_path, folder):
    (folder.path / "run.json").unlink()
    assert RunFolder.open(folder.path).request() == {"format": 1, **REQUEST}
    other = RunFolder.create(tmp_path / "other", {**REQUEST, "stages": ["search"]})
    (folder.path / "manifest.json").write_bytes(other.manifest.path.read_bytes())
    with pytest.raises(RequestError, match="belongs to another run"):
        RunFolder.open(folder.path)


@pytest.mark.parametrize("how", [spoil, lambda path: path.write_bytes(b"{}")])
def test_a_damaged_manifest_is_reported_and_can_be_removed(folder, how):
    how(folder.manifest.path)
    with pytest.raises(RequestError, match="damaged: remove it"):
        RunFolder.open(folder.path)
    folder.manifest.path.unlink()
    assert RunFolder.open(folder.path).adopt()
    assert not folder.adopt()


def test_the_previous_checkpoint_is_used_and_reported(folder):
    for step in (1, 2, 3):
        folder.save_checkpoint("search", {"a": torch.full((9,), float(step))}, {"step": step}, keep=True)
    assert folder.load_checkpoint("search")[1]["step"] == 3
    spoil(folder.path / "checkpoints" / "search.safetensors")
    assert folder.load_checkpoint("search")[1]["step"] == 2
    notes, lost = repaired(folder)
    assert "the previous checkpoint is used" in notes[0]
    assert lost == []
    spoil(folder.path / "spare" / "search.safetensors")
    with pytest.raises(RequestError, match="no valid previous one"):
        folder.load_checkpoint("search")


@pytest.mark.parametrize("name", ["manifest.json", "events.jsonl", "trials.sqlite", "checkpoint"])
def test_a_newer_format_is_rejected_with_advice(folder, name):
    folder.log({"event": "stage"})
    read = {
        "manifest.json": lambda: RunFolder.open(folder.path),
        "events.jsonl": lambda: folder.repair(print),
        "trials.sqlite": lambda: folder.trials(),
        "checkpoint": lambda: folder.load_checkpoint("search"),
    }[name]
    if name == "manifest.json":
        folder.manifest.path.write_text(json.dumps({"format": 2}))
    elif name == "events.jsonl":
        event = {"event": "log", "format": 2}
        check = zlib.crc32(json.dumps(event).encode())
        (folder.path / name).write_text(json.dumps({**event, "check": check}) + "\n")
    elif name == "checkpoint":
        folder.save_checkpoint("search", {}, {"format": 2})
    else:
        with sqlite3.connect(folder.trials().path) as connection:
            connection.execute("PRAGMA user_version = 2")
    with pytest.raises(RequestError, match=r"format 2.*newer version.*upgrade"):
        read()


def test_a_changed_row_is_reported_and_removed(folder):
    trials = folder.trials()
    for seed in (1, 2):
        trials.record("4-3-3", seed, 10, 0.5, [[1, 2.0]], 3.0)
    with sqlite3.connect(trials.path) as connection:
        connection.execute("UPDATE trials SET accuracy=0.9 WHERE seed=2")
    assert trials.states(10) == {("4-3-3", 1): "done"}
    notes, _ = repaired(folder)
    assert "1 of 2 trainings do not match" in notes[0]
    assert [trial["seed"] for trial in folder.trials().all()] == [1]
    assert repaired(folder)[0] == []


def test_trials_of_another_file_are_rejected(folder):
    folder.trials("refine.sqlite").record("4-3-3", 1, 10, 0.5, [], 1.0)
    (folder.path / "trials.sqlite").write_bytes((folder.path / "refine.sqlite").read_bytes())
    assert folder.trials().all() == []


def test_a_damaged_database_is_reported_and_replaced(folder):
    path = folder.trials().path
    path.write_bytes(b"not a database at all, but long enough to be read as one" * 40)
    with pytest.raises(RunFailure, match="poolwise resume"):
        folder.trials()
    assert "is damaged" in repaired(folder)[0][0]
    assert folder.trials().all() == []


def test_a_locked_database_is_reported(folder, monkeypatch):
    trials = folder.trials()
    monkeypatch.setattr("poolwise.storage.trials.LOCKED_SECONDS", 0.1)
    with sqlite3.connect(trials.path) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RunFailure, match="locked by another program"):
            trials.record("4-3-3", 1, 10, 0.5, [], 1.0)


def test_a_changed_event_is_removed(folder):
    for step in (1, 2, 3):
        folder.log({"event": "search", "step": step, "loss": 1.5})
    path = folder.path / "events.jsonl"
    path.write_text(path.read_text().replace('"step": 2, "loss": 1.5', '"step": 2, "loss": 1.4'))
    assert [event["step"] for event in folder.events("search")] == [1, 3]
    assert "1 damaged lines" in repaired(folder)[0][0]


def test_a_missing_folder_is_reported_and_not_recreated(tmp_path, folder):
    folder.path.rename(tmp_path / "moved")
    for write in (
        lambda: folder.write_json("ranking.json", {"format": 1}),
        lambda: folder.save_checkpoint("search", {}, {}, keep=True),
        lambda: folder.log({"event": "search"}),
    ):
        with pytest.raises(RunFailure, match="no longer exists: it was deleted or moved"):
            write()
    assert not folder.path.exists()


def test_outdated_files_are_dropped_with_the_request(folder, monkeypatch):
    folder.write_json("retrain.json", {"format": 1})

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folder, "_drop", killed)
        with pytest.raises(KeyboardInterrupt):
            folder.save_request({"format": 1, "stages": ["retrain"]}, drop=("retrain.json",))
    assert folder.has("retrain.json")
    folder.settle()
    assert not folder.has("retrain.json")
    assert folder.request() == {"format": 1, "stages": ["retrain"]}


def test_lost_weights_are_retrained_to_the_same_bytes(tmp_path, tiny_settings, tiny_source):
    config = tiny_settings.replace(retrain_seeds=1, steps=6)
    api.run(config, tmp_path / "run", source=tiny_source)
    run = tmp_path / "run"
    weights = next(path for path in sorted((run / "checkpoints").iterdir()) if path.name != "search.safetensors")
    kept = {path: path.read_bytes() for path in (weights, run / "ranking.json", run / "retrain.json")}
    spoil(weights)
    for path in (run / "ranking.json", run / "spare" / "retrain.json"):
        path.write_bytes(b"")
    api.resume(run, source=tiny_source)
    assert {path: path.read_bytes() for path in kept} == kept


def test_another_machine_is_reported(tmp_path, tiny_settings, tiny_source):
    notes = []

    class Notes(Listener):
        def note(self, text):
            notes.append(text)

    folder = api.search(tiny_settings.replace(steps=2), tmp_path / "run", source=tiny_source)
    request = folder.request()
    request["hardware"]["processor"] = "abacus"
    folder.save_request(request)
    api.resume(folder.path, source=tiny_source, listener=Notes())
    assert any("processor abacus, now" in line and "last bits" in line for line in notes)


def test_minutes_between_checkpoints_are_checked():
    with pytest.raises(RequestError, match="checkpoint_minutes is 0"):
        Config.from_flat(checkpoint_minutes=0)
