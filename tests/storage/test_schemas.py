"""Schemas of the JSON files: what they accept, and the one line that says what is wrong where."""

import copy
import json
from pathlib import Path

import pytest

from poolwise.errors import RequestError
from poolwise.storage import schemas

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
        (("ranking", 3, "score"), "1", "ranking.json: ranking[3].score is '1', and a finite number is allowed"),
        (
            ("ranking", 3, "score"),
            float("nan"),
            "ranking.json: ranking[3].score is nan, and a finite number is allowed",
        ),
        (("ranking", 3, "score"), 2.5, "ranking.json: ranking[3].score is 2.5, and at most 2 is allowed"),
        (("ranking", 0, "macs"), True, "ranking.json: ranking[0].macs is True, and a whole number is allowed"),
        (("ranking", 0, "macs"), 0, "ranking.json: ranking[0].macs is 0, and at least 1 is allowed"),
        (("ranking", 0, "macs"), 1.0, "ranking.json: ranking[0].macs is 1.0, and a whole number is allowed"),
        (("ranking", 0, "macs"), 10**400, "a number of more than 60 digits"),
        (("ranking", 0, "tie"), None, "ranking.json: ranking[0].tie is null, and a value or no such field is allowed"),
        (("ranking", 0, "interval"), [0.1], "ranking.json: ranking[0].interval[1] is missing"),
        (("ranking", 0, "interval"), [0.1, 0.2, 0.3], "ranking[0].interval is list, and a list of 2 is allowed"),
        (("ranking", 0, "pooling"), "9-9-9-9", "ranking.json: 9-9-9-9 is not in its space"),
        (("ranking", 0, "pooling"), "[1,2]", "ranking[0].pooling is '[1,2]', and a name like 5-3-2 is allowed"),
        (("picks", "best"), "9-9-9-9", "ranking.json: best 9-9-9-9 is not among its configurations"),
        (("space", "poolings"), [1, "a"], "ranking.json: space.poolings[1] is 'a', and a whole number is allowed"),
        (("space", "colour"), 1, "ranking.json: space.colour is unknown"),
        (("data", "classes"), "ab", "ranking.json: data.classes is 'ab', and a list is allowed"),
        (("data", "name"), "x" * 100_001, "and a text is allowed"),
        (("spent", "\x1b"), -1, "ranking.json: spent.\\x1b is -1, and at least 0 is allowed"),
        (("ranking",), {}, "ranking.json: ranking is dict, and a list is allowed"),
    ],
)
def test_one_line_says_what_is_wrong_and_where(ranking, place, new, message):
    with pytest.raises(RequestError) as error:
        schemas.validate(schemas.RankingFile, changed(ranking, place, new), "ranking.json: ")
    assert message in str(error.value)
    assert "the file is damaged" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [None, [], 5, "x", float("inf")])
def test_another_value_than_an_object_is_refused(value):
    with pytest.raises(RequestError, match=r"^run\.json is .*an object is allowed"):
        schemas.validate(schemas.RunFile, value, "run.json: ")


def test_a_missing_field_is_named(ranking):
    value = copy.deepcopy(ranking)
    del value["data"]["fingerprint"]
    with pytest.raises(RequestError, match=r"ranking\.json: data\.fingerprint is missing: the file is damaged, or of"):
        schemas.validate(schemas.RankingFile, value, "ranking.json: ")


def test_a_configuration_is_ranked_once(ranking):
    value = changed(ranking, ("ranking", 1, "pooling"), ranking["ranking"][0]["pooling"])
    with pytest.raises(RequestError, match=r"ranks .* twice"):
        schemas.validate(schemas.RankingFile, value, "ranking.json: ")


def test_whole_numbers_and_unknown_fields_are_accepted(ranking):
    value = changed(changed(ranking, ("ranking", 0, "score"), 1), ("later",), {"version": 2})
    assert schemas.validate(schemas.RankingFile, value, "ranking.json: ").ranking[0].score == 1.0


def test_texts_may_hold_lone_surrogates():
    request = {"commands": ["poolwise run --data folder:\udcff"]}
    assert list(schemas.validate(schemas.RunFile, request, "run.json: ").commands) == request["commands"]


def test_a_schema_is_immutable_and_gives_its_space(ranking):
    content = schemas.validate(schemas.CompleteRanking, ranking, "ranking.json: ")
    with pytest.raises(ValueError, match="frozen"):
        content.default = "5-3-2"
    assert content.space.to_json() == ranking["space"]
    assert content.space.to_space().size == content.space.full.size
