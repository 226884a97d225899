"""Schemas of the JSON files: accepted values and error messages."""

import copy
import json
from pathlib import Path

import pytest

from poolwise.errors import RequestError
from poolwise.storage import read_checked, schemas

RUNS = Path(__file__).parents[2] / "benchmarks" / "results" / "real-runs" / "resnet18"


@pytest.fixture(scope="module")
def ranking():
    return json.loads((RUNS / "ranking.json").read_text())


def changed(value, place, new):
    value = copy.deepcopy(value)
    inner = value
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1]] = new
    return value


@pytest.mark.parametrize(
    "path", sorted(RUNS.parent.glob("*/*.json")), ids=lambda path: f"{path.parent.name}-{path.name}"
)
def test_files_of_earlier_versions_are_accepted(path):
    if path.name in schemas.FILES:
        schemas.validate(schemas.FILES[path.name], json.loads(path.read_text()), f"{path.name}: ")


@pytest.mark.parametrize(
    ("place", "new", "message"),
    [
        (("ranking", 3, "score"), "1", "ranking.json: ranking[3].score is '1', expected a finite number"),
        (
            ("ranking", 3, "score"),
            float("nan"),
            "ranking.json: ranking[3].score is nan, expected a finite number",
        ),
        (("ranking", 3, "score"), 2.5, "ranking.json: ranking[3].score is 2.5, expected at most 2"),
        (("ranking", 0, "macs"), True, "ranking.json: ranking[0].macs is True, expected an integer"),
        (("ranking", 0, "macs"), 0, "ranking.json: ranking[0].macs is 0, expected at least 1"),
        (("ranking", 0, "macs"), 1.0, "ranking.json: ranking[0].macs is 1.0, expected an integer"),
        (("ranking", 0, "macs"), 10**400, "a number of more than 60 digits"),
        (("ranking", 0, "tie"), None, "ranking.json: ranking[0].tie is null, expected a value or no field"),
        (("ranking", 0, "interval"), [0.1], "ranking.json: ranking[0].interval[1] is missing"),
        (("ranking", 0, "interval"), [0.1, 0.2, 0.3], "ranking[0].interval is list, expected a list of length 2"),
        (("ranking", 0, "pooling"), "9-9-9-9", "ranking.json: 9-9-9-9 is not in its space"),
        (("ranking", 0, "pooling"), "[1,2]", "ranking[0].pooling is '[1,2]', expected a name like 5-3-2"),
        (("picks", "best"), "9-9-9-9", "ranking.json: best 9-9-9-9 is not among its configurations"),
        (("space", "poolings"), [1, "a"], "ranking.json: space.poolings[1] is 'a', expected an integer"),
        (("space", "colour"), 1, "ranking.json: space.colour is unknown"),
        (("data", "classes"), "ab", "ranking.json: data.classes is 'ab', expected a list"),
        (("data", "name"), "x" * 100_001, "expected a string: "),
        (("spent", "\x1b"), -1, "ranking.json: spent.\\x1b is -1, expected at least 0"),
        (("ranking",), {}, "ranking.json: ranking is dict, expected a list"),
    ],
)
def test_an_error_names_the_value_and_its_place(ranking, place, new, message):
    with pytest.raises(RequestError) as error:
        schemas.validate(schemas.RankingFile, changed(ranking, place, new), "ranking.json: ")
    assert message in str(error.value)
    assert "the file is damaged" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [None, [], 5, "x", float("inf")])
def test_a_value_that_is_not_an_object_is_rejected(value):
    with pytest.raises(RequestError, match=r"^run\.json is .*expected an object"):
        schemas.validate(schemas.RunFile, value, "run.json: ")


def test_a_missing_field_is_reported(ranking):
    value = copy.deepcopy(ranking)
    del value["data"]["fingerprint"]
    with pytest.raises(RequestError, match=r"ranking\.json: data\.fingerprint is missing: the file is damaged, or of"):
        schemas.validate(schemas.RankingFile, value, "ranking.json: ")


def test_a_configuration_ranked_twice_is_rejected(ranking):
    value = changed(ranking, ("ranking", 1, "pooling"), ranking["ranking"][0]["pooling"])
    with pytest.raises(RequestError, match=r"ranks .* twice"):
        schemas.validate(schemas.RankingFile, value, "ranking.json: ")


def test_integers_and_unknown_fields_are_accepted(ranking):
    value = changed(changed(ranking, ("ranking", 0, "score"), 1), ("later",), {"version": 2})
    assert schemas.validate(schemas.RankingFile, value, "ranking.json: ").ranking[0].score == 1.0


def test_text_may_contain_lone_surrogates():
    request = {"commands": ["poolwise run --data folder:\udcff"]}
    assert list(schemas.validate(schemas.RunFile, request, "run.json: ").commands) == request["commands"]


def test_a_schema_is_immutable_and_converts_its_space(ranking):
    content = schemas.validate(schemas.CompleteRanking, ranking, "ranking.json: ")
    with pytest.raises(ValueError, match="frozen"):
        content.default = "5-3-2"
    assert content.space.to_json() == ranking["space"]
    assert content.space.to_space().size == content.space.full.size


RESULTS = RUNS.parents[1]


@pytest.fixture(scope="module")
def compared():
    return json.loads((RESULTS / "compare-published" / "compare.json").read_text())


@pytest.fixture(scope="module")
def simulated():
    return json.loads((RESULTS / "simulate-own" / "simulate.json").read_text())


@pytest.mark.parametrize("name", ["compare", "simulate"])
def test_all_stored_comparisons_and_simulations_are_accepted(name):
    paths = sorted(RESULTS.glob(f"*/{name}.json"))
    assert len(paths) >= 2
    for path in paths:
        value = json.loads(path.read_text())
        content = schemas.validate(schemas.FILES[path.name], value, f"{path.name}: ")
        if name == "compare":
            averages = [row.measure("regret@1").mean for row in content.summary]
            assert averages == [row["regret@1"]["mean"] for row in value["summary"]]


@pytest.mark.parametrize(
    ("name", "place", "new", "message"),
    [
        ("compare", ("summary", 0, "tau_b", "mean"), "1", "compare.json: summary[0] has no valid measure tau_b"),
        ("compare", ("rows", 1, "regret@1"), None, "compare.json: rows[1] has no valid measure regret@1"),
        ("compare", ("truth", 2), True, "compare.json: truth[2] is True, expected a finite number"),
        ("compare", ("truth",), [1.0], "compare.json: truth has 1 values for 36 configurations"),
        ("compare", ("entries", 0, "scores"), [], "compare.json: entries[0].scores has 0 values for 36 configurations"),
        ("compare", ("table", "name"), None, "compare.json: table.name is null, expected a string"),
        ("simulate", ("methods", 0, "mean", 1), "x", "simulate.json: methods[0].mean[1] is 'x', expected a finite"),
        ("simulate", ("methods", 0, "found"), [0.5], "simulate.json: methods[0].found has 1 values for "),
        ("simulate", ("trials",), 0, "simulate.json: trials is 0, expected at least 1"),
    ],
)
def test_damaged_comparisons_and_simulations_are_rejected(compared, simulated, tmp_path, name, place, new, message):
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(changed({"compare": compared, "simulate": simulated}[name], place, new)))
    with pytest.raises(RequestError) as error:
        read_checked(path)
    assert message in str(error.value)
    assert "the file is damaged" in str(error.value)
