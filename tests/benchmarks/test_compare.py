import csv
import json
import re

import numpy as np
import pytest

import poolwise
from poolwise import api, statistics, tables
from poolwise.benchmarks.compare.config import CompareConfig
from poolwise.benchmarks.compare.judge import Entry, judge, pairs, summary
from poolwise.benchmarks.compare.study import study, write
from poolwise.errors import RequestError
from poolwise.reports import comparison

PUBLISHED = "resnet20-cifar10-published"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    out = tmp_path_factory.mktemp("compare") / "out"
    return out, api.compare(CompareConfig(PUBLISHED, resamples=60), out)


def test_published_figures_are_reproduced(published):
    _, value = published
    plain = {row["method"]: row for row in value["summary"] if row["treatment"] == "raw"}
    published_tau = {f"supernets{m}": tau for m, tau in ((1, 0.14), (2, 0.31), (4, 0.60), (8, 0.53))}
    for method, tau in published_tau.items():
        assert plain[method]["tau_a"]["mean"] == pytest.approx(tau, abs=0.0065)  # 0.146 is published as 0.14
    assert round(plain["macs"]["tau_a"]["mean"], 2) == 0.49
    assert round(plain["productive"]["tau_b"]["mean"], 2) == 0.56
    for method in ("supernets4", "supernets8"):  # both put 5-2-3 first
        assert plain[method]["regret@1"]["mean"] == pytest.approx(1.05)
        assert plain[method]["best_rank@1"]["mean"] == 7  # two share 90.96: places 7 and 8
        assert plain[method]["beats_random@1"]["mean"] == pytest.approx(28 / 36)
        assert next(row for row in value["rows"] if row["method"] == method)["first"] == "5-2-3"


def test_every_measure_has_an_interval_for_every_treatment(published):
    _, value = published
    assert {(row["method"], row["treatment"]) for row in value["rows"]} == {
        (method, treatment)
        for method in ("supernets1", "supernets2", "supernets4", "supernets8", "macs", "productive", "receptive_field")
        for treatment in ("raw", "smoothed", "fused")
    }
    for row in value["rows"]:
        for name in value["measures"]:
            assert row[name]["low"] <= row[name]["high"]
            assert np.isfinite(row[name]["value"])
    assert all(row["interval"] == "configurations" and row["n"] == 1 for row in value["summary"])


