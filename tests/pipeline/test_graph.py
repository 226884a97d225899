"""What follows from the graph of the stages: order, what is left, and what a request makes out of date."""

import json
import shutil

import pytest
from small import SETTINGS, SOURCE

from poolwise import api
from poolwise.config import Config
from poolwise.pipeline import graph
from poolwise.selection.picks import picks_of
from poolwise.storage import RunFolder

VERDICT = ("verdict.json", "retrain.json", "figures/*", "report.html")


def test_stages_read_what_earlier_ones_leave():
    left = set()
    for stage in graph.STAGES:
        assert set(stage.reads) <= left, f"{stage.name} reads what no stage before it leaves"
        left |= {*stage.writes, *stage.keeps, *stage.weights}
    assert graph.ordered(reversed([stage.name for stage in graph.STAGES])) == [stage.name for stage in graph.STAGES]
    assert set(graph.RUN) <= {stage.name for stage in graph.STAGES}


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("search", ("ranking.json", "refine.json", *VERDICT)),
        ("rank", ("ranking.json", "refine.json", *VERDICT)),
        ("refine", ("refine.json", *VERDICT)),
        ("retrain", VERDICT),
        ("report", ("figures/*", "report.html")),
        ("exhaustive", ("exhaustive.json",)),
    ],
)
def test_a_stage_that_is_done_again_invalidates_what_follows_from_it(name, files):
    assert graph.invalidated(name) == files
    kept = [file for stage in graph.STAGES for file in (*stage.keeps, *stage.weights)]
    assert not set(files) & set(kept), "trainings are never removed"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "run"
    api.run(SETTINGS, path, source=SOURCE)
    return path


@pytest.fixture
def finished(made, tmp_path):
    """A run that is searched, ranked, retrained and reported."""
    shutil.copytree(made, tmp_path / "run")
    return RunFolder.open(tmp_path / "run")


def verdict(folder):
    return [name for name in ("verdict.json", "retrain.json") if folder.has(name)]


def test_a_refinement_removes_the_verdict_of_other_picks_and_resume_makes_a_new_one(finished):
    trainings = (finished.path / "trials.sqlite").read_bytes()
    value = api.refine(finished.path, trials=3, at_once=1, margin=0.0, source=SOURCE)
    assert verdict(finished) == []
    assert not (finished.path / "verdict.json").exists()
    assert (finished.path / "trials.sqlite").read_bytes() == trainings
    page = (finished.path / "report.html").read_text()
    assert f"<title>poolwise: {value.picks['best']} for" in page
    assert graph.left(finished, finished.request()["stages"]) == ["retrain", "report"]
    assert [stage.name for stage in api.plan_left(finished.path, source=SOURCE).stages] == ["retrain"]
    api.resume(finished.path, source=SOURCE)
    assert verdict(finished) == ["verdict.json", "retrain.json"]
    roles = {row["pooling"]: row["roles"] for row in finished.read("retrain.json", "")["results"]}
    assert roles == picks_of(finished).roles
    sentence = finished.read("verdict.json", "")["sentence"]
    assert sentence.split(":")[0] in (finished.path / "report.html").read_text() != page
    assert graph.left(finished, finished.request()["stages"]) == []
    kept = (finished.path / "retrain.json").read_bytes()
    api.refine(finished.path, source=SOURCE)  # as it was requested: nothing is out of date
    assert (finished.path / "retrain.json").read_bytes() == kept


def test_an_order_keeps_a_refinement_that_does_not_depend_on_it(finished):
    api.refine(finished.path, trials=2, at_once=1, margin=0.0, source=SOURCE)
    api.resume(finished.path, source=SOURCE)
    refinement = (finished.path / "refine.json").read_bytes()
    before = finished.read("ranking.json", "")
    after = api.rank(finished.path, fusion=True, source=SOURCE)
    assert [row["pooling"] for row in after["ranking"]] != [row["pooling"] for row in before["ranking"]]
    assert (finished.path / "refine.json").read_bytes() == refinement
    assert verdict(finished) == ["verdict.json", "retrain.json"], "picks are those of the refinement"
    assert not finished.has("report.html")
    limited = api.rank(finished.path, max_macs=0.6, source=SOURCE)
    assert {row["pooling"] for row in limited["ranking"]} == {row["pooling"] for row in before["ranking"]}
    assert finished.has("refine.json"), "what it says of a configuration stays true"
    assert verdict(finished) == []


def test_other_scores_put_a_refinement_out_of_date(finished):
    api.refine(finished.path, trials=2, at_once=1, margin=0.0, source=SOURCE)
    config = Config.from_flat(finished.request()["settings"])
    ranking = finished.read("ranking.json", "")
    same, other = json.loads(json.dumps(ranking)), json.loads(json.dumps(ranking))
    assert graph.outdated(finished, {"ranking.json": same}, config) == ()
    same["spent"]["rank_macs"] += 1
    assert graph.outdated(finished, {"ranking.json": same}, config) == ("figures/*", "report.html")
    other["ranking"][0]["smoothed"] += 0.01
    assert graph.outdated(finished, {"ranking.json": other}, config) == ("refine.json", *VERDICT)
    other = {**ranking, "covered": 20, "ranking": ranking["ranking"][::-1]}
    assert "refine.json" in graph.outdated(finished, {"ranking.json": other}, config), "candidates are others"


def test_a_lost_result_is_made_again_with_what_follows_from_it(finished):
    kept = {name: (finished.path / name).read_bytes() for name in ("verdict.json", "retrain.json", "trials.sqlite")}
    for path in (finished.path / "verdict.json", finished.path / "spare" / "verdict.json"):
        path.unlink()
    api.resume(finished.path, source=SOURCE)
    assert {name: (finished.path / name).read_bytes() for name in kept} == kept
    assert finished.has("report.html")


def test_a_verdict_that_an_earlier_version_left_is_removed(finished):
    """Earlier versions kept the verdict when a refinement changed the picks."""
    request = finished.request()
    pick = finished.read("retrain.json", "")["results"][0]["pooling"]
    config = Config.from_flat(request["settings"])
    rows = [row["pooling"] for row in finished.read("ranking.json", "")["ranking"] if row["pooling"] != pick]
    limited = config.replace(only=tuple(rows))
    finished.save_request({**request, "settings": limited.to_flat()})
    assert graph.misfits(finished) == VERDICT
    api.report(finished.path)
    assert verdict(finished) == []
