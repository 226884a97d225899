import json
import re

import numpy as np
import pytest
import torch

import poolwise
from conftest import After
from poolwise import api
from poolwise.datasets.sources import Source
from poolwise.errors import RequestError, RunFailure
from poolwise.experiment import resolve
from poolwise.progress import Interrupted, Listener
from poolwise.storage import RunFolder
from poolwise.supernets.state import SearchState
from poolwise.training import accuracy


def ranking_bytes(path):
    return (path / "ranking.json").read_bytes()


def test_run_writes_all_files(finished, tiny_source):
    for name in ("run.json", "events.jsonl", "ranking.json", "retrain.json", "report.html", "trials.sqlite"):
        assert (finished / name).stat().st_size > 0
    ranking = json.loads(ranking_bytes(finished))
    rows = ranking["ranking"]
    assert len(rows) == 36
    assert [row["rank"] for row in rows] == list(range(1, 37))
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert {"pooling", "score", "supernet", "assignment", "scores", "macs", "productive", "rank"} <= set(rows[0])
    assert np.allclose([sum(row["assignment"]) for row in rows], 1)
    assert all(row["supernet"] == int(np.argmax(row["assignment"])) for row in rows)
    assert ranking["format"] == 1
    assert poolwise.PoolingSpace(**ranking["space"]) == poolwise.PoolingSpace(10, 2)
    assert set(ranking["controls"]) == {"macs", "productive"}
    assert ranking["controls"]["macs"]["ranking"][0] == "8-1-1"
    assert ranking["data"]["fingerprint"] == tiny_source.fingerprint()
    cheap = next(row for row in rows if row["pooling"] == ranking["picks"]["best_at_default_macs"])
    assert cheap["macs_ratio"] <= 1
    retrain = json.loads((finished / "retrain.json").read_text())
    assert {role for result in retrain["results"] for role in result["roles"]} >= {"pick", "default"}
    assert all(len(result["accuracies"]) == 2 for result in retrain["results"])


def test_same_seed_same_bytes_other_seed_other_bytes(finished, tmp_path, tiny_settings, tiny_source):
    state = torch.get_rng_state()
    api.run(tiny_settings, tmp_path / "again", source=tiny_source)
    assert ranking_bytes(tmp_path / "again") == ranking_bytes(finished)
    assert torch.equal(state, torch.get_rng_state())
    other = poolwise.Config.from_flat({**tiny_settings.to_flat(), "seed": 1})
    api.run(other, tmp_path / "other", source=tiny_source)
    assert ranking_bytes(tmp_path / "other") != ranking_bytes(finished)


@pytest.mark.parametrize("units", [1, 13, 30, 33, 40])
def test_stopped_and_resumed_run_writes_the_same_bytes(finished, tmp_path, tiny_settings, tiny_source, units):
    path = tmp_path / "stopped"
    with pytest.raises(Interrupted):
        api.run(tiny_settings, path, source=tiny_source, listener=After(units))
    api.resume(path, source=tiny_source)
    assert ranking_bytes(path) == ranking_bytes(finished)
    assert (path / "retrain.json").read_bytes() == (finished / "retrain.json").read_bytes()
    assert RunFolder(path).events("search") == RunFolder(finished).events("search")
    for file in (finished / "checkpoints").iterdir():
        assert (path / "checkpoints" / file.name).read_bytes() == file.read_bytes()


def test_stages_one_by_one_equal_the_run(finished, tmp_path, tiny_settings, tiny_source):
    path = tmp_path / "staged"
    api.search(tiny_settings, path, source=tiny_source)
    with pytest.raises(RequestError, match="poolwise rank"):
        api.retrain(path, source=tiny_source)
    with pytest.raises(RequestError, match="poolwise rank"):
        api.report(path)
    api.rank(path, source=tiny_source)
    assert ranking_bytes(path) == ranking_bytes(finished)
    before = api.report(path).read_text()
    assert "No configuration is retrained yet" in before
    value = api.retrain(path, source=tiny_source)
    assert "Retrained from scratch" in (path / "report.html").read_text()
    assert value == json.loads((finished / "retrain.json").read_text())


def test_retrain_with_more_seeds_keeps_the_finished_ones(finished, tiny_source):
    old = json.loads((finished / "retrain.json").read_text())
    trained = []

    class Notes(Listener):
        def note(self, text):
            trained.append(text)

    new = api.retrain(finished, source=tiny_source, listener=Notes(), retrain_seeds=3)
    assert all(a["accuracies"] == b["accuracies"][:2] for a, b in zip(old["results"], new["results"], strict=True))
    assert len([text for text in trained if text.startswith("trained")]) == len(new["results"])
    with pytest.raises(RequestError, match="'lr' cannot be changed"):
        api.retrain(finished, source=tiny_source, lr=3)


