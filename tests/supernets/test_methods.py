"""Every sampler in search, ranking and report, and spaces that are too large to rank completely."""

import json

import numpy as np
import pytest
import torch

import poolwise
from conftest import After
from poolwise.errors import RequestError
from poolwise.experiment import resolve
from poolwise.progress import Interrupted, Listener
from poolwise.rankings import scoring
from poolwise.storage import RunFolder
from poolwise.supernets import log, samplers
from poolwise.supernets.budget import step_macs
from poolwise.supernets.pace import Pace
from poolwise.supernets.state import CHECKPOINT, SearchState
from poolwise.supernets.trainer import train_block

METHODS = [method.name for method in samplers.available()]


@pytest.mark.parametrize("method", METHODS)
def test_search_rank_and_report(method, tmp_path, tiny_settings, tiny_source):
    known = samplers.sampler(method)
    config = tiny_settings.replace(method=method, steps=20, warm_up=0.3 if known.warms_up else 0.0)
    folder = poolwise.search(config, tmp_path / "run", source=tiny_source)
    value = poolwise.rank(folder.path, source=tiny_source)
    used = known.supernets_used(2)
    assert folder.request()["settings"]["supernets"] == used
    assert value["covered"] == value["configurations"] == len(value["ranking"]) == 36
    assert all(len(row["scores"]) == len(row["assignment"]) == used for row in value["ranking"])
    assert all(row["supernet"] == int(np.argmax(row["assignment"])) for row in value["ranking"])
    assert all({"loss", "accuracy", "lr"} <= set(event) for event in folder.events("search"))
    assert folder.events("search")[-1]["step"] == 20
    page = poolwise.report(folder.path).read_text()
    assert ("a balanced mixture of 2" if method == "mixture" else f"method {method} with {used}") in page


def test_visited_configurations_of_a_large_space_are_ranked(tmp_path, tiny_settings, tiny_source, monkeypatch):
    monkeypatch.setattr(scoring, "RANKED_CONFIGURATIONS", 10)
    monkeypatch.setattr(log, "SNAPSHOT_CONFIGURATIONS", 10)
    notes = []

    class Notes(Listener):
        def note(self, text):
            notes.append(text)

    config = tiny_settings.replace(steps=12)
    folder = poolwise.search(config, tmp_path / "run", source=tiny_source)
    value = poolwise.rank(folder.path, source=tiny_source, listener=Notes())
    ranked = {row["pooling"] for row in value["ranking"]}
    assert len(ranked) == value["covered"] in (12, 13)  # the default may be among the visited
    assert value["default"] in ranked
    assert value["configurations"] == 36
    assert f"{len(ranked)} of 36 configurations are ranked: the default and those that the search visited" in notes
    assert folder.events("assignment") == []
    assert poolwise.report(folder.path).exists()


def test_wrong_method_is_rejected_before_a_folder_exists(tmp_path, tiny_settings, tiny_source):
    config = tiny_settings.replace(method="mctss")
    with pytest.raises(RequestError, match="did you mean 'mcts'"):
        poolwise.search(config, tmp_path / "run", source=tiny_source)
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_of_an_earlier_version_is_rejected(tmp_path, tiny_settings, tiny_source):
    folder = poolwise.search(tiny_settings.replace(steps=4), tmp_path / "run", source=tiny_source)
    tensors, meta = folder.load_checkpoint(CHECKPOINT)
    meta["sampler"] = {"scores": [[1.0, 1.0]] * 36, "round": [], "step": 4}
    folder.save_checkpoint(CHECKPOINT, tensors, json.loads(json.dumps(meta)))
    with pytest.raises(RequestError, match="an earlier version of poolwise"):
        poolwise.rank(folder.path, source=tiny_source)


def _trained(state):
    """Return weights and momenta of every SuperNet."""
    pairs = zip(state.mixture.networks, state.mixture.momenta(), strict=True)
    return [[tensor.clone() for tensor in (*network.parameters(), *momenta)] for network, momenta in pairs]


