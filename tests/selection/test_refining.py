"""Refinement of a tiny run: files, resuming and limits."""

import json
import shutil

import numpy as np
import pytest
from markupsafe import escape

from conftest import After, separate_cache
from poolwise import api
from poolwise.config import Config
from poolwise.errors import RequestError
from poolwise.experiment import resolve
from poolwise.progress import Interrupted
from poolwise.rankings.baselines import untrained
from poolwise.selection import refine as refining
from poolwise.spaces import Pooling
from poolwise.storage import RunFolder


@pytest.fixture(scope="module")
def ranked_once(tmp_path_factory, tiny_settings, tiny_source):
    path = tmp_path_factory.mktemp("ranked") / "run"
    with separate_cache(tmp_path_factory):
        api.search(tiny_settings.replace(retrain_steps=4), path, source=tiny_source)
        api.rank(path, source=tiny_source)
    return path


@pytest.fixture
def ranked(ranked_once, tmp_path):
    return shutil.copytree(ranked_once, tmp_path / "run")


def refined(path, source, **changes):
    return api.refine(path, source=source, trials=4, at_once=1, **changes)


def test_refinement_trains_the_default_first_and_names_three_picks(ranked, tiny_source):
    value = refined(ranked, tiny_source, margin=0.0)
    assert len(value["trials"]) == 4
    assert value["trials"][0]["pooling"] == value["default"] == "4-3-3"
    rows = {row["pooling"]: row for row in value["configurations"]}
    assert len(rows) == 36
    assert [row["expected"] for row in value["configurations"]] == sorted(
        (r["expected"] for r in rows.values()), reverse=True
    )
    assert all(row["interval"][0] < row["expected"] < row["interval"][1] for row in rows.values())
    assert sum(row["best"] for row in rows.values()) == pytest.approx(1)
    assert rows[value["picks"]["best"]]["trainings"] > 0
    assert rows[value["picks"]["best_at_default_macs"]]["macs_ratio"] <= 1
    assert all(0 <= row["front"]["macs"] <= 1 for row in rows.values())
    cheapest = min(rows.values(), key=lambda row: row["macs"])
    assert cheapest["front"]["macs"] == 1  # no configuration is cheaper
    assert set(value["hints"]) == {"scores", "productive", "macs", "last_stage"}
    assert not (ranked / "trials.sqlite").exists()  # retraining uses a separate file
    retrain = api.retrain(ranked, source=tiny_source)
    assert {r["pooling"] for r in retrain["results"]} == {*value["picks"].values(), "4-3-3"}
    page = api.report(ranked).read_text()
    assert "Refined by 4 stand-alone trainings" in page
    verdict = json.loads((ranked / "verdict.json").read_text())
    assert verdict["verdict"] in ("better", "no worse", "not shown", "worse", "the default itself")
    assert str(escape(verdict["sentence"])) in page


def test_resumed_refinement_gives_the_same_result(ranked, tmp_path, tiny_source):
    again = shutil.copytree(ranked, tmp_path / "again")
    complete = refined(ranked, tiny_source)
    with pytest.raises(Interrupted):
        api.refine(again, source=tiny_source, trials=4, at_once=1, listener=After(3))
    assert not (again / "refine.json").exists()
    api.resume(again, source=tiny_source)
    assert (again / "refine.json").read_bytes() == (ranked / "refine.json").read_bytes()
    more = api.refine(again, source=tiny_source, trials=6)
    assert [t["pooling"] for t in more["trials"][:3]] == [t["pooling"] for t in complete["trials"][:3]]
    assert len(more["trials"]) > 4


@pytest.mark.parametrize("method", ["random", "top"])
def test_other_strategies_use_the_same_surrogate_for_the_picks(ranked, tiny_source, method):
    value = refined(ranked, tiny_source, refiner=method, margin=0.0)
    assert value["method"] == method
    assert sum(row["trainings"] for row in value["configurations"]) == 4
    with pytest.raises(RequestError, match=r"unknown strategy 'randm'; did you mean 'random'.*Known strategies: "):
        refined(ranked, tiny_source, refiner="randm")
    assert (ranked / "refine.json").exists()  # a wrong request changes nothing


