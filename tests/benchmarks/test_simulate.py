"""Simulations on a table: results, determinism and error messages."""

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner

from poolwise import api, tables
from poolwise.benchmarks.simulate import Answers, parse
from poolwise.cli import cli
from poolwise.errors import RequestError

PUBLISHED, SMALL = "resnet20-cifar10-published", "resnet20w8-cifar10-10k"


def test_good_hints_reduce_the_regret():
    value = api.simulate(
        PUBLISHED, methods=["top@supernets8", "random", "refine@supernets8"], runs=30, trials=8, tolerance=0.2
    )
    rows = {row["method"]: row for row in value["methods"]}
    table = tables.load(PUBLISHED)
    truth, scores = np.array(table.column("standalone_mean")), np.array(table.column("supernets8_mean"))
    order = [i for i in np.argsort(-scores, kind="stable") if i != table.space.index("4-3-3")]
    first = [table.space.index("4-3-3"), *order[:7]]
    assert rows["top@supernets8"]["mean"][-1] >= truth.max() - truth[first].max() - 1e-9
    assert rows["top@supernets8"]["mean"][0] == pytest.approx(truth.max() - truth[first[0]])
    assert rows["refine@supernets8"]["mean"][-1] < rows["random"]["mean"][-1]
    assert all(np.diff(rows["random"]["mean"])[1:] < 0.5)
    assert all(row["q10"][i] <= row["q50"][i] <= row["q90"][i] for row in rows.values() for i in range(8))
    assert rows["random"]["compute"][-1] == pytest.approx(8 / 36)
    for row in rows.values():  # a choice among full trainings was trained, and the trained set only grows
        assert (np.array(row["found"]) <= np.array(row["reached"]) + 1e-9).all()
        assert (np.diff(row["reached"]) >= 0).all()


def test_simulation_depends_only_on_arguments_and_seed():
    arguments = {"methods": ["refine@shuffled-supernets4"], "runs": 4, "trials": 5}
    first, again = (api.simulate(PUBLISHED, **arguments)["methods"][0]["mean"] for _ in range(2))
    assert first == again
    assert api.simulate(PUBLISHED, **arguments, seed=1)["methods"][0]["mean"] != first


def test_simulated_accuracies_have_the_noise_of_the_table():
    for name in (PUBLISHED, SMALL):
        table = tables.load(name)
        drawn = np.array(
            [
                [Answers(table, 90, 0.75, np.random.default_rng(run))(place, 90) for place in (0, 33)]
                for run in range(600)
            ]
        )
        expected = [table.noise()] * 2 if table.seeds else [table.column("standalone_std")[place] for place in (0, 33)]
        assert drawn.std(0) == pytest.approx(expected, rel=0.12)
        assert drawn.mean(0) == pytest.approx([table.column(table.truth)[place] for place in (0, 33)], abs=0.2)


def test_shorter_trainings_have_the_requested_agreement():
    table = tables.load(PUBLISHED)
    truth, correlations = np.array(table.column("standalone_mean")), []
    for run in range(60):
        answers = Answers(table, 90, 0.8, np.random.default_rng(run))
        correlations.append(np.corrcoef(truth, [answers(place, 30) for place in range(36)])[0, 1])
    assert np.mean(correlations) == pytest.approx(0.8, abs=0.05)


def test_ranked_run_as_hint_adds_its_search_macs(tmp_path):
    table = tables.load(SMALL)
    rows = [{"pooling": str(pooling), "smoothed": i / 100} for i, pooling in enumerate(table.space)]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "ranking.json").write_text(
        json.dumps({"format": 1, "ranking": rows, "spent": {"search": 10**12}})
    )
    (player,) = parse([f"refine@{tmp_path / 'run'}+macs"], table, "resnet20")
    assert player.search_macs == 10**12
    value = api.simulate(SMALL, methods=[player.label], runs=2, trials=3)
    assert value["methods"][0]["compute"][0] > 1 / 36


def test_repetitions_cycle_through_several_searches(tmp_path):
    table = tables.load(SMALL)
    truth = table.column(table.truth)
    for name, sign in (("good", 1), ("bad", -1)):
        rows = [{"pooling": str(p), "smoothed": sign * t} for p, t in zip(table.space, truth, strict=True)]
        (tmp_path / name).mkdir()
        ranking = {"format": 1, "ranking": rows, "spent": {"search": 10**12 if sign > 0 else 3 * 10**12}}
        (tmp_path / name / "ranking.json").write_text(json.dumps(ranking))
    (player,) = parse([f"top@{tmp_path}/*"], table, "resnet20")
    assert player.search_macs == 2 * 10**12
    assert player.hints[f"{tmp_path}/*"].shape == (2, 36)
    value = api.simulate(SMALL, methods=[player.label], runs=2, trials=2)
    assert value["methods"][0]["reached"][-1] == 0.5


def test_command(tmp_path):
    out = tmp_path / "out"
    arguments = ["simulate", "--table", SMALL, "--methods", "refine@productive,random", "--runs", "3", "--trials", "4"]
    shown = CliRunner().invoke(
        cli, [*arguments, "--out", str(out), "--quiet"], catch_exceptions=False, standalone_mode=False
    )
    assert "refine@productive" in shown.output
    assert len(list(csv.DictReader((out / "simulate.csv").open()))) == 8
    assert (out / "simulate.svg").read_text().startswith("<svg")
    (out / "simulate.json").unlink()
    for wrong, message in (
        (["--table", "nothing"], "unknown table"),
        (["--methods", "refien"], "did you mean 'refine'"),
        (["--methods", "refine@produktive"], "did you mean 'productive'"),
        (["--methods", "none"], "nothing to simulate"),
        (["--methods", "random,random"], "occurs twice"),
        (["--methods", "refine@macs+macs"], "occurs twice"),
        (["--out", str(out)], "not the folder of an earlier simulation"),
    ):
        with pytest.raises(RequestError, match=message):
            CliRunner().invoke(cli, [*arguments, *wrong], catch_exceptions=False, standalone_mode=False)