def test_branching_copies_the_first_supernet_between_two_blocks(tiny_settings, tiny_source):
    config = tiny_settings.replace(supernets=3, steps=20, warm_up=0.35, block=4)
    state = SearchState(resolve(config, tiny_source))
    sizes = []
    while state.step < 7:
        first = _trained(state)
        sizes.append(len(train_block(state)))
    assert sizes == [4, 3]
    trained = _trained(state)
    for others in trained[1:]:
        assert all(torch.equal(one, other) for one, other in zip(trained[0], others, strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(trained[0], first[0], strict=True))
    assert [len(train_block(state)) for _ in range(4)] == [4, 4, 4, 1]
    trained = _trained(state)
    assert not all(torch.equal(one, other) for one, other in zip(trained[0], trained[1], strict=True))


@pytest.mark.parametrize("method", ["boltzmann", "mcts"])
def test_a_block_ends_at_the_end_of_the_warm_up_of_a_single_supernet(method, tiny_settings, tiny_source):
    config = tiny_settings.replace(method=method, supernets=1, steps=20, warm_up=0.35, block=4)
    state = SearchState(resolve(config, tiny_source))
    assert [len(train_block(state)) for _ in range(6)] == [4, 3, 4, 4, 4, 1]


@pytest.mark.parametrize(("length", "branches"), [(14, 8), (20, 10), (24, 12)])
def test_branching_happens_once_although_the_length_of_a_search_in_macs_changes(
    length, branches, tiny_settings, tiny_source, monkeypatch
):
    config = tiny_settings.replace(supernets=3, steps=None, search_macs=10**9, warm_up=0.5, block=4)
    state, copies = SearchState(resolve(config, tiny_source)), []
    expected = {4: 20, 8: length}  # length of the search estimated after a step, later 40
    monkeypatch.setattr(Pace, "steps_left", lambda *_: expected.get(state.step, 40) - state.step)
    monkeypatch.setattr(state.mixture, "copy_first", lambda *counts: copies.append((state.step, *counts)))
    used = []
    while state.step < 28:  # passes step 20, half of the later length
        used += [record["supernet"] for record in train_block(state)]
    assert copies == [(branches, 1, 3)]
    assert set(used[:branches]) == {0}
    assert set(used[branches:]) == {0, 1, 2}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mixture", "partition-first"])
def test_branched_search_gives_the_same_bytes_after_interruption_and_in_two_workers(
    method, tmp_path, tiny_settings, tiny_source
):
    config = tiny_settings.replace(method=method, supernets=2, steps=20, warm_up=0.35, block=4, threads=1)

    complete = poolwise.search(config.replace(workers=1), tmp_path / "whole", source=tiny_source)
    poolwise.search(config.replace(workers=2), tmp_path / "two", source=tiny_source)
    with pytest.raises(Interrupted):
        poolwise.search(config.replace(workers=1), tmp_path / "cut", source=tiny_source, listener=After(7))
    poolwise.resume(tmp_path / "cut", source=tiny_source)
    expected = complete.load_checkpoint(CHECKPOINT)[0]
    for name in ("two", "cut"):
        tensors = RunFolder.open(tmp_path / name).load_checkpoint(CHECKPOINT)[0]
        assert all(torch.equal(tensors[key], tensor) for key, tensor in expected.items())


@pytest.mark.parametrize(
    "method", ["mcts", *(pytest.param(method, marks=pytest.mark.slow) for method in ("boltzmann", "fairnas"))]
)
def test_search_in_macs_ends_when_they_are_spent(method, tmp_path, tiny_settings, tiny_source):
    mean = resolve(tiny_settings, tiny_source)
    prices = [step_macs(mean, mean.cost(pooling).macs) for pooling in mean.space]
    allowed = 150 * sum(prices) // len(prices)
    config = tiny_settings.replace(method=method, steps=None, search_macs=allowed, block=8, threads=1)
    complete = poolwise.search(config, tmp_path / "whole", source=tiny_source)
    tensors, meta = complete.load_checkpoint(CHECKPOINT)
    assert allowed - max(prices) < meta["macs"] < allowed + 8 * max(prices)
    last = complete.events("search")[-1]
    assert last["step"] == meta["step"] != 150
    assert last["lr"] == pytest.approx(config.training.lr_end, rel=0.5)  # the schedule reached its end
    with pytest.raises(Interrupted):
        poolwise.search(config, tmp_path / "part", source=tiny_source, listener=After(60))
    part = poolwise.resume(tmp_path / "part", source=tiny_source)
    again, meta_again = RunFolder.open(part.path).load_checkpoint(CHECKPOINT)
    assert meta_again == meta
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)
