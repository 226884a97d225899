"""Every sampler in the loop: search, ranking and report; and spaces that are too large to be ranked whole."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import poolwise
from poolwise import planning
from poolwise.errors import RequestError
from poolwise.metrics import fuse
from poolwise.metrics.signal import Signal
from poolwise.problem import Problem
from poolwise.progress import Interrupted, Listener
from poolwise.runs import RunFolder
from poolwise.searching import loop, ranked, ranking, samplers
from poolwise.searching.length import step_macs
from poolwise.searching.samplers import nested
from poolwise.settings import Settings
from poolwise.space import Pooling

METHODS = [method.name for method in samplers.available()]


@pytest.mark.parametrize("method", METHODS)
def test_search_rank_and_report(method, tmp_path, tiny_settings, tiny_source):
    known = samplers.sampler(method)
    settings = dataclasses.replace(tiny_settings, method=method, steps=20, warm_up=0.3 if known.warms_up else 0.0)
    folder = poolwise.search(settings, tmp_path / "run", source=tiny_source)
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


def test_of_a_large_space_what_was_visited_is_ranked(tmp_path, tiny_settings, tiny_source, monkeypatch):
    monkeypatch.setattr(ranking, "RANKED_CONFIGURATIONS", 10)
    monkeypatch.setattr(loop, "_SNAPSHOT_CONFIGURATIONS", 10)
    notes = []

    class Notes(Listener):
        def note(self, text):
            notes.append(text)

    settings = dataclasses.replace(tiny_settings, steps=12)
    folder = poolwise.search(settings, tmp_path / "run", source=tiny_source)
    value = poolwise.rank(folder.path, source=tiny_source, listener=Notes())
    found = {row["pooling"] for row in value["ranking"]}
    assert len(found) == value["covered"] in (12, 13)  # the default may be among the visited
    assert value["default"] in found
    assert value["configurations"] == 36
    assert f"{len(found)} of 36 configurations are ranked: those that the search visited, and the default" in notes
    assert folder.events("assignment") == []
    assert poolwise.report(folder.path).exists()


def test_a_wrong_method_is_told_before_there_is_a_folder(tmp_path, tiny_settings, tiny_source):
    settings = dataclasses.replace(tiny_settings, method="mctss")
    with pytest.raises(RequestError, match="did you mean 'mcts'"):
        poolwise.search(settings, tmp_path / "run", source=tiny_source)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_an_earlier_version_is_refused(tmp_path, tiny_settings, tiny_source):
    folder = poolwise.search(dataclasses.replace(tiny_settings, steps=4), tmp_path / "run", source=tiny_source)
    tensors, meta = folder.load_checkpoint(loop.CHECKPOINT)
    meta["sampler"] = {"scores": [[1.0, 1.0]] * 36, "round": [], "step": 4}
    folder.save_checkpoint(loop.CHECKPOINT, tensors, json.loads(json.dumps(meta)))
    with pytest.raises(RequestError, match="an earlier version of poolwise"):
        poolwise.rank(folder.path, source=tiny_source)


def _trained(state):
    """Weights and momenta of every SuperNet."""
    pairs = zip(state.nets.networks, state.nets.momenta(), strict=True)
    return [[tensor.clone() for tensor in (*network.parameters(), *momenta)] for network, momenta in pairs]


def test_a_branch_copies_the_first_supernet_between_two_blocks(tiny_settings, tiny_source):
    settings = dataclasses.replace(tiny_settings, supernets=3, steps=20, warm_up=0.35, block=4)
    state = loop.SearchState(Problem(settings, tiny_source))
    sizes = []
    while state.step < 7:
        first = _trained(state)
        sizes.append(len(state.advance()))
    assert sizes == [4, 3]
    own = _trained(state)
    for others in own[1:]:
        assert all(torch.equal(one, other) for one, other in zip(own[0], others, strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(own[0], first[0], strict=True))
    assert [len(state.advance()) for _ in range(4)] == [4, 4, 4, 1]
    own = _trained(state)
    assert not all(torch.equal(one, other) for one, other in zip(own[0], own[1], strict=True))


@pytest.mark.parametrize("method", ["mixture", "partition-first"])
def test_a_branched_search_ends_in_the_same_bytes_stopped_or_in_two_workers(
    method, tmp_path, tiny_settings, tiny_source
):
    settings = dataclasses.replace(
        tiny_settings, method=method, supernets=2, steps=20, warm_up=0.35, block=4, threads=1
    )

    class Stop(Listener):
        def advance(self, units=1, **info):
            self.done = getattr(self, "done", 0) + units

        def check(self):
            if getattr(self, "done", 0) >= 7:
                raise Interrupted

    whole = poolwise.search(dataclasses.replace(settings, workers=1), tmp_path / "whole", source=tiny_source)
    poolwise.search(dataclasses.replace(settings, workers=2), tmp_path / "two", source=tiny_source)
    with pytest.raises(Interrupted):
        poolwise.search(dataclasses.replace(settings, workers=1), tmp_path / "cut", source=tiny_source, listener=Stop())
    poolwise.resume(tmp_path / "cut", source=tiny_source)
    expected = whole.load_checkpoint(loop.CHECKPOINT)[0]
    for name in ("two", "cut"):
        found = RunFolder.open(tmp_path / name).load_checkpoint(loop.CHECKPOINT)[0]
        assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


@pytest.mark.parametrize("method", ["mcts", "boltzmann", "fairnas"])
def test_a_search_in_multiply_adds_ends_where_they_are_spent(method, tmp_path, tiny_settings, tiny_source):
    mean = Problem(tiny_settings, tiny_source)
    prices = [step_macs(mean, mean.cost(pooling).macs) for pooling in mean.space]
    allowed = 150 * sum(prices) // len(prices)
    settings = dataclasses.replace(tiny_settings, method=method, steps=None, search_macs=allowed, block=8, threads=1)
    whole = poolwise.search(settings, tmp_path / "whole", source=tiny_source)
    tensors, meta = whole.load_checkpoint(loop.CHECKPOINT)
    assert allowed - max(prices) < meta["macs"] < allowed + 8 * max(prices)
    last = whole.events("search")[-1]
    assert last["step"] == meta["step"] != 150
    assert last["lr"] == pytest.approx(settings.lr_end, rel=0.5)  # the schedule came to its end
    with pytest.raises(Interrupted):
        poolwise.search(settings, tmp_path / "part", source=tiny_source, listener=After(60))
    part = poolwise.resume(tmp_path / "part", source=tiny_source)
    again, told = RunFolder.open(part.path).load_checkpoint(loop.CHECKPOINT)
    assert told == meta
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)


def test_parts_of_nested_begin_alike_and_see_the_same_images(tiny_settings, tiny_source):
    settings = dataclasses.replace(tiny_settings, method="nested", supernets=37, rank_on="both", steps=80, block=8)
    state = loop.SearchState(Problem(settings, tiny_source))
    begun = _trained(state)
    assert all(torch.equal(a, b) for a, b in zip(begun[1], begun[9], strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(begun[0], begun[1], strict=True))
    seen = []
    run = state.nets.run_all
    for _ in range(9):
        state.advance(lambda jobs, watch: (seen.extend(jobs), run(jobs, watch))[1])
    images = [job.training[0].tolist() for job in seen]
    assert all(drawn == images[0] for drawn in images[:36])
    assert images[36] != images[0]
    assert all(job.scoring[0].tolist() == seen[0].scoring[0].tolist() for job in seen[:36])
    assert all(job.scoring is None for job in seen[36:])  # one round of four is scored
    prices = [state.problem.cost(job.pooling).macs for job in seen]
    own, rest = sum(prices[:36]), sum(prices[36:])
    assert state.macs == step_macs(state.problem, own) + step_macs(state.problem, rest, scored=False)
    assert {job.supernet for job in seen[:36]} == set(range(1, 37))


def test_nested_with_one_supernet_ranks_as_fairnas(tmp_path, tiny_settings, tiny_source):
    told, spent = [], []
    for method in ("nested", "fairnas"):
        settings = dataclasses.replace(tiny_settings, method=method, supernets=1, steps=80)
        poolwise.search(settings, tmp_path / method, source=tiny_source)
        value = poolwise.rank(tmp_path / method, source=tiny_source)
        told.append([(row["pooling"], row["score"], row["estimate"]) for row in value["ranking"]])
        spent.append(value["spent"]["search_macs"])
    assert told[0] == told[1]
    assert spent[0] < 0.9 * spent[1]  # it makes no use of scoring batches, and leaves most of them out


def test_ranked_by_both_restated(tmp_path, tiny_settings, tiny_source):
    settings = dataclasses.replace(tiny_settings, method="nested", supernets=37, steps=150, eval_batch_size=8)
    poolwise.search(settings, tmp_path / "run", source=tiny_source)
    value = poolwise.rank(tmp_path / "run", source=tiny_source)
    asked = RunFolder.open(tmp_path / "run").request()
    problem = Problem(Settings.from_json(asked["settings"]), tiny_source, asked["calibration"])
    assert problem.settings.rank_on == "both"
    state = loop.SearchState(problem)
    state.restore(RunFolder.open(tmp_path / "run"))
    right, seen = np.zeros((2, 36)), len(problem.halves[1])
    for images, labels in problem.ranking_batches.ordered():
        for a, pooling in enumerate(problem.space):
            for turn, network in enumerate((state.nets.networks[0], state.nets.networks[1 + a])):
                with torch.no_grad():
                    right[turn, a] += (network(images, pooling).argmax(1) == labels).sum()
    rows = {row["pooling"]: row for row in value["ranking"]}
    shared, own = right / seen  # both see every image
    assert np.array([rows[str(p)]["accuracies"] for p in problem.space]) == pytest.approx(np.stack([shared, own]).T)
    expected = fuse(problem.space, shared, None, smoothing=False, own_P=own).estimate
    assert [rows[str(p)]["score"] for p in problem.space] == pytest.approx(expected)
    price = problem.cost.prefix_macs
    assert value["spent"]["rank_macs"] == seen * (price(problem.space) + sum(price([p]) for p in problem.space))
    (stage,) = planning.plan(problem, ["rank"]).stages
    assert (stage.steps, stage.macs) == (2 * 36 * seen, value["spent"]["rank_macs"])
    by_both = poolwise.rank(tmp_path / "run", fusion=True, source=tiny_source)
    assert by_both["fusion"]["own"]["weight"] == pytest.approx(
        fuse(problem.space, shared, [problem.cost(p).productive for p in problem.space], own_P=own).own.weight
    )
    page = poolwise.report(tmp_path / "run").read_text()
    assert "method nested with 37" in page


def test_what_nested_finds_out_is_told_logged_and_reported(tmp_path, tiny_settings, tiny_source):
    class Notes(Listener):
        told = ()

        def note(self, text):
            self.told = (*self.told, text)

    listener = Notes()
    settings = dataclasses.replace(tiny_settings, method="nested", supernets=37, steps=1400)
    folder = poolwise.search(settings, tmp_path / "run", source=tiny_source, listener=listener)
    (remark,) = folder.events("remark")
    assert remark["step"] == 37 * 36
    assert f"search: {remark['text']}" in listener.told
    value = poolwise.rank(tmp_path / "run", source=tiny_source)
    page = poolwise.report(tmp_path / "run").read_text()
    assert "At step 1332 of the search: scores on own weights after 25 steps of each" in page
    stopped = tmp_path / "stopped"
    with pytest.raises(Interrupted):  # right after the look
        poolwise.search(settings, stopped, source=tiny_source, listener=After(37 * 36))
    poolwise.resume(stopped, source=tiny_source)
    assert poolwise.rank(stopped, source=tiny_source)["ranking"] == value["ranking"]
    assert [event["text"] for event in RunFolder.open(stopped).events("remark")] == [remark["text"]]


def test_own_weights_that_were_given_up_rank_nothing(monkeypatch, tmp_path, tiny_settings, tiny_source):
    monkeypatch.setattr(nested, "signal", lambda *given: Signal(0.1, 0.3, 0.0, 0.1))
    settings = dataclasses.replace(tiny_settings, method="nested", supernets=37, steps=1400)
    folder = poolwise.search(settings, tmp_path / "run", source=tiny_source)
    problem = Problem(Settings.from_json(folder.request()["settings"]), tiny_source)
    value = poolwise.rank(tmp_path / "run", source=tiny_source)
    for row in value["ranking"]:
        assert row["accuracies"] == [pytest.approx(row["score"])]
        assert (row["supernet"], row["assignment"][0]) == (0, 1)
    assert value["fusion"]["own"] is None
    assert value["spent"]["rank_macs"] == len(problem.halves[1]) * problem.cost.prefix_macs(problem.space)
    fused = poolwise.rank(tmp_path / "run", fusion=True, source=tiny_source)
    assert fused["fusion"]["own"] is None
    page = poolwise.report(tmp_path / "run").read_text()
    assert "they are noise, and one SuperNet trains on" in page
    assert "Every configuration on weights that all share and on its own" not in page


def test_a_look_scores_as_the_ranking_does_and_is_paid_for(monkeypatch, tiny_settings, tiny_source):
    settings = dataclasses.replace(tiny_settings, method="nested", supernets=37, rank_on="both", steps=80, block=8)
    state = loop.SearchState(Problem(settings, tiny_source))
    monkeypatch.setattr(type(state.sampler), "look", 20)
    told, seen, run = [], [], state.nets.run_all
    monkeypatch.setattr(state.sampler, "looked", told.append)
    while state.step < 20:
        state.advance(lambda jobs, watch: (seen.extend(jobs), run(jobs, watch))[1])
    assert len(seen) == 20  # no block reaches over it
    (accuracy_TP,) = told
    images, price = 8 * state.nets.scoring.batches.batch_size, state.problem.cost.prefix_macs
    assert accuracy_TP.shape == (2, 36)
    assert accuracy_TP * images == pytest.approx(np.round(accuracy_TP * images))
    poolings = list(state.problem.space)
    trained = step_macs(state.problem, sum(state.problem.cost(job.pooling).macs for job in seen))
    assert state.macs == trained + images * (price(poolings) + sum(price([pooling]) for pooling in poolings))


def test_fusion_left_to_the_run_is_off_where_own_scores_are_noise(tmp_path, tiny_settings, tiny_source):
    settings = dataclasses.replace(tiny_settings, method="nested", supernets=37, steps=80, fusion=None)
    poolwise.search(settings, tmp_path / "run", source=tiny_source)
    value = poolwise.rank(tmp_path / "run", source=tiny_source)
    poolings = [Pooling.parse(row["pooling"]) for row in value["ranking"]]
    place = np.array([int(str(pooling).split("-")[0]) for pooling in poolings]) / 20
    noise = np.random.default_rng(0).random(36)
    for own, by in ((place, "estimate"), (1 - place, "score"), (noise, "score")):
        rows = [
            {**row, "accuracies": [float(a), float(b)]} for row, a, b in zip(value["ranking"], place, own, strict=True)
        ]
        assert ranked.arrange({**value, "ranking": rows}, None)["ranked_by"] == by
    assert ranked.arrange({**value, "ranking": rows}, True)["ranked_by"] == "estimate"


class After(Listener):
    """Asks to stop once so many steps are done."""

    def __init__(self, steps):
        self.left = steps

    def advance(self, units=1, **info):
        self.left -= units

    def check(self):
        if self.left <= 0:
            raise Interrupted