def test_result_files(published):
    out, value = published
    with (out / "compare.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(value["rows"]) * len(value["measures"])
    assert json.loads((out / "compare.json").read_text()) == value
    page = (out / "compare.html").read_text()
    assert page.count("<svg") == 4
    assert "<script" not in page
    assert not re.search(r"""(src|href)\s*=\s*["']?(?!#|"#)(https?:|//)""", page)
    before = {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    api.compare(CompareConfig(PUBLISHED, resamples=60), out)
    assert {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_summary_and_paired_tests_over_seeds_and_budgets(tmp_path):
    table, generator = tables.load(PUBLISHED), np.random.default_rng(0)
    truth = np.array(table.column("standalone_mean"))
    entries = [
        Entry(f"<b>{noise}", seed, budget, truth + generator.normal(0, noise / budget, 36))
        for noise in (1, 8)
        for seed in (1, 2, 3)
        for budget in (2, 4)
    ]
    value = study(entries, table, "resnet20", 30)
    for row in value["summary"]:
        assert (row["n"], row["interval"]) == (3, "seeds")
        assert row["tau_b"]["low"] <= row["tau_b"]["mean"] <= row["tau_b"]["high"]
    assert len(value["pairs"]) == 2 * 3 * 2  # budgets x treatments x measures
    tau = next(
        p for p in value["pairs"] if p["measure"] == "tau_b" and p["budget_macs"] == 2 and p["treatment"] == "raw"
    )
    assert (tau["n"], tau["permutation"]) == (3, 0.25)
    assert tau["difference"] > 0.2
    write(value, tmp_path)
    comparison.write(value, tmp_path)
    assert (tmp_path / "figures" / "anytime.svg").exists()
    assert "<b>" not in (tmp_path / "compare.html").read_text()


def test_perfect_and_constant_rankings():
    table = tables.load(PUBLISHED)
    truth = np.array(table.column("standalone_mean"))
    rows = judge([Entry("perfect", 0, 0, truth), Entry("constant", 0, 0, np.zeros(36))], table, truth, 20)
    perfect, constant, fallen_back = rows[0], rows[3], rows[5]
    assert (perfect["tau_b"]["value"], perfect["regret@1"]["value"]) == (pytest.approx(1), 0)
    assert (constant["tau_b"]["value"], constant["spearman"]["value"]) == (0, 0)
    assert constant["regret@1"]["value"] == pytest.approx(truth.max() - truth.mean())
    assert fallen_back["tau_b"]["value"] == pytest.approx(1), (
        "constant scores leave the order to the productive convolutions"
    )
    assert pairs(rows) == []
    assert len(summary(rows)) == 6


def test_wrong_requests(tmp_path):
    table, out = tables.load(PUBLISHED), tmp_path / "out"
    scores = np.arange(36.0)
    for entries, message in (
        ([], "nothing to compare"),
        ([Entry("x", 1, 5, scores), Entry("x", 1, 5, scores)], "x occurs twice with seed 1"),
        ([Entry("x", 1, 5, scores[1:])], "36 finite scores"),
        ([Entry("x", 1, 5, scores * np.nan)], "36 finite scores"),
    ):
        with pytest.raises(RequestError, match=message):
            judge(entries, table, np.zeros(36))
    for options, message in (
        ({"columns": [], "controls": []}, "nothing to compare"),
        ({"seeds": [1, 1]}, "each once"),
        ({"seeds": []}, "at least one"),
        ({"controls": ["mac"]}, "did you mean 'macs'"),
        ({"controls": ["macs", "macs"]}, "macs occurs twice"),
        ({"columns": ["supernets3"]}, "Known: supernets1"),
        ({"model": "resnt20"}, "did you mean 'resnet20'"),
    ):
        with pytest.raises(RequestError, match=message):
            api.compare(CompareConfig(PUBLISHED, **options), out)
    with pytest.raises(RequestError, match="did you mean"):
        api.compare(CompareConfig("resnet20-cifar10"), out)
    assert not out.exists()
    (out / "mine").mkdir(parents=True)
    with pytest.raises(RequestError, match="not the folder of an earlier comparison"):
        api.compare(CompareConfig(PUBLISHED), out)


def test_table_of_another_space_is_rejected(tmp_path):
    space = poolwise.PoolingSpace(9, 3)
    rows = [{"pooling": str(p), "accuracies": [0.5, 0.6], "mean": 0.55, "std": 0.07} for p in space]
    measured = {
        "space": space.to_json(), "seeds": [1, 2], "results": rows, "failed": [],
        "settings": {**poolwise.Config().to_flat()},
    }  # fmt: skip
    tables.write(tmp_path / "nine", "nine", measured)
    with pytest.raises(RequestError, match="table nine does not fit resnet20: it has 9 layers and 3 downsamplings"):
        api.compare(CompareConfig(tmp_path / "nine"), tmp_path / "out")


def test_table_of_a_run_with_zero_cost_scores(tmp_path, tiny_settings, tiny_source):
    config = poolwise.Config.from_flat({**tiny_settings.to_flat(), "retrain_steps": 1})
    truth = api.exhaustive(config, tmp_path / "run", source=tiny_source, table=tmp_path / "mine")
    config = CompareConfig(tmp_path / "mine", controls=["macs", "naswot"], seeds=[1, 2], resamples=20)
    value = api.compare(config, tmp_path / "out", source=tiny_source)
    summary_of = {(row["method"], row["treatment"]): row for row in value["summary"]}
    assert (summary_of["naswot", "raw"]["n"], summary_of["macs", "raw"]["n"]) == (2, 1)
    assert summary_of["naswot", "fused"]["budget_macs"] > 0
    seeds = zip(*(result["accuracies"] for result in truth["results"]), strict=True)
    assert value["ceiling"] == pytest.approx(statistics.kendall_tau_b(*seeds))


def test_deprecated_keywords_work_and_warn(published, tmp_path):
    with pytest.warns(DeprecationWarning, match=r"poolwise\.CompareConfig"):
        old = poolwise.compare(PUBLISHED, tmp_path / "old", columns=["supernets1"], names=["macs"], resamples=20)
    config = CompareConfig(PUBLISHED, columns=["supernets1"], controls=["macs"], resamples=20)
    new = poolwise.compare(config, tmp_path / "new")
    assert (old["rows"], old["entries"]) == (new["rows"], new["entries"])
    with (
        pytest.warns(DeprecationWarning, match="plan_comparison"),
        pytest.raises(RequestError, match="nothing to plan"),
    ):
        poolwise.compare(PUBLISHED, tmp_path / "plan", plan=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seeds": [0, "1"]}, "integers of at least 0"),
        ({"budgets": [1.5]}, "integers of at least 1"),
        ({"supernets": 0}, "supernets is 0: use an integer of at least 1"),
        ({"resamples": True}, "resamples is True"),
        ({"methods": "mixture"}, "methods is 'mixture': use a list"),
        ({"methods": ["mixtre"]}, "did you mean 'mixture'"),
    ],
)
def test_invalid_config_is_rejected(fields, message):
    with pytest.raises(RequestError, match=message):
        CompareConfig(PUBLISHED, **fields)


def test_config_equality_and_hash():
    config = CompareConfig(PUBLISHED, seeds=[1, 2])
    assert config == CompareConfig(PUBLISHED, seeds=(1, 2))
    assert hash(config) == hash(CompareConfig(PUBLISHED, seeds=(1, 2)))
    assert CompareConfig(PUBLISHED, threads=2, workers=1).hardware == {"threads": 2, "workers": 1}