def test_model_is_plain_and_has_the_recorded_accuracy(finished, tiny_source, tiny_settings):
    result = json.loads((finished / "retrain.json").read_text())["results"][0]
    model = poolwise.model(finished, result["pooling"], seed=2)
    experiment = resolve(tiny_settings, tiny_source)
    images = experiment.normalize(torch.from_numpy(tiny_source.test.images))
    right = (model(images).argmax(1).numpy() == tiny_source.test.labels).mean()
    assert right == pytest.approx(result["accuracies"][1], abs=0.021)
    assert not any(type(part).__module__.startswith("poolwise.models.supernet") for part in model.modules())
    with pytest.raises(RequestError, match="available are"):
        poolwise.model(finished, "1-1-8", seed=9)


def test_search_never_sees_the_test_set(tmp_path, tiny_settings, tiny_source, finished):
    other = Source("tiny", tiny_source.train, poolwise_test_set(tiny_source), tiny_source.classes)
    api.search(tiny_settings, tmp_path / "x", source=other)
    api.rank(tmp_path / "x", source=other)
    ours, theirs = (json.loads(ranking_bytes(p))["ranking"] for p in (finished, tmp_path / "x"))
    assert ours == theirs


def poolwise_test_set(source):
    return type(source.test)(255 - source.test.images, source.test.labels)


def test_changed_images_are_noticed(finished, tiny_source):
    (finished / "retrain.json").unlink()
    changed = Source("tiny", poolwise_test_set(tiny_source), tiny_source.test, tiny_source.classes)
    with pytest.raises(RequestError, match="differ from those of the run"):
        api.resume(finished, source=changed)


def test_infinite_loss_stops_and_keeps_the_checkpoint(tmp_path, tiny_settings, tiny_source):
    config = poolwise.Config.from_flat({**tiny_settings.to_flat(), "lr": 1e38})
    with pytest.raises(
        RunFailure, match=r"step \d+ of 30: the loss is (nan|inf), configuration \d.*SuperNet \d, learning rate"
    ):
        api.search(config, tmp_path / "run", source=tiny_source)
    folder = RunFolder.open(tmp_path / "run")
    assert SearchState(resolve(config, tiny_source)).restore(folder)
    with pytest.raises(RequestError, match="run poolwise resume"):
        api.rank(tmp_path / "run", source=tiny_source)


def test_report_escapes_names_from_users(tmp_path, tiny_settings, image_folder):
    config = poolwise.Config.from_flat({**tiny_settings.to_flat(), "data": f"folder:{image_folder}", "image_size": 12})
    poolwise.run(config, tmp_path / "<script>alert(1)<")
    page = (tmp_path / "<script>alert(1)<" / "report.html").read_text()
    assert "&lt;b&gt;cats" in page
    assert "<b>" not in page
    assert "<script" not in page
    assert "Content-Security-Policy" in page
    assert not re.search(r"""(src|href)\s*=\s*["']?(?!#|"#)(https?:|//)""", page)


def test_plan_does_no_work(tiny_settings, tiny_source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = api.plan(tiny_settings, source=tiny_source)
    assert not list(tmp_path.iterdir())
    assert [(stage.name, stage.steps) for stage in plan.stages] == [
        ("search", 30),
        ("rank", 48 * 36),
        ("retrain", 4 * 2 * 6),
    ]
    assert plan.stages[0].macs > plan.stages[1].macs > 0
    assert plan.seconds == pytest.approx(sum(stage.seconds for stage in plan.stages))
    assert 2**28 < plan.memory_bytes < 2**30
    assert plan.lines()[-1].startswith("total: about")


def test_a_strided_family_from_search_to_plain_model(tmp_path, tiny_settings, tiny_source):
    config = tiny_settings.replace(model="resnet18", steps=60)
    retrained = api.run(config, tmp_path / "run", source=tiny_source)
    ranking = json.loads(ranking_bytes(tmp_path / "run"))
    assert (ranking["operator"], len(ranking["ranking"])) == ("stride", 56)
    assert {role for result in retrained["results"] for role in result["roles"]} >= {"pick", "default"}
    plain = poolwise.model(tmp_path / "run", "3-2-2-2")
    assert not any(isinstance(part, torch.nn.MaxPool2d) for part in plain.modules())
    strides = [m.stride[0] for m in plain.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)]
    assert strides == [1] * 5 + [2, 1, 1, 1] * 3
    experiment = resolve(config, tiny_source)
    test = experiment.batches(tiny_source.test, config.ranking.eval_batch_size)
    recorded = next(r for r in retrained["results"] if r["pooling"] == "3-2-2-2")["accuracies"]
    assert accuracy(plain, test.ordered(), experiment.precision) in recorded


def test_a_plan_of_what_is_left(tmp_path, tiny_settings, tiny_source):
    class Stops(Listener):
        def finish(self):
            self.stopping = True  # after the search

    with pytest.raises(Interrupted):
        api.run(tiny_settings, tmp_path / "run", source=tiny_source, listener=Stops())
    left = api.plan_left(tmp_path / "run", source=tiny_source)
    assert [stage.name for stage in left.stages][-1] == "retrain"
    api.resume(tmp_path / "run", source=tiny_source)
    assert api.plan_left(tmp_path / "run", source=tiny_source) is None
    stages = {event["stage"]: event for event in RunFolder.open(tmp_path / "run").events("stage")}
    assert set(stages) >= {"search", "retrain"}
    assert all(event["planned"] > 0 and event["seconds"] >= 0 for event in stages.values())
