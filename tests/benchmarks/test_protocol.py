"""Methods trained at equal compute and compared with a table: budgets, resuming, failures."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest

import tiny_comparison
from conftest import draw_images
from poolwise import api
from poolwise.benchmarks.compare import entries
from poolwise.benchmarks.compare.compute import Compute
from poolwise.benchmarks.compare.config import CompareConfig
from poolwise.config import Config
from poolwise.errors import RequestError
from poolwise.experiment import resolve
from poolwise.progress import Interrupted, Listener
from poolwise.storage import RunFolder
from poolwise.supernets.budget import step_macs
from poolwise.training import trials
from tiny_comparison import METHODS, REQUEST, compare, protocol


@pytest.fixture(scope="module")
def source():
    return tiny_comparison.source()


@pytest.fixture(scope="module")
def table(tmp_path_factory, source):
    return tiny_comparison.write_table(tmp_path_factory.mktemp("table"), source)


class Stopping(Listener):
    """Interrupt after a number of checks."""

    def __init__(self, checks):
        self.left = checks

    def check(self):
        self.left -= 1
        if self.left < 0:
            raise Interrupted


@pytest.fixture(scope="module")
def study(tmp_path_factory, table, source):
    out = tmp_path_factory.mktemp("study") / "out"
    return out, compare(table, out, source, **REQUEST)


def test_every_method_is_evaluated(study):
    out, value = study
    summary_of = {(row["method"], row["treatment"]): row for row in value["summary"]}
    assert {method for method, _ in summary_of} == {*METHODS, "macs"}
    for method in METHODS:
        assert (summary_of[method, "raw"]["n"], summary_of[method, "raw"]["budget"]) == (2, 60)
    assert len(value["pairs"]) == 6 * 3 * 2  # pairs of methods x treatments x measures
    assert value["failed"] == []
    page = (out / "compare.html").read_text()
    assert "Budget 60 steps" in page
    assert page.count("<svg") == 6
    assert (out / "figures" / "anytime_agreement.svg").exists()


def test_no_method_exceeds_the_budget(study, table, source):
    out, value = study
    planned = protocol(table, METHODS, [60], [1, 2], out, source)
    macs, most_macs = planned.compute.macs, max(planned.compute.macs.values())
    spent = {(entry["method"], entry["seed"]): entry["spent_macs"] for entry in value["entries"] if entry["budget"]}
    budget = planned.compute.budget(60)
    for work in planned.works:
        macs_spent = spent[work.spec.label, work.seed]
        if work.spec.standalone:
            assert 0 < macs_spent <= budget
            trials = RunFolder(work.folder).trials().all()
            assert macs_spent == sum(
                (3 * 16 * t["budget"] + 48) * planned.experiment.cost(planned.table.space.parse(t["pooling"])).macs
                for t in trials
            )
        else:
            mean = sum(macs.values()) / 36
            ranking = planned.compute.ranking(work.config)
            assert work.config.search.steps * step_macs(planned.experiment, 1) * mean + ranking <= budget + 1
            assert (work.config.search.steps + 1) * step_macs(planned.experiment, 1) * mean + ranking > budget
            assert macs_spent <= work.config.search.steps * step_macs(planned.experiment, most_macs) + ranking
    steps = {work.spec.label: work.config.search.steps for work in planned.works if not work.spec.standalone}
    assert steps["fairnas"] == 60  # the budget is defined by a single SuperNet
    assert 40 < steps["mixture@supernets=2"] < 60
    assert planned.left == []


@pytest.mark.slow
def test_methods_that_prefer_expensive_configurations_stay_within_the_budget(tmp_path, table, source):
    request = {
        **REQUEST,
        "methods": ["mcts", "boltzmann@warm_up=0.5", "iterative-mcts"],
        "budgets": [200],
        "seeds": [1],
    }
    value = compare(table, tmp_path / "out", source, **request)
    for entry in value["entries"]:
        if entry["budget"]:
            assert entry["spent_macs"] == pytest.approx(entry["budget_macs"], rel=0.01)


def test_reported_macs_match_the_search(study):
    out, _ = study
    folder = RunFolder.open(out / "runs" / "fairnas-60-1")
    ranking = folder.read("ranking.json", "")
    macs = [row["macs"] for row in ranking["ranking"]]
    assert ranking["spent"]["rank_macs"] < 48 * sum(macs)
    rounds = 36 * (3 * 16 + 16) * np.mean(macs)
    rest = 24 * (3 * 16 + 16)
    assert rounds + rest * min(macs) < ranking["spent"]["search_macs"] < rounds + rest * max(macs)


def test_anytime_has_one_point_per_trial(study):
    out, value = study
    with (out / "anytime.csv").open() as file:
        rows = list(csv.DictReader(file))
    for method, count in (("short-all", 36), ("fairnas", 1), ("mixture@supernets=2", 1)):
        assert len([row for row in rows if row["method"] == method and row["seed"] == "1"]) == count
    spent = [int(row["spent_macs"]) for row in rows if row["method"] == "random" and row["seed"] == "2"]
    assert spent == sorted(set(spent))
    assert len(spent) > 1
    last = [row for row in rows if row["method"] == "random" and row["seed"] == "2"][-1]
    final = next(r for r in value["rows"] if r["method"] == "random" and r["seed"] == 2 and r["treatment"] == "raw")
    assert float(last["tau_b"]) == pytest.approx(final["tau_b"]["value"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("checks", [50, 200])
def test_resumed_comparison_writes_the_same_bytes(study, tmp_path, table, source, checks):
    out = tmp_path / "out"
    with pytest.raises(Interrupted):
        compare(table, out, source, listener=Stopping(checks), **{**REQUEST, "seeds": [1]})
    assert (out / "study.json").exists()
    assert not (out / "compare.json").exists()
    for done in (study[0] / "runs").glob("*-2"):  # seed 2 was trained in another folder
        shutil.copytree(done, out / "runs" / done.name)
    (out / "runs" / "short-all-60-1").mkdir(exist_ok=True)  # killed before or during the entry
    compare(table, out, source, **REQUEST)
    for name in ("compare.csv", "anytime.csv"):
        assert (out / name).read_bytes() == (study[0] / name).read_bytes()


def test_finished_trials_are_not_repeated(study, tmp_path, table, source, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(study[0], out)
    (out / "runs" / "random-60-1" / "trials.json").unlink()
    monkeypatch.setattr(trials, "train_standalone", lambda *_: pytest.fail("trained again"))
    compare(table, out, source, **REQUEST)
    assert (out / "compare.csv").read_bytes() == (study[0] / "compare.csv").read_bytes()


def test_trials_do_not_use_the_test_set(study, tmp_path, table, source):
    planned = protocol(table, METHODS[1:3], [60], [1], tmp_path, source)
    other = dataclasses.replace(source, test=draw_images(48, 8, 77))
    for work in planned.works:
        entries.carry_out(resolve(work.config, other), Listener(), None, work)
        again = entries.read(work, planned.table.space)
        first = next(e for e in study[1]["entries"] if (e["method"], e["seed"]) == (work.spec.label, 1))
        assert again.scores_P.tolist() == first["scores"]


def test_failed_trainings_are_reported(tmp_path, table, source):
    folder = shutil.copytree(table, tmp_path / "mine")
    about = json.loads((folder / "mine.json").read_text())
    about["recipe"]["lr"] = 1e38
    (folder / "mine.json").write_text(json.dumps(about))
    options = {**REQUEST, "methods": ["random", "spos@lr=1e38"], "budgets": [20], "seeds": [1]}
    value = compare(folder, tmp_path / "out", source, **options)
    assert [entry["method"] for entry in value["entries"]] == ["random", "macs"]
    assert len(value["failed"]) == 1
    assert "spos@lr=1e+38, budget 20, seed 1" in value["failed"][0]
    trials = RunFolder(tmp_path / "out" / "runs" / "random-20-1").trials().all()
    assert {trial["state"] for trial in trials} == {"failed"}


@pytest.mark.slow
def test_entries_of_one_seed_share_trainings(tmp_path, table, source):
    out = tmp_path / "out"
    for budgets in ([60], [60, 120]):
        options = {**REQUEST, "methods": ["random"], "budgets": budgets, "seeds": [1], "controls": []}
        value = compare(table, out, source, **options)
    small, large = (RunFolder(out / "runs" / f"random-{budget}-1").trials().all() for budget in (60, 120))
    assert 0 < len(small) < len(large)
    assert all(trial in large for trial in small), "a repeated training would have another duration"
    spent = {entry["budget"]: entry["spent_macs"] for entry in value["entries"]}
    assert spent[120] > spent[60], "results reused from other entries count as well"
    separate = compare(table, tmp_path / "new", source, **{**options, "budgets": [120]})
    assert separate["entries"][0]["scores"] == value["entries"][1]["scores"]


def test_full_trainings_use_the_epochs_of_the_table(source):
    config = {
        "preset": "paper",
        "model": "resnet20",
        "width": 2,
        "batch_size": 20,
        "retrain_steps": None,
        "retrain_epochs": 7,
    }
    compute = Compute(resolve(Config.from_flat(config), source))
    assert (compute.training, compute.full_steps) == (48, 7 * (48 // 20))
    steps = {**config, "retrain_steps": 7 * (96 // 20)}
    assert Compute(resolve(Config.from_flat(steps), source)).full_steps == 7 * (48 // 20)


@pytest.mark.slow
def test_proxy_trainings_count_toward_the_budget(tmp_path, table, source):
    names, budgets = ["fairnas", "fairnas@short=0.6"], [600, 800]
    options = {**REQUEST, "methods": names, "budgets": budgets, "seeds": [1]}
    value = compare(table, tmp_path / "out", source, **options)
    planned = protocol(table, names, budgets, [1], tmp_path / "out", source)
    assert planned.left == []
    for work in planned.works:
        (entry,) = [e for e in value["entries"] if (e["method"], e["budget"]) == (work.spec.label, work.budget)]
        folder = RunFolder.open(work.folder)
        ranking = folder.read("ranking.json", "")
        assert entry["spent_macs"] == sum(ranking["spent"].values())
        assert entry["spent_macs"] == pytest.approx(entry["budget_macs"], rel=0.02)
        if work.spec.label == "fairnas":
            assert work.config.search.steps == work.budget
            continue
        trials = folder.trials("short.sqlite").all()
        length, seeds = ranking["short"]["length"], ranking["short"]["seeds"]
        assert len(trials) == 36 * seeds
        assert length * seeds * 36 <= 0.6 * work.config.search.steps < (length * seeds + 1) * 36
        assert work.config.search.steps > work.budget  # proxy trainings have no scoring passes
        assert ("parts" in entry) == ranking["short"]["used"]


@pytest.mark.slow
def test_recalibration_counts_toward_the_budget(tmp_path, table, source):
    names = ["mixture@supernets=2", "mixture@supernets=2;norm=recalibrated"]
    options = {**REQUEST, "methods": names, "budgets": [100], "seeds": [1]}
    value = compare(table, tmp_path / "out", source, **options)
    planned = protocol(table, names, [100], [1], tmp_path / "out", source)
    (steps, fewer) = (work.config.search.steps for work in planned.works)
    assert fewer < steps
    for work, images in zip(planned.works, (48, 48 + 48), strict=True):  # the training half has fewer than 8 batches
        ranking = RunFolder.open(work.folder).read("ranking.json", "")
        groups = [
            [planned.table.space.parse(r["pooling"]) for r in ranking["ranking"] if r["supernet"] == m] for m in (0, 1)
        ]
        expected = images * sum(planned.experiment.cost.prefix_macs(group) for group in groups)
        assert ranking["spent"]["rank_macs"] == expected <= planned.compute.ranking(work.config)
    assert value["failed"] == []


def test_conflict_with_an_earlier_study_is_rejected(study, tmp_path, table, source):
    out, _ = study
    before = (out / "study.json").read_bytes()
    renamed = tmp_path / "other"
    shutil.copytree(table, renamed)
    for suffix in ("csv", "json"):
        (renamed / f"mine.{suffix}").rename(renamed / f"other.{suffix}")
    with pytest.raises(RequestError, match="comparison with table mine"):
        compare(renamed, out, source, **REQUEST)
    with pytest.raises(RequestError, match="another precision of the recipe"):
        compare(table, out, source, **{**REQUEST, "precision": "bfloat16", "workers": None})
    other = dataclasses.replace(source, train=draw_images(96, 8, 5))
    with pytest.raises(RequestError, match="not those that table mine was made with"):
        compare(table, out, other, **REQUEST)
    with pytest.raises(RequestError, match="does not state how its networks were trained"):
        api.compare(CompareConfig("resnet20-cifar10-published", methods=["mixture"]), tmp_path / "new")
    assert (out / "study.json").read_bytes() == before
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_two_workers_give_the_same_results(study, tmp_path, table, source):
    options = {**REQUEST, "workers": 2, "threads": 1, "methods": ["fairnas", "random"]}
    compare(table, tmp_path / "out", source, **options)
    for name in ("fairnas-60-1/ranking.json", "random-60-2/trials.json"):
        one, two = (json.loads((out / "runs" / name).read_text()) for out in (study[0], tmp_path / "out"))
        assert {**one, "hardware": 0} == {**two, "hardware": 0}