def test_configurations_outside_the_limits_are_not_trained(ranked, tiny_source):
    value = refined(ranked, tiny_source, max_macs=0.8, margin=0.0)
    names = {row["pooling"]: row["macs_ratio"] for row in value["configurations"]}
    assert all(ratio <= 0.8 for pooling, ratio in names.items() if pooling != "4-3-3")
    assert set(value["picks"].values()) <= {pooling for pooling, ratio in names.items() if ratio <= 0.8} | {"4-3-3"}
    assert value["picks"]["best"] != "4-3-3"
    kept = RunFolder(ranked).request()
    assert kept["limits"]["within"] == len(names) - 1
    with pytest.raises(RequestError, match="the smallest is 1-1-8"):
        refined(ranked, tiny_source, max_macs=0.01)
    assert RunFolder(ranked).request() == kept
    timed = refined(ranked, tiny_source, max_macs=1.0, max_latency_ms=1000.0, margin=0.0)
    assert all(row["latency_ms"] > 0 for row in timed["configurations"])


def test_search_within_limits_excludes_other_configurations(tmp_path, tiny_settings, tiny_source):
    config = tiny_settings.replace(max_macs=0.7)
    value = api.run(config, tmp_path / "run", source=tiny_source)
    ranking = RunFolder(tmp_path / "run").read("ranking.json", "")
    assert all(row["macs_ratio"] <= 0.7 or row["pooling"] == "4-3-3" for row in ranking["ranking"])
    assert len(ranking["ranking"]) < 36
    assert ranking["picks"]["best"] != "4-3-3"
    assert all(r["macs_ratio"] <= 0.7 or r["pooling"] == "4-3-3" for r in value["results"])
    with pytest.raises(RequestError, match="the smallest is"):
        api.search(tiny_settings.replace(max_memory=1e-6), tmp_path / "other", source=tiny_source)
    assert not (tmp_path / "other").exists()


def test_limits_can_be_set_after_the_ranking(ranked, tiny_source):
    before = RunFolder(ranked).read("ranking.json", "")
    after = api.rank(ranked, source=tiny_source, max_macs=0.7)
    assert len(after["ranking"]) == len(before["ranking"]) == 36
    ratio = {row["pooling"]: row["macs_ratio"] for row in after["ranking"]}
    assert all(ratio[pick] <= 0.7 or pick == "4-3-3" for pick in after["picks"].values())
    assert ratio[after["picks"]["best"]] <= 0.7


def test_until_decided_adds_seeds_and_equal_cost_is_compared(ranked, tiny_source):
    value = api.retrain(
        ranked, source=tiny_source, until_decided=True, retrain_seeds=2, max_seeds=4, margin=0.0, equal_cost=True
    )
    pick, default = value["results"][0], value["results"][-1]
    if pick is not default:
        assert 2 <= len(pick["accuracies"]) == len(default["accuracies"]) <= 4
        assert pick["comparison"]["confidence"] > 0.95
        assert bool(value["equal_cost"]) == (pick["macs_ratio"] > 1.005)
    for rival in value["equal_cost"]:
        assert len(rival["accuracies"]) == len(pick["accuracies"])
        assert rival["width"] > 2 or rival["steps"] > 4
    with pytest.raises(RequestError, match="until_decided needs"):
        api.retrain(ranked, source=tiny_source, until_decided=True, retrain_seeds=1)


def test_a_zero_cost_proxy_as_a_hint(ranked, tiny_source):
    value = refined(ranked, tiny_source, hints=("scores", "swap-order", "rf_refinement"))
    assert list(value["hints"]) == ["scores", "swap-order", "rf_refinement"]
    experiment = resolve(Config.from_flat(value["settings"]), tiny_source)
    assert value["hint_macs"] == untrained(experiment, "swap-order")[1]
    before = (ranked / "refine.json").read_bytes()
    (ranked / "refine.json").unlink()
    api.resume(ranked, source=tiny_source)
    assert (ranked / "refine.json").read_bytes() == before
    for wrong, message in ((("swop",), "unknown hint 'swop'; did you mean 'swap'"), (("macs", "macs"), "occurs twice")):
        with pytest.raises(RequestError, match=message):
            refined(ranked, tiny_source, hints=wrong)


def test_hints_without_images_are_those_of_earlier_versions(ranked, tiny_source):
    experiment = resolve(Config(), tiny_source)
    ranking = json.loads((ranked / "ranking.json").read_text())
    hints = refining.hints_of(experiment, ranking)
    assert list(hints.functions) == ["scores", "productive", "macs", "last_stage"]
    assert hints.macs == 0
    pooling, cost = Pooling.parse("4-3-3"), experiment.cost(Pooling.parse("4-3-3"))
    row = next(row for row in ranking["ranking"] if row["pooling"] == "4-3-3")
    values = [hint(pooling) for hint in hints.functions.values()]
    assert values == [row["smoothed"], cost.productive, np.log(cost.macs), np.log(3)]
