"""Requests of comparisons: methods and variants, plans, and error messages."""

import csv
from pathlib import Path

import pytest

import tiny_comparison
from poolwise import api
from poolwise.benchmarks.compare.config import CompareConfig
from poolwise.benchmarks.compare.methods import VARIANT_FIELDS, parse_methods
from poolwise.cli import main
from poolwise.config import settings
from poolwise.errors import RequestError
from poolwise.selection import strategies
from poolwise.supernets import samplers
from tiny_comparison import REQUEST, compare


@pytest.fixture(scope="module")
def source():
    return tiny_comparison.source()


@pytest.fixture(scope="module")
def table(tmp_path_factory, source):
    return tiny_comparison.write_table(tmp_path_factory.mktemp("table"), source)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--methods", "mixture"], "does not state how its networks were trained"),
        (["--methods", "mixtre", "--recipe", "paper"], "did you mean 'mixture'"),
        (["--methods", "spos", "--recipe", "paper", "--budgets", "0"], "at least 1"),
        (["--methods", "spos", "--budgets", "many"], "use integers like"),
        (["--methods", "spos", "--seeds", "1,1", "--recipe", "paper"], "each once"),
        (["--methods", "spos", "--recipe", "papers"], "did you mean 'paper'"),
        (["--plan"], "nothing to plan"),
    ],
)
def test_wrong_commands_give_a_one_line_error(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as end:
        main(["compare", "--table", "resnet20-cifar10-published", "--out", str(tmp_path / "out"), *flags])
    assert end.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    (line,) = [text for text in lines if text != "compare: loading PyTorch, then timing steps on this machine"]
    assert message in line
    assert not (tmp_path / "out").exists()


def test_plan_writes_nothing(tmp_path, table, source):
    plan = api.plan_comparison(CompareConfig(table, **REQUEST), tmp_path / "out", source=source)
    assert len(plan.entries) == 8
    assert plan.macs == sum(entry.macs for entry in plan.entries)
    assert plan.seconds > 0
    assert plan.to_json()["entries"][0]["method"] == plan.entries[0].method
    fields = {name: value for name, value in REQUEST.items() if name not in ("controls", "workers", "threads")}
    fields |= {"names": ["macs"], "machine": {"workers": 1, "threads": 1}}
    with pytest.warns(DeprecationWarning, match="plan_comparison"):
        old = api.compare(table, tmp_path / "out", source=source, plan=True, **fields)
    assert {**old, "seconds": 0} == {**plan.to_json(), "seconds": 0}
    assert not (tmp_path / "out").exists()


def test_labels_of_methods_and_variants():
    specs = parse_methods(["mixture", "mixture@draw=rounds;supernets=8", "boltzmann@warm_up=0.3", "tpe", "fairnas"], 4)
    assert [spec.label for spec in specs] == [
        "mixture@supernets=4", "mixture@supernets=8;draw=rounds", "boltzmann@warm_up=0.3", "tpe", "fairnas",
    ]  # fmt: skip
    every = parse_methods(["all"], 4)
    assert [spec.method for spec in every] == [*(s.name for s in samplers.available()), *strategies.available()]
    assert (
        parse_methods(["spos@eval_batch_size=500"], 4)[0].label == "spos@eval_batch_size=500"
    )  # the value of the table may differ
    assert parse_methods(["spos@lr=0.1"], 4)[0].label == "spos"  # equals the published value


def test_only_search_settings_can_be_varied():
    """Settings that are the same for every method are rejected by name, so a new one is never a variant by accident."""
    for name in settings():
        if name not in VARIANT_FIELDS:
            with pytest.raises(RequestError, match=f"{name} is the same for all methods"):
                parse_methods([f"fairnas@{name}=1"], 4)


def test_labels_of_committed_results_can_be_parsed():
    """Labels of committed results parse to themselves, so old studies can be opened."""
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
    ("change", "message"),
    [
        ({"methods": ["mixtur"]}, "did you mean 'mixture'"),
        ({"methods": ["mixture", "mixture@supernets=4"]}, "mixture@supernets=4 occurs twice"),
        ({"methods": ["random", "all"]}, "random occurs twice"),
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
        ({"methods": ["random@lr=1"]}, "random is not a sampler"),
        ({"seeds": [1, 1]}, "each once"),
        ({"seeds": [-1]}, "at least 0"),
        ({"budgets": [0]}, "at least 1"),
        ({"budgets": [5, 5]}, "each once"),
        ({"budgets": []}, "at least one"),
        ({"methods": ["mixture@supernets=36"], "budgets": [1]}, "too small for mixture@supernets=36"),
        ({"recipe": "paper"}, "omit --recipe"),
        ({"methods": [], "controls": []}, "nothing to compare"),
        ({"methods": [], "plan": True}, "nothing to plan"),
        ({"controls": ["mac"]}, "did you mean 'macs'"),
    ],
)
def test_wrong_requests(tmp_path, table, source, change, message):
    with pytest.raises(RequestError, match=message):
        compare(table, tmp_path / "out", source, **{**REQUEST, **change})
    assert not (tmp_path / "out").exists()
