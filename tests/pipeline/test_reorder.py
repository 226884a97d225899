"""Reordering a ranking: wherever the process is killed, resuming gives the same files."""

import os
import shutil

import pytest
from small import SETTINGS, SOURCE

from poolwise import api
from poolwise.pipeline import reorder
from poolwise.storage import RunFolder

NAMES = ("ranking.json", "retrain.json", "verdict.json")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a folder with a run after search, after ranking and after retraining."""
    place = tmp_path_factory.mktemp("reorder")
    api.search(SETTINGS, place / "searched", source=SOURCE)
    shutil.copytree(place / "searched", place / "ranked")
    api.rank(place / "ranked", source=SOURCE)
    shutil.copytree(place / "ranked", place / "retrained")
    api.retrain(place / "retrained", source=SOURCE)
    return place


class Killed(BaseException):
    """An exception that no code catches."""


def killed_at(monkeypatch, write, do):
    """Return whether ``do`` was killed before its ``write``-th rename of a file, from 0."""
    rename, count = os.replace, 0

    def replace(source, target, **options):
        nonlocal count
        count += 1
        if count > write:
            raise Killed
        rename(source, target, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        try:
            do()
        except Killed:
            return True
    return False


def state(path):
    """Return the results and the requested limits and order."""
    folder = RunFolder.open(path)
    request = folder.request()
    results = {name: (path / name).read_bytes() for name in NAMES if folder.has(name)}
    return results, request["settings"], request.get("limits"), request["stages"], reorder.PENDING in request


@pytest.mark.parametrize(
    ("start", "change"),
    [
        pytest.param("ranked", {"max_macs": 0.6, "fusion": True}, marks=pytest.mark.slow),
        pytest.param("retrained", {"max_macs": 0.6}, marks=pytest.mark.slow),
        pytest.param("searched", {"max_macs": 0.6, "fusion": True}, marks=pytest.mark.slow),
    ],
)
def test_resume_finishes_a_reorder_killed_at_any_write(folders, tmp_path, monkeypatch, start, change):
    def rank(path):
        return api.rank(path, source=SOURCE, **change)

    before, after = tmp_path / "before", tmp_path / "after"
    for path in (before, after):
        shutil.copytree(folders / start, path)
    rank(after)
    assert state(after) != state(before)
    for path in (before, after):
        api.resume(path, source=SOURCE)
    wanted = [state(before), state(after)]
    assert wanted[0] != wanted[1]
    ends, write = [], 0
    while True:
        path = tmp_path / f"killed-{write}"
        shutil.copytree(folders / start, path)
        cut = killed_at(monkeypatch, write, lambda path=path: rank(path))
        if not cut:
            break
        api.resume(path, source=SOURCE)
        ends.append(wanted.index(state(path)))
        write += 1
    assert ends == sorted(ends), "a saved request is carried out"
    assert set(ends) == {0, 1}


def test_a_pending_reorder_of_an_earlier_version_is_finished(folders, tmp_path):
    shutil.copytree(folders / "retrained", tmp_path / "run")
    folder = RunFolder.open(tmp_path / "run")
    request = folder.request()
    folder.save_request({**request, "settings": {**request["settings"], "fusion": True}, reorder.PENDING: True})
    api.resume(folder.path, source=SOURCE)
    assert folder.read("ranking.json", "")["ranked_by"] == "estimate"
    assert reorder.PENDING not in folder.request()
