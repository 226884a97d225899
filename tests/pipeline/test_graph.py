"""The stage graph: order, remaining stages, and outdated results."""

import ast
import inspect
import json
import shutil

import pytest
from small import SETTINGS, SOURCE

from poolwise import api
from poolwise.config import Config
from poolwise.errors import RequestError
from poolwise.experiment import resolve
from poolwise.pipeline import estimates, graph, runner
from poolwise.selection.picks import picks_of
from poolwise.storage import RunFolder, run_folder

VERDICT = ("verdict.json", "retrain.json", "figures/*", "report.html")


def test_stages_read_only_files_of_earlier_stages():
    written = set()
    for stage in graph.STAGES:
        assert set(stage.reads) <= written, f"{stage.name} reads a file that no earlier stage writes"
        written |= {*stage.writes, *stage.keeps, *stage.weights}
    assert graph.ordered(reversed([stage.name for stage in graph.STAGES])) == [stage.name for stage in graph.STAGES]
    assert set(graph.RUN_STAGES) <= {stage.name for stage in graph.STAGES}


@pytest.mark.parametrize("module", [runner, estimates, run_folder])
def test_what_belongs_to_a_stage_is_in_the_graph(module):
    names = {stage.name for stage in graph.STAGES} | {file for stage in graph.STAGES for file in stage.writes}
    strings = {node.value for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Constant)}
    assert not strings & names


def test_every_stage_that_computes_has_a_plan():
    for stage in graph.STAGES:
        assert (stage.plan is None) == (not stage.needs_experiment)
        assert set(stage.remade) <= set(stage.writes)
    assert graph.REMADE == ("refine.json", "retrain.json", "exhaustive.json")


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
def test_repeating_a_stage_invalidates_dependent_results(name, files):
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
    """Return the folder of a complete run."""
    shutil.copytree(made, tmp_path / "run")
    return RunFolder.open(tmp_path / "run")


def verdict(folder):
    return [name for name in ("verdict.json", "retrain.json") if folder.has(name)]


def test_a_refinement_removes_the_verdict_of_other_picks_and_resume_recreates_it(finished):
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
    api.refine(finished.path, source=SOURCE)  # same request: nothing is out of date
    assert (finished.path / "retrain.json").read_bytes() == kept


def test_a_reorder_keeps_a_refinement_that_does_not_depend_on_it(finished):
    api.refine(finished.path, trials=2, at_once=1, margin=0.0, source=SOURCE)
    api.resume(finished.path, source=SOURCE)
    refinement = (finished.path / "refine.json").read_bytes()
    before = finished.read("ranking.json", "")
    after = api.rank(finished.path, fusion=True, source=SOURCE)
    assert [row["pooling"] for row in after["ranking"]] != [row["pooling"] for row in before["ranking"]]
    assert (finished.path / "refine.json").read_bytes() == refinement
    assert verdict(finished) == ["verdict.json", "retrain.json"], "the picks come from the refinement"
    assert not finished.has("report.html")
    limited = api.rank(finished.path, max_macs=0.6, source=SOURCE)
    assert {row["pooling"] for row in limited["ranking"]} == {row["pooling"] for row in before["ranking"]}
    assert finished.has("refine.json"), "it does not depend on the limits"
    assert verdict(finished) == []


def test_changed_scores_invalidate_a_refinement(finished):
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
    assert "refine.json" in graph.outdated(finished, {"ranking.json": other}, config), "the candidates changed"


def test_a_lost_result_is_recreated_with_dependent_results(finished):
    kept = {name: (finished.path / name).read_bytes() for name in ("verdict.json", "retrain.json", "trials.sqlite")}
    for path in (finished.path / "verdict.json", finished.path / "spare" / "verdict.json"):
        path.unlink()
    api.resume(finished.path, source=SOURCE)
    assert {name: (finished.path / name).read_bytes() for name in kept} == kept
    assert finished.has("report.html")


def test_an_inconsistent_verdict_of_an_earlier_version_is_removed(finished):
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


def test_an_unknown_stage_is_rejected_not_skipped(tmp_path):
    experiment = resolve(SETTINGS, SOURCE)
    with pytest.raises(AssertionError, match="no stage is called 'serch'"):
        estimates.plan(experiment, ["serch", "rank"])
    for call in (api.plan, lambda config, names: api.fit(config, 60, names)):
        with pytest.raises(RequestError, match=r"unknown stage 'serch'.*search"):
            call(SETTINGS, ["serch", "rank"])


def test_a_finished_search_is_opened_again_only_for_its_ranking(tmp_path):
    folder = api.search(SETTINGS, tmp_path / "run", source=SOURCE)
    assert graph.left(folder, ["search"]) == []
    assert api.plan_left(folder.path, source=SOURCE) is None
    assert graph.left(folder, ["search", "rank"]) == ["search", "rank"]
    checkpoint = folder.path / "checkpoints" / "search.safetensors"
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[:-1])
    assert graph.left(folder, ["search"]) == ["search"], "its weights are damaged"
    checkpoint.write_bytes(content)
    before = (folder.path / "events.jsonl").read_bytes()
    api.resume(folder.path)  # the images are not needed
    assert (folder.path / "events.jsonl").read_bytes() == before
    (folder.path / "events.jsonl").unlink()  # as in a run that did not log the end of its search
    assert graph.left(folder, ["search"]) == ["search"]
    api.resume(folder.path, source=SOURCE)
    assert checkpoint.read_bytes() == content
    assert graph.left(folder, ["search"]) == []
