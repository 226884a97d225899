"""Proxy trainings: length, restated training, use in the ranking, interruption and failures."""

import json
import shutil
import sqlite3

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import poolwise
from conftest import separate_cache
from poolwise.config import Config
from poolwise.datasets.batches import Shuffled
from poolwise.errors import RequestError, RunFailure
from poolwise.experiment import resolve
from poolwise.models.chain import running_norm
from poolwise.models.supernet import plain_model
from poolwise.progress import Interrupted, Listener
from poolwise.rankings import proxy_training, ranking
from poolwise.rankings.combine import with_proxy_trainings
from poolwise.rankings.smoothing import smooth
from poolwise.rng import Streams
from poolwise.spaces import Pooling
from poolwise.storage import RunFolder
from poolwise.supernets import budget
from poolwise.supernets.state import SearchState
from poolwise.training import LossNotFinite, standalone, trials


@given(st.integers(1, 10**6), st.floats(0, 0.99), st.integers(1, 5000))
def test_proxy_trainings_spend_at_most_their_share(steps, share, configurations):
    each, seeds = budget.proxy_budget_of(steps, share, configurations)
    assert (each == 0) == (seeds == 0)
    assert each * seeds * configurations <= steps * share
    if seeds:
        assert each >= budget.FEWEST_STEPS
        assert steps * share - each * seeds * configurations < (seeds + 1) * configurations  # nor much less
    else:
        assert configurations < budget.FEWEST_CONFIGURATIONS or steps * share < budget.FEWEST_STEPS * configurations + 1


def test_length_and_number_of_proxy_trainings_grow():
    assert [tuple(budget.proxy_budget_of(steps, 0.67, 36)) for steps in (500, 933, 1866, 5616, 39000)] == [
        (0, 0), (17, 1), (34, 1), (52, 2), (145, 5)
    ]  # fmt: skip


PROXY = {"method": "fairnas", "supernets": 1, "steps": 800, "short": 0.9, "fusion": None}


