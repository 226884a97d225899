"""Suggestions without training: order, limits and known quality."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

import poolwise
from poolwise import tables
from poolwise.cli.commands import cli
from poolwise.errors import RequestError


def test_order_by_productive_convolutions_then_macs():
    costs = poolwise.costs("resnet20")
    for limit in (None, 1.0, 0.5):
        guess = poolwise.suggest("resnet20", max_macs=limit)
        assert set(guess.costs) == {p for p, c in costs.items() if limit is None or c.macs_ratio <= limit}
        keys = [(-cost.productive, -cost.macs) for cost in guess.costs.values()]
        assert keys == sorted(keys)
        assert guess.best == next(iter(guess.costs))
    assert poolwise.suggest("resnet20", max_macs=None).best != poolwise.suggest("resnet20").best


def test_known_quality_matches_the_table():
    guess = poolwise.suggest("resnet20")
    known = {one.table: one for one in guess.known}["resnet20-cifar10-published"]
    table = tables.load("resnet20-cifar10-published")
    truth = {pooling: table.query(pooling) for pooling in guess.costs}
    assert known.gain == pytest.approx(truth[guess.best] - table.query(guess.default))
    assert known.regret == pytest.approx(max(truth.values()) - truth[guess.best])
    ordered = list(truth.values())
    concordant = sum(np.sign(a - b) for i, a in enumerate(ordered) for b in ordered[i + 1 :])
    assert known.tau_b == pytest.approx(concordant / (len(ordered) * (len(ordered) - 1) / 2), abs=0.02)  # few ties
    assert known.interval[0] < known.tau_b < known.interval[1]


def test_family_without_table_and_infeasible_limit():
    assert poolwise.suggest("resnet18").known == ()
    cheapest = min(poolwise.costs("resnet20").items(), key=lambda item: item[1].macs)
    with pytest.raises(RequestError, match=f"smallest is {cheapest[0]} with {cheapest[1].macs_ratio:.4g}"):
        poolwise.suggest("resnet20", max_macs=0.01)


def test_config_and_keywords_are_equivalent():
    config = poolwise.SuggestConfig(max_macs=0.8, classes=3)
    assert poolwise.suggest("resnet20", config).costs == poolwise.suggest("resnet20", max_macs=0.8, classes=3).costs
    changed = poolwise.suggest("resnet20", config, max_macs=None)
    assert changed.costs == poolwise.suggest("resnet20", max_macs=None, classes=3).costs
    assert config.max_macs == 0.8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_mac": 1.0}, "unknown argument 'max_mac'; did you mean 'max_macs'"),
        ({"max_macs": -1}, "max_macs is -1: use a finite number above 0"),
        ({"max_memory": "much"}, "max_memory is 'much'"),
        ({"classes": 1}, "classes is 1: use an integer of at least 2"),
        ({"latency_batch": 0}, "latency_batch is 0"),
        ({"image_size": 2.5}, "image_size is 2.5"),
        ({"poolings": [2, 2]}, "each once"),
    ],
)
def test_wrong_requests(fields, message):
    with pytest.raises(RequestError, match=re.escape(message)):
        poolwise.suggest("resnet20", **fields)


def test_the_command_marks_the_default_and_warns_if_the_first_choice_does_not_beat_it():
    def shown(*arguments):
        return CliRunner().invoke(cli, ["suggest", *arguments]).output

    within = shown()
    assert "its first choice is the default" in within
    assert [line.split()[1:5:2] for line in within.splitlines() if " default " in line and "4-3-3" in line] == [
        ["1", "4-3-3"]
    ]
    warning = "on no known table does the first choice beat the default within this limit"
    assert warning in within
    assert warning in shown("--max-macs", "none")
    cheaper = shown("--max-macs", "0.8")
    assert warning not in cheaper  # on one table it gains 0.27 points
    assert "default: +0.27 points; 0.00 points below the best" in cheaper
    assert shown("--image-size", "8").count("(32-pixel images)") == 2


def test_command():
    result = CliRunner().invoke(cli, ["suggest", "--max-macs", "0.8", "--json"])
    value = json.loads(result.output)
    assert value["guess"] is True
    assert value["suggestions"][0]["pooling"] == str(poolwise.suggest(max_macs=0.8).best)
    shown = CliRunner().invoke(cli, ["suggest", "--model", "resnet18", "--max-macs", "none"])
    assert "suggestions without training" in shown.output
    assert "is unknown" in shown.output
    timed = CliRunner().invoke(
        cli, ["suggest", "--width", "2", "--max-macs", "0.5", "--max-latency-ms", "10000", "--json"]
    )
    assert all(row["latency_ms"] > 0 for row in json.loads(timed.output)["suggestions"])
    small = poolwise.suggest(max_macs=None, max_memory=150)
    assert 0 < len(small.costs) < len(poolwise.suggest(max_macs=None).costs)
    for wrong in ("0", "-1", "nan", "inf", "much"):
        with pytest.raises(RequestError, match="max-macs"):
            CliRunner().invoke(cli, ["suggest", "--max-macs", wrong], catch_exceptions=False, standalone_mode=False)


def test_rule_of_receptive_field_refinement():
    count, refinement = (poolwise.suggest("resnet20", max_macs=None, rule=rule) for rule in ("count", "refinement"))
    keys = [(-cost.productive, cost.macs) for cost in refinement.costs.values()]
    assert keys == sorted(keys)
    assert set(count.costs) == set(refinement.costs)
    assert list(count.costs) != list(refinement.costs)
    assert refinement.known[0].tau_b != count.known[0].tau_b, "the quality is that of the rule"
    with pytest.raises(RequestError, match="unknown rule 'refine'; did you mean 'refinement'"):
        poolwise.suggest("resnet20", rule="refine")
    shown = CliRunner().invoke(cli, ["suggest", "--max-macs", "none", "--rule", "refinement", "--json"])
    assert json.loads(shown.output)["suggestions"][0]["pooling"] == str(refinement.best)
