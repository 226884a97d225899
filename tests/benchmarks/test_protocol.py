"""Methods that train, at equal compute, against a table: on the smallest network, eight-pixel images."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import draw_images
from poolwise import api, tables
from poolwise.benchmarks.compare import entries
from poolwise.benchmarks.compare.compute import Compute
from poolwise.benchmarks.compare.config import CompareConfig
from poolwise.benchmarks.compare.methods import VARIANT_FIELDS, parse_methods
from poolwise.benchmarks.compare.protocol import Protocol
from poolwise.cli import main
from poolwise.config import Config, settings
from poolwise.datasets.sources import Source
from poolwise.errors import RequestError
from poolwise.experiment import resolve
from poolwise.models import family
from poolwise.progress import Interrupted, Listener
from poolwise.selection import strategies
from poolwise.storage import RunFolder
from poolwise.supernets import samplers
from poolwise.supernets.budget import step_macs
from poolwise.training import trials

METHODS = ["mixture@supernets=2", "fairnas", "random", "short-all"]
ASKED = {
    "methods": METHODS, "budgets": [60], "seeds": [1, 2], "controls": ["macs"], "resamples": 20,
    "workers": 1, "threads": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def source():
    return Source("tiny", draw_images(96, 8, 1), draw_images(48, 8, 2), ("red", "green", "blue"))


@pytest.fixture(scope="module")
def recipe(source):
    """What a table says of itself."""
    config = {
        "width": 2, "batch_size": 16, "eval_batch_size": 24, "retrain_steps": 12, "lr": 0.05,
        "precision": "float32", "device": "cpu",
    }  # fmt: skip
    return {"preset": "paper", "model": "resnet20", **config}


@pytest.fixture(scope="module")
def table(tmp_path_factory, recipe, source):
    """A table by hand: dearer configurations are better, with noise."""
    space, generator = family("resnet20").space, np.random.default_rng(0)
    costs = api.costs(width=2, image_size=8, classes=3)
    rows = []
    for pooling in space:
        own = (0.5 + 0.1 * costs[pooling].macs_ratio + generator.normal(0, 0.02, 2)).tolist()
        rows.append(
            {"pooling": str(pooling), "accuracies": own, "mean": np.mean(own), "std": float(np.std(own, ddof=1))}
        )
    data = {"name": "tiny", "fingerprint": source.fingerprint(), "image_size": 8, "classes": list(source.classes)}
    measured = {
        "space": space.to_json(), "seeds": [1, 2], "results": rows, "failed": [], "settings": recipe, "data": data, "steps": 12,
    }  # fmt: skip
    return tables.write(tmp_path_factory.mktemp("table"), "mine", measured).parent


def compare(table, out, source, listener=None, plan=False, **fields):
    if plan:
        return api.plan_comparison(CompareConfig(table, **fields), out, source=source)
    return api.compare(CompareConfig(table, **fields), out, source=source, listener=listener)


def protocol(table, methods, budgets, seeds, out, source):
    config = CompareConfig(table, methods=methods, budgets=budgets, seeds=seeds, workers=1, threads=1)
    return Protocol(config, tables.load(table), "resnet20", out, source)


class Stopping(Listener):
    """Asks to stop after so many checks."""

    def __init__(self, checks):
        self.left = checks

    def check(self):
        self.left -= 1
        if self.left < 0:
            raise Interrupted


@pytest.fixture(scope="module")
def study(tmp_path_factory, table, source):
    out = tmp_path_factory.mktemp("study") / "out"
    return out, compare(table, out, source, **ASKED)


def test_every_method_is_judged(study):
    out, value = study
    told = {(row["method"], row["treatment"]): row for row in value["summary"]}
    assert {method for method, _ in told} == {*METHODS, "macs"}
    for method in METHODS:
        assert (told[method, "raw"]["n"], told[method, "raw"]["budget"]) == (2, 60)
    assert len(value["pairs"]) == 6 * 3 * 2  # pairs of methods x treatments x measures
    assert value["failed"] == []
    page = (out / "compare.html").read_text()
    assert "Budget 60 steps" in page
    assert page.count("<svg") == 6
    assert (out / "figures" / "anytime_agreement.svg").exists()


def test_nobody_spends_more_than_the_budget(study, table, source):
    out, value = study
    asked = protocol(table, METHODS, [60], [1, 2], out, source)
    macs, dearest = asked.compute.macs, max(asked.compute.macs.values())
    spent = {(entry["method"], entry["seed"]): entry["spent_macs"] for entry in value["entries"] if entry["budget"]}
    budget = asked.compute.budget(60)
    for work in asked.works:
        own = spent[work.spec.label, work.seed]
        if work.spec.standalone:
            assert 0 < own <= budget
            trials = RunFolder(work.folder).trials().all()
            assert own == sum(
                (3 * 16 * t["budget"] + 48) * asked.experiment.cost(asked.table.space.parse(t["pooling"])).macs
                for t in trials
            )
        else:
            mean = sum(macs.values()) / 36
            ranking = asked.compute.ranking(work.config)
            assert work.config.search.steps * step_macs(asked.experiment, 1) * mean + ranking <= budget + 1
            assert (work.config.search.steps + 1) * step_macs(asked.experiment, 1) * mean + ranking > budget
            assert own <= work.config.search.steps * step_macs(asked.experiment, dearest) + ranking
    steps = {work.spec.label: work.config.search.steps for work in asked.works if not work.spec.standalone}
    assert steps["fairnas"] == 60  # the budget is defined by a single SuperNet
    assert 40 < steps["mixture@supernets=2"] < 60
    assert asked.left == []


def test_who_prefers_dear_configurations_takes_fewer_steps(tmp_path, table, source):
    asked = {**ASKED, "methods": ["mcts", "boltzmann@warm_up=0.5"], "budgets": [200], "seeds": [1]}
    value = compare(table, tmp_path / "out", source, **asked)
    for entry in value["entries"]:
        if entry["budget"]:
            assert entry["spent_macs"] == pytest.approx(entry["budget_macs"], rel=0.01)


def test_the_count_of_a_search_is_what_it_trained(study):
    out, _ = study
    folder = RunFolder.open(out / "runs" / "fairnas-60-1")
    told = folder.read("ranking.json", "")
    macs = [row["macs"] for row in told["ranking"]]
    assert told["spent"]["rank_macs"] < 48 * sum(macs)
    rounds = 36 * (3 * 16 + 16) * np.mean(macs)
    rest = 24 * (3 * 16 + 16)
    assert rounds + rest * min(macs) < told["spent"]["search_macs"] < rounds + rest * max(macs)


def test_anytime_has_a_point_a_trial(study):
    out, value = study
    with (out / "anytime.csv").open() as file:
        rows = list(csv.DictReader(file))
    for method, count in (("short-all", 36), ("fairnas", 1), ("mixture@supernets=2", 1)):
        assert len([row for row in rows if row["method"] == method and row["seed"] == "1"]) == count
    own = [int(row["spent_macs"]) for row in rows if row["method"] == "random" and row["seed"] == "2"]
    assert own == sorted(set(own))
    assert len(own) > 1
    last = [row for row in rows if row["method"] == "random" and row["seed"] == "2"][-1]
    whole = next(r for r in value["rows"] if r["method"] == "random" and r["seed"] == 2 and r["treatment"] == "raw")
    assert float(last["tau_b"]) == pytest.approx(whole["tau_b"]["value"], abs=1e-5)


@pytest.mark.parametrize("checks", [50, 200])
def test_it_goes_on_after_a_stop_to_the_same_bytes(study, tmp_path, table, source, checks):
    out = tmp_path / "out"
    with pytest.raises(Interrupted):
        compare(table, out, source, listener=Stopping(checks), **{**ASKED, "seeds": [1]})
    assert (out / "study.json").exists()
    assert not (out / "compare.json").exists()
    for done in (study[0] / "runs").glob("*-2"):  # seed 2 was done elsewhere
        shutil.copytree(done, out / "runs" / done.name)
    (out / "runs" / "short-all-60-1").mkdir(exist_ok=True)  # killed at its very beginning, or somewhere in it
    compare(table, out, source, **ASKED)
    for name in ("compare.csv", "anytime.csv"):
        assert (out / name).read_bytes() == (study[0] / name).read_bytes()


def test_trials_that_are_done_are_not_trained_again(study, tmp_path, table, source, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(study[0], out)
    (out / "runs" / "random-60-1" / "trials.json").unlink()
    monkeypatch.setattr(trials, "train_standalone", lambda *_: pytest.fail("trained again"))
    compare(table, out, source, **ASKED)
    assert (out / "compare.csv").read_bytes() == (study[0] / "compare.csv").read_bytes()


def test_trials_never_see_the_test_set(study, tmp_path, table, source):
    asked = protocol(table, METHODS[1:3], [60], [1], tmp_path, source)
    other = dataclasses.replace(source, test=draw_images(48, 8, 77))
    for work in asked.works:
        entries.carry_out(resolve(work.config, other), Listener(), None, work)
        again = entries.read(work, asked.table.space)
        first = next(e for e in study[1]["entries"] if (e["method"], e["seed"]) == (work.spec.label, 1))
        assert again.scores_P.tolist() == first["scores"]


def test_a_failed_training_counts_as_nothing(tmp_path, table, source):
    folder = shutil.copytree(table, tmp_path / "mine")
    about = json.loads((folder / "mine.json").read_text())
    about["recipe"]["lr"] = 1e38
    (folder / "mine.json").write_text(json.dumps(about))
    options = {**ASKED, "methods": ["random", "spos@lr=1e38"], "budgets": [20], "seeds": [1]}
    value = compare(folder, tmp_path / "out", source, **options)
    assert [entry["method"] for entry in value["entries"]] == ["random", "macs"]
    assert len(value["failed"]) == 1
    assert "spos@lr=1e+38, budget 20, seed 1" in value["failed"][0]
    trials = RunFolder(tmp_path / "out" / "runs" / "random-20-1").trials().all()
    assert {trial["state"] for trial in trials} == {"failed"}


def test_a_training_is_done_once_a_seed(tmp_path, table, source):
    out = tmp_path / "out"
    for budgets in ([60], [60, 120]):
        options = {**ASKED, "methods": ["random"], "budgets": budgets, "seeds": [1], "controls": []}
        value = compare(table, out, source, **options)
    small, large = (RunFolder(out / "runs" / f"random-{budget}-1").trials().all() for budget in (60, 120))
    assert 0 < len(small) < len(large)
    assert all(trial in large for trial in small), "a repetition would have taken other seconds"
    spent = {entry["budget"]: entry["spent_macs"] for entry in value["entries"]}
    assert spent[120] > spent[60], "what was found elsewhere counts as well"
    whole = compare(table, tmp_path / "new", source, **{**options, "budgets": [120]})
    assert whole["entries"][0]["scores"] == value["entries"][1]["scores"]


def test_full_trainings_have_the_epochs_of_the_truth(recipe, source):
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


def test_short_trainings_are_paid_for(tmp_path, table, source):
    names, budgets = ["fairnas", "fairnas@short=0.6"], [600, 800]
    options = {**ASKED, "methods": names, "budgets": budgets, "seeds": [1]}
    value = compare(table, tmp_path / "out", source, **options)
    asked = protocol(table, names, budgets, [1], tmp_path / "out", source)
    assert asked.left == []
    for work in asked.works:
        (entry,) = [e for e in value["entries"] if (e["method"], e["budget"]) == (work.spec.label, work.budget)]
        folder = RunFolder.open(work.folder)
        told = folder.read("ranking.json", "")
        assert entry["spent_macs"] == sum(told["spent"].values())
        assert entry["spent_macs"] == pytest.approx(entry["budget_macs"], rel=0.02)
        if work.spec.label == "fairnas":
            assert work.config.search.steps == work.budget
            continue
        trials = folder.trials("short.sqlite").all()
        length, seeds = told["short"]["length"], told["short"]["seeds"]
        assert len(trials) == 36 * seeds
        assert length * seeds * 36 <= 0.6 * work.config.search.steps < (length * seeds + 1) * 36
        assert work.config.search.steps > work.budget  # nothing is scored in short trainings
        assert ("parts" in entry) == told["short"]["used"]


def test_recalibration_is_paid_for(tmp_path, table, source):
    names = ["mixture@supernets=2", "mixture@supernets=2;norm=recalibrated"]
    options = {**ASKED, "methods": names, "budgets": [100], "seeds": [1]}
    value = compare(table, tmp_path / "out", source, **options)
    asked = protocol(table, names, [100], [1], tmp_path / "out", source)
    (steps, fewer) = (work.config.search.steps for work in asked.works)
    assert fewer < steps
    for work, images in zip(asked.works, (48, 48 + 48), strict=True):  # the whole training half is below 8 batches
        told = RunFolder.open(work.folder).read("ranking.json", "")
        groups = [
            [asked.table.space.parse(r["pooling"]) for r in told["ranking"] if r["supernet"] == m] for m in (0, 1)
        ]
        expected = images * sum(asked.experiment.cost.prefix_macs(group) for group in groups)
        assert told["spent"]["rank_macs"] == expected <= asked.compute.ranking(work.config)
    assert value["failed"] == []


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--methods", "mixture"], "does not say how its networks were trained"),
        (["--methods", "mixtre", "--recipe", "paper"], "did you mean 'mixture'"),
        (["--methods", "spos", "--recipe", "paper", "--budgets", "0"], "at least 1"),
        (["--methods", "spos", "--budgets", "many"], "use integers like"),
        (["--methods", "spos", "--seeds", "1,1", "--recipe", "paper"], "each once"),
        (["--methods", "spos", "--recipe", "papers"], "did you mean 'paper'"),
        (["--plan"], "nothing to plan"),
    ],
)
def test_wrong_commands_are_one_line(tmp_path, capsys, flags, told):
    with pytest.raises(SystemExit) as end:
        main(["compare", "--table", "resnet20-cifar10-published", "--out", str(tmp_path / "out"), *flags])
    assert end.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    (line,) = [text for text in lines if text != "compare: timing steps on this machine for the plan"]
    assert told in line
    assert not (tmp_path / "out").exists()


def test_the_plan_does_nothing(tmp_path, table, source):
    plan = api.plan_comparison(CompareConfig(table, **ASKED), tmp_path / "out", source=source)
    assert len(plan.entries) == 8
    assert plan.macs == sum(entry.macs for entry in plan.entries)
    assert plan.seconds > 0
    assert plan.to_json()["entries"][0]["method"] == plan.entries[0].method
    fields = {name: value for name, value in ASKED.items() if name not in ("controls", "workers", "threads")}
    fields |= {"names": ["macs"], "machine": {"workers": 1, "threads": 1}}
    with pytest.warns(DeprecationWarning, match="plan_comparison"):
        old = api.compare(table, tmp_path / "out", source=source, plan=True, **fields)
    assert {**old, "seconds": 0} == {**plan.to_json(), "seconds": 0}
    assert not (tmp_path / "out").exists()


def test_names_and_variants():
    told = parse_methods(["mixture", "mixture@draw=rounds;supernets=8", "boltzmann@warm_up=0.3", "tpe", "fairnas"], 4)
    assert [spec.label for spec in told] == [
        "mixture@supernets=4", "mixture@supernets=8;draw=rounds", "boltzmann@warm_up=0.3", "tpe", "fairnas",
    ]  # fmt: skip
    every = parse_methods(["all"], 4)
    assert [spec.method for spec in every] == [*(s.name for s in samplers.available()), *strategies.available()]
    assert (
        parse_methods(["spos@eval_batch_size=500"], 4)[0].label == "spos@eval_batch_size=500"
    )  # the table's may differ
    assert parse_methods(["spos@lr=0.1"], 4)[0].label == "spos"  # as published anyway


def test_only_settings_of_the_search_method_vary():
    """What is the same for every method is refused by name, so a new setting is not silently a variant."""
    for name in settings():
        if name not in VARIANT_FIELDS:
            with pytest.raises(RequestError, match=f"{name} is the same for all methods"):
                parse_methods([f"fairnas@{name}=1"], 4)


def test_labels_of_committed_results_are_still_parsed():
    """Every label in the results reads back to itself, so old studies open."""
    labels = set()
    for file in (Path(__file__).parents[2] / "benchmarks/results").rglob("*.csv"):
        with file.open() as rows:
            labels |= {row["method"] for row in csv.DictReader(rows) if "=" in (row.get("method") or "")}
    samplers_here = {sampler.name for sampler in samplers.available()}
    labels = {label for label in labels if label.partition("@")[0] in samplers_here and "+" not in label}
    assert len(labels) > 20
    for label in labels:
        (spec,) = parse_methods([label], 4)
        assert set(spec.label.partition("@")[2].split(";")) == set(label.partition("@")[2].split(";"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"methods": ["mixtur"]}, "did you mean 'mixture'"),
        ({"methods": ["mixture", "mixture@supernets=4"]}, "mixture@supernets=4 is given twice"),
        ({"methods": ["random", "all"]}, "random is given twice"),
        ({"methods": ["mixture@supernet=4"]}, "did you mean 'supernets'"),
        ({"methods": ["mixture@lr"]}, "field=value"),
        ({"methods": ["mixture@lr=x"]}, "lr cannot be 'x'"),
        ({"methods": ["mixture@lr=-1"]}, "lr is -1.0"),
        ({"methods": ["mixture@batch_size=8"]}, "the same for all methods"),
        ({"methods": ["mixture@max_configs=10"]}, "max_configs is the same for all methods"),
        ({"methods": ["mixture@rank_beam=1"]}, "rank_beam is the same for all methods"),
        ({"methods": ["fairnas@skip_broken=true"]}, "skip_broken is the same for all methods"),
        ({"methods": ["fairnas@warm_up=0.5"]}, "no warm-up"),
        ({"methods": ["spos@supernets=4"]}, "trains one SuperNet"),
        ({"methods": ["random@lr=1"]}, "variants are of samplers"),
        ({"seeds": [1, 1]}, "each once"),
        ({"seeds": [-1]}, "at least 0"),
        ({"budgets": [0]}, "at least 1"),
        ({"budgets": [5, 5]}, "each once"),
        ({"budgets": []}, "at least one"),
        ({"methods": ["mixture@supernets=36"], "budgets": [1]}, "too small for mixture@supernets=36"),
        ({"recipe": "paper"}, "leave --recipe out"),
        ({"methods": [], "controls": []}, "nothing to compare"),
        ({"methods": [], "plan": True}, "nothing to plan"),
        ({"controls": ["mac"]}, "did you mean 'macs'"),
    ],
)
def test_wrong_requests(tmp_path, table, source, change, told):
    with pytest.raises(RequestError, match=told):
        compare(table, tmp_path / "out", source, **{**ASKED, **change})
    assert not (tmp_path / "out").exists()


def test_what_contradicts_an_earlier_study(study, tmp_path, table, source):
    out, _ = study
    before = (out / "study.json").read_bytes()
    renamed = tmp_path / "other"
    shutil.copytree(table, renamed)
    for suffix in ("csv", "json"):
        (renamed / f"mine.{suffix}").rename(renamed / f"other.{suffix}")
    with pytest.raises(RequestError, match="against table mine"):
        compare(renamed, out, source, **ASKED)
    with pytest.raises(RequestError, match="another precision of the recipe"):
        compare(table, out, source, **{**ASKED, "precision": "bfloat16", "workers": None})
    other = dataclasses.replace(source, train=draw_images(96, 8, 5))
    with pytest.raises(RequestError, match="not those that table mine was made with"):
        compare(table, out, other, **ASKED)
    with pytest.raises(RequestError, match="does not say how its networks were trained"):
        api.compare(CompareConfig("resnet20-cifar10-published", methods=["mixture"]), tmp_path / "new")
    assert (out / "study.json").read_bytes() == before
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_two_workers_give_the_same_bytes(study, tmp_path, table, source):
    options = {**ASKED, "workers": 2, "threads": 1, "methods": ["fairnas", "random"]}
    compare(table, tmp_path / "out", source, **options)
    for name in ("fairnas-60-1/ranking.json", "random-60-2/trials.json"):
        one, two = (json.loads((out / "runs" / name).read_text()) for out in (study[0], tmp_path / "out"))
        assert {**one, "hardware": 0} == {**two, "hardware": 0}