@pytest.fixture
def two(monkeypatch, tiny_settings):
    """Config of a search with two proxy trainings of ten steps per configuration."""
    monkeypatch.setattr(budget, "_BALANCED", 5)
    return tiny_settings.replace(**PROXY)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_settings, tiny_source):
    """A finished search with the config ``two``."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch, separate_cache(tmp_path_factory):
        patch.setattr(budget, "_BALANCED", 5)
        poolwise.search(tiny_settings.replace(**PROXY), folder, source=tiny_source)
    return folder


@pytest.fixture
def run(finished, two, tmp_path):
    """A copy of the finished search."""
    return shutil.copytree(finished, tmp_path / "run")


def resolved(folder, source):
    request = RunFolder.open(folder).request()
    return resolve(Config.from_flat(request["settings"]), source, request["calibration"])


def test_proxy_training_restated(run, two, tiny_source):
    experiment, folder = resolved(run, tiny_source), RunFolder.open(run)
    scores, pooling = proxy_training.scores(experiment, folder), experiment.space[7]
    assert list(scores) == [str(p) for p in experiment.space]
    for seed in (1, 2):
        streams = Streams(0).child(f"short{seed}")
        model = plain_model(experiment.build(running_norm, "init", streams), pooling).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=two.training.lr, momentum=0.9)
        images = experiment.batches(experiment.training_images, 16, experiment.halves[0])
        batches, losses = Shuffled(images, streams["order"], (experiment.augmentation, streams["augment"])), []
        for step in range(10):
            optimizer.param_groups[0]["lr"] = 0.001 + (two.training.lr - 0.001) * (1 + np.cos(np.pi * step / 10)) / 2
            images_BCHW, labels_B = batches.next()
            loss = F.cross_entropy(model(images_BCHW), labels_B)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert scores[str(pooling)][seed - 1] == pytest.approx(-np.mean(losses[5:]), abs=1e-5)


def test_search_has_the_requested_length_and_counts_all_macs(run, tiny_source):
    value, experiment = poolwise.rank(run, source=tiny_source), resolved(run, tiny_source)
    state = SearchState(experiment)
    assert state.restore(RunFolder.open(run))
    assert state.step == 800 - 2 * 10 * 36
    trainings = RunFolder.open(run).trials(proxy_training.FILE).all()
    assert {(t["budget"], len(t["curve"]), t["accuracy"], t["state"]) for t in trainings} == {(10, 10, None, "done")}
    assert len(trainings) == 2 * 36
    macs = sum(experiment.cost(pooling).macs for pooling in experiment.space)
    assert value["spent"]["search_macs"] == state.macs + 2 * 10 * 3 * 16 * macs
    assert (value["short"]["seeds"], value["short"]["length"]) == (2, 10)
    shared, proxy = ranking.parts(sorted(value["ranking"], key=lambda row: Pooling.parse(row["pooling"])))
    assert proxy == pytest.approx(
        [np.mean(scores) for scores in proxy_training.scores(experiment, RunFolder.open(run)).values()]
    )
    right = np.zeros(36)
    for images, labels in experiment.ranking_batches().ordered():
        with torch.no_grad():
            for a, pooling in enumerate(experiment.space):
                right[a] += (state.mixture.networks[0](images, pooling).argmax(1) == labels).sum()
    assert shared == pytest.approx(right / len(experiment.halves[1]))


def test_proxy_trainings_are_used_if_they_are_more_than_noise(run, tiny_source):
    value = poolwise.rank(run, source=tiny_source)
    rows = sorted(value["ranking"], key=lambda row: Pooling.parse(row["pooling"]))
    poolings = [Pooling.parse(row["pooling"]) for row in rows]
    place = np.array([int(str(pooling).split("-")[0]) for pooling in poolings]) / 20
    noise = np.random.default_rng(0).random(36)
    for proxy, used in ((place, True), (1 - place, False), (noise, False)):
        changed = [
            {**row, "shared": float(a), "short": [float(b)] * 2} for row, a, b in zip(rows, place, proxy, strict=True)
        ]
        arranged = ranking.arrange({**value, "ranking": changed}, None)
        assert arranged["short"]["used"] == used
        assert arranged["ranked_by"] == ("estimate" if used else "score")
        scores = {row["pooling"]: row["score"] for row in arranged["ranking"]}
        expected = smooth(poolings, with_proxy_trainings(poolings, place, proxy).scores_P).scores if used else place
        assert [scores[str(pooling)] for pooling in poolings] == pytest.approx(np.clip(expected, 0, 1))
        assert ("a share of one half" if used else "proxy trainings are noise") in arranged["short"]["said"]
    assert ranking.arrange({**value, "ranking": changed}, True)["ranked_by"] == "estimate"
    for row, flat in zip(value["ranking"], value.to_rows(), strict=True):
        assert (flat["shared"], flat["short"]) == (row["shared"], np.mean(row["short"]))


def test_message_is_noted_and_reported(run, tiny_source):
    class Notes(Listener):
        messages = ()

        def note(self, text):
            self.messages = (*self.messages, text)

    listener = Notes()
    value = poolwise.rank(run, source=tiny_source, listener=listener)
    assert value["short"]["said"] in listener.messages
    assert value["short"]["said"].startswith(
        "2 proxy trainings of 10 steps per configuration: their scores have correlation"
    )
    page = poolwise.report(run).read_text()
    assert value["short"]["said"] in page
    assert "loss of proxy training for every configuration" in page


class After(Listener):
    """Requests a stop after a number of steps of proxy trainings."""

    def __init__(self, steps):
        self.left, self.stage = steps, ""

    def start(self, stage, total, done=0):
        self.stage = stage

    def advance(self, units=1, **info):
        self.left -= units * (self.stage == "short")

    def check(self):
        if self.left <= 0:
            raise Interrupted


@pytest.mark.slow
def test_interrupted_run_resumes_to_the_same_result(tmp_path, run, two, tiny_source):
    value = poolwise.rank(run, source=tiny_source)
    with pytest.raises(Interrupted):
        poolwise.search(two, tmp_path / "part", source=tiny_source, listener=After(95))
    done = RunFolder.open(tmp_path / "part").trials(proxy_training.FILE).all()
    assert len(done) == 9
    with pytest.raises(RequestError, match="are not finished: run poolwise resume"):
        poolwise.rank(tmp_path / "part", source=tiny_source)
    poolwise.resume(tmp_path / "part", source=tiny_source)
    assert poolwise.rank(tmp_path / "part", source=tiny_source)["ranking"] == value["ranking"]


@pytest.mark.slow
def test_two_workers_give_the_same_ranking(tmp_path, run, two, tiny_source):
    poolwise.search(two.replace(workers=2, threads=1), tmp_path / "two", source=tiny_source)
    rankings = [poolwise.rank(path, source=tiny_source)["ranking"] for path in (run, tmp_path / "two")]
    assert rankings[0] == rankings[1]


def test_failed_training_gets_the_worst_score_of_its_seed(monkeypatch, tmp_path, run, two, tiny_source):
    train, bad = trials.train_standalone, Pooling.parse("3-4-3")

    def failing(experiment, pooling, seed, steps, purpose, listener):
        if pooling == bad and seed == 1:
            raise LossNotFinite("the loss is nan")
        return train(experiment, pooling, seed, steps, purpose, listener)

    with sqlite3.connect(run / proxy_training.FILE) as connection:
        connection.execute("DELETE FROM trials WHERE (pooling, seed) IN (('3-4-3', 1), ('3-5-2', 1), ('3-4-3', 2))")
    unfinished = [line for line in (run / "events.jsonl").open() if json.loads(line)["event"] != "stage"]
    (run / "events.jsonl").write_text("".join(unfinished))
    monkeypatch.setattr(trials, "train_standalone", failing)
    poolwise.resume(run, source=tiny_source)
    assert len(RunFolder.open(run).trials(proxy_training.FILE).all()) == 72
    scores = proxy_training.scores(resolved(run, tiny_source), RunFolder.open(run))
    assert scores[str(bad)][0] == min(first for first, _ in scores.values())
    assert [t["error"] for t in RunFolder.open(run).trials(proxy_training.FILE).all() if t["state"] == "failed"] == [
        "the loss is nan"
    ]
    poolwise.rank(run, source=tiny_source)
    assert "NaN" not in (run / "ranking.json").read_text()
    monkeypatch.setattr(
        trials, "train_standalone", lambda *inputs: (_ for _ in ()).throw(LossNotFinite("the loss is nan"))
    )
    poolwise.search(two, tmp_path / "all", source=tiny_source)
    with pytest.raises(RunFailure, match="all proxy trainings with seed 1 failed"):
        poolwise.rank(tmp_path / "all", source=tiny_source)


@pytest.mark.slow
def test_length_in_macs_is_kept(tmp_path, two, tiny_source):
    experiment = resolve(two, tiny_source)
    allowed = 800 * budget.step_macs(
        experiment, sum(experiment.cost(p).macs for p in experiment.space) // 36, 1 - two.search.proxy
    )
    config = two.replace(method="boltzmann", steps=None, search_macs=allowed)
    poolwise.search(config, tmp_path / "run", source=tiny_source)
    value = poolwise.rank(tmp_path / "run", source=tiny_source)
    most_macs = max(experiment.cost(p).macs for p in experiment.space)
    assert allowed - 2 * budget.step_macs(experiment, most_macs) < value["spent"]["search_macs"] <= allowed
    assert value["short"]["seeds"] == 2


@pytest.mark.parametrize(("steps", "expected"), [(1611, (0, 0)), (1612, (30, 1)), (4680, (43, 2))])
def test_default_has_proxy_trainings_from_30_steps_per_configuration(steps, expected):
    assert budget.proxy_budget_of(steps, None, 36) == expected
    assert budget.share_of(steps, None, 36) == (0.67 if expected[1] else 0)
    assert budget.share_of(steps, 0.0, 36) == 0
    assert budget.proxy_budget_of(steps, 0.3, 36).seeds == 1  # a requested share is used


@pytest.mark.parametrize("steps", [300, 1200, 1700, 5000])
def test_length_in_macs_is_kept_with_the_default_share(steps, two, tiny_source):
    experiment = resolve(two.replace(short=0.0), tiny_source)
    allowed = steps * budget.step_macs(experiment, sum(experiment.cost(p).macs for p in experiment.space) // 36)
    experiment = resolve(two.replace(short=None, steps=None, search_macs=allowed), tiny_source)
    mean = sum(experiment.cost(p).macs for p in experiment.space) // 36
    on_supernets = allowed - budget.proxy_macs(experiment)
    assert on_supernets > 0
    # proxy trainings have no scoring batches, so the same MACs allow more steps
    assert bool(budget.proxy_budget(experiment).seeds) == (steps > 1200)
    spent = budget.search_steps(experiment) * budget.step_macs(experiment, mean) + budget.proxy_macs(experiment)
    assert abs(spent - allowed) < 0.02 * allowed


def test_spaces_that_are_too_large_to_list_have_no_proxy_trainings(monkeypatch, two, tiny_source):
    experiment = resolve(two, tiny_source)
    assert budget.proxy_budget(experiment).seeds == 2
    monkeypatch.setattr(budget, "LISTED", 35)
    assert budget.proxy_budget(experiment) == (0, 0)
    assert budget.search_steps(experiment) == 800


@pytest.mark.parametrize(("weights_for", "loaded"), [("search", True), ("retrain", False)])
def test_initial_weights_for_the_search_start_proxy_trainings(
    weights_for, loaded, monkeypatch, tmp_path, two, tiny_source
):
    seen = []
    monkeypatch.setattr(standalone, "train_step", lambda model, *_: seen.append(model) or torch.zeros(()))
    chain = resolve(two, tiny_source).build(running_norm, "mine", Streams(9))
    save_file(plain_model(chain, Pooling.parse("4-3-3")).state_dict(), tmp_path / "mine.safetensors")
    config = two.replace(norm="affine", weights=str(tmp_path / "mine.safetensors"), weights_for=weights_for)
    experiment = resolve(config, tiny_source)
    standalone.train_standalone(experiment, Pooling.parse("4-3-3"), 1, 1, proxy_training.PURPOSE, Listener())
    weights = [parameter for parameter in chain.parameters() if parameter.dim() == 4]
    used = [parameter for parameter in seen[0].parameters() if parameter.dim() == 4]
    assert all(torch.equal(a, b) for a, b in zip(weights, used, strict=True)) == loaded


@given(st.lists(st.floats(0.1, 5), min_size=2, max_size=40))
def test_weighted_losses_of_a_curve_with_every_step(losses):
    curve, steps = [[t + 1, loss] for t, loss in enumerate(losses)], len(losses)
    later = [loss for step, loss in curve if 2 * step > steps]
    decay = [0.9 ** (steps - step) for step, _ in curve]
    expected = {
        "half": np.mean(later),
        "sum": np.mean(losses),
        "ema": sum(w * loss for w, loss in zip(decay, losses, strict=True)) / sum(decay),
    }
    assert set(proxy_training.WEIGHTINGS) == set(expected)
    for weighting, value in expected.items():
        assert proxy_training.score(curve, weighting) == pytest.approx(-value)
    assert proxy_training.score(curve) == -float(np.mean(later)), "the default, bit by bit"


@given(st.lists(st.tuples(st.integers(1, 7), st.floats(0.1, 5)), min_size=2, max_size=9))
def test_a_point_of_a_long_curve_has_the_weight_of_its_steps(points):
    curve, every, step = [], [], 0
    for length, loss in points:
        every += [[step + i, loss] for i in range(1, length + 1)]
        step += length
        curve.append([step, loss])
    for weighting in ("sum", "ema"):
        assert proxy_training.score(curve, weighting) == pytest.approx(proxy_training.score(every, weighting))


def test_requested_weighting_is_used(run, two, tiny_source):
    folder, scores = RunFolder.open(run), {}
    for weighting in proxy_training.WEIGHTINGS:
        experiment = resolved(run, tiny_source).with_settings(short_loss=weighting)
        scores[weighting] = proxy_training.scores(experiment, folder)["4-3-3"]
    curve = next(t["curve"] for t in folder.trials(proxy_training.FILE).all() if t["pooling"] == "4-3-3")
    assert all(len(values) == 2 for values in scores.values())
    assert len({tuple(values) for values in scores.values()}) == 3
    assert proxy_training.score(curve, "ema") in scores["ema"]
