"""All outputs of a run name the same picks."""

import json

import pytest
from click.testing import CliRunner
from safetensors import safe_open

from conftest import draw_images
from poolwise import api
from poolwise.cli import cli, show
from poolwise.config import Config
from poolwise.datasets.sources import Source
from poolwise.rankings import ranking
from poolwise.selection.picks import choose, picks_of
from poolwise.storage import RunFolder


@pytest.fixture(scope="module")
def refined(tmp_path_factory):
    """A run whose refinement picks another configuration than its ranking, retrained and reported."""
    source = Source("tiny", draw_images(96, 8, 1), draw_images(48, 8, 2), ("red", "green", "blue"))
    config = Config.from_flat(
        width=2, supernets=2, steps=10, batch_size=16, eval_batch_size=24, retrain_steps=4, retrain_seeds=2, lr=0.05,
        draw="rounds", precision="float32", device="cpu", workers=1, threads=1,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("picks") / "run"
    api.search(config, path, source=source)
    api.rank(path, source=source)
    picks = api.refine(path, trials=3, at_once=1, margin=0.0, source=source).picks
    folder = RunFolder.open(path)
    value = folder.read("ranking.json", "")
    rows = {row["pooling"]: row for row in value["ranking"]}
    other = next(name for name in rows if name not in {*picks.values(), value["default"]})
    rows[other] |= {"score": 0.99, "halves": [0.99, 0.99]}
    folder.write_json("ranking.json", ranking.arrange(value, False))
    assert folder.read("ranking.json", "")["picks"]["best"] == other
    assert other != picks["best"]
    api.retrain(path, source=source)
    api.report(path)
    return path


def read(path, name):
    return json.loads((path / name).read_text())


def test_retrained_pick_is_exported(refined, tmp_path):
    best = read(refined, "refine.json")["picks"]["best"]
    assert read(refined, "retrain.json")["results"][0]["pooling"] == best
    to = tmp_path / "model.safetensors"
    done = CliRunner().invoke(cli, ["export", str(refined), "--pooling", "best", "--to", str(to)])
    assert done.exit_code == 0, done.exception
    with safe_open(to, framework="pt") as file:
        assert json.loads(file.metadata()["poolwise"])["pooling"] == best


def test_all_outputs_name_the_same_picks(refined, capsys):
    picks = picks_of(RunFolder.open(refined))
    assert picks.to_json() == read(refined, "refine.json")["picks"]
    assert picks.default == "4-3-3"
    assert {row["pooling"]: row["roles"] for row in read(refined, "retrain.json")["results"]} == picks.roles
    assert next(iter(picks.roles)) == picks.best == read(refined, "verdict.json")["pick"]
    assert f"<title>poolwise: {picks.best} for" in (refined / "report.html").read_text()
    show.result(refined, False)
    assert f"best {picks.best} (" in " ".join(capsys.readouterr().out.split())


def test_new_limits_apply_to_the_picks(refined):
    folder = RunFolder.open(refined)
    rows = {row["pooling"]: row for row in read(refined, "refine.json")["configurations"]}
    config, first = Config.from_flat(folder.request()["settings"]), picks_of(folder)

    def within(allowed):
        return picks_of(folder, config.replace(only=tuple(allowed)))

    second = within(name for name in rows if name != first.best)
    assert second.best != first.best
    assert rows[second.best]["trainings"] > 0
    untrained = [name for name, row in rows.items() if not row["trainings"]]
    assert within(untrained).best == untrained[0], "where no trained configuration is allowed"
    assert list(within(untrained).roles)[-1] == "4-3-3"


def row(pooling, expected, ratio):
    return {"pooling": pooling, "expected": expected, "macs": int(100 * ratio), "macs_ratio": ratio, "trainings": 1}


def test_every_pick_has_a_successful_full_training():
    rows = [row("2-2-6", 0.95, 0.5), row("3-2-5", 0.94, 0.6), row("5-3-2", 0.93, 1.4), row("6-2-2", 0.92, 1.6),
            row("4-2-4", 0.91, 0.9), row("4-3-3", 0.90, 1.0)]  # fmt: skip
    trials = [
        {"pooling": "4-3-3", "steps": 30, "accuracy": 0.90},
        {"pooling": "2-2-6", "steps": 10, "accuracy": 0.93},  # a third of the steps
        {"pooling": "3-2-5", "steps": 30, "accuracy": None},  # failed
        {"pooling": "6-2-2", "steps": 30, "accuracy": 0.92},
        {"pooling": "4-2-4", "steps": 30, "accuracy": 0.91},
    ]  # 5-3-2 is not trained
    refinement = {"configurations": rows, "trials": trials, "steps": 30}

    def picks(**limits):
        return choose({"default": "4-3-3"}, refinement, Config.from_flat(**limits))

    assert picks().to_json() == {"best": "6-2-2", "best_at_default_macs": "4-2-4", "best_for_cost": "6-2-2"}
    assert set(picks().roles) == {"6-2-2", "4-2-4", "4-3-3"}
    cheap = picks(only=("2-2-6", "4-2-4"))
    assert set(cheap.to_json().values()) == {"4-2-4"}
    assert picks(only=("2-2-6", "3-2-5")).best == "2-2-6", "no trained configuration is allowed"
