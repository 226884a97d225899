import json

import pytest
import torch

import poolwise
from conftest import After
from poolwise import api, tables
from poolwise.errors import RequestError
from poolwise.progress import Interrupted, Listener
from poolwise.storage import RunFolder

FEW = ["5-3-2", "4-3-3", "1-1-8"]


@pytest.fixture
def source(tiny_source):
    return tiny_source


def test_interrupted_trainings_resume_to_the_same_result(tmp_path, tiny_settings, source):
    complete = api.exhaustive(tiny_settings, tmp_path / "whole", configs=FEW, source=source)
    assert [result["pooling"] for result in complete["results"]] == FEW
    assert all(len(result["accuracies"]) == 2 for result in complete["results"])
    assert len(RunFolder(tmp_path / "whole").trials().all()[0]["curve"]) == 6
    path = tmp_path / "stopped"
    with pytest.raises(Interrupted):
        api.exhaustive(tiny_settings, path, configs=FEW, source=source, listener=After(15))
    assert len(RunFolder(path).trials().all()) == 2
    assert api.exhaustive(tiny_settings, path, configs=FEW, source=source) == complete
    with pytest.raises(Interrupted):
        api.exhaustive(tiny_settings, tmp_path / "other", configs=FEW, source=source, listener=After(15))
    api.resume(tmp_path / "other", source=source)
    assert json.loads((tmp_path / "other" / "exhaustive.json").read_text()) == complete


def test_different_request_for_the_same_folder_is_rejected(tmp_path, tiny_settings, source):
    path, plain = tmp_path / "run", tiny_settings.to_flat()
    api.exhaustive(tiny_settings, path, configs=FEW[:1], source=source)
    with pytest.raises(RequestError, match=r"another request \(lr 0.05, now 0.1\)"):
        api.exhaustive(poolwise.Config.from_flat({**plain, "lr": 0.1}), path, configs=FEW[:1], source=source)
    with pytest.raises(RequestError, match="another request \\(configs"):
        api.exhaustive(tiny_settings, path, configs=FEW[:2], source=source)
    api.exhaustive(poolwise.Config.from_flat({**plain, "workers": 2}), path, configs=FEW[:1], source=source)
    api.search(tiny_settings, tmp_path / "search", source=source)
    with pytest.raises(RequestError, match="run of another kind"):
        api.exhaustive(tiny_settings, tmp_path / "search", source=source)


def test_wrong_lists(tmp_path, tiny_settings, source):
    for listed, message in (
        ([], "no configuration is listed"),
        (FEW + FEW[:1], "twice"),
        (["5-5-5"], "not in the space"),
    ):
        with pytest.raises(RequestError, match=message):
            api.exhaustive(tiny_settings, tmp_path / "run", configs=listed, source=source)
    with pytest.raises(RequestError, match="needs all 36"):
        api.exhaustive(tiny_settings, tmp_path / "run", configs=FEW, source=source, table=tmp_path / "t")
    assert not (tmp_path / "run").exists()


def test_deprecated_keyword_works_and_warns(tmp_path, tiny_settings, source):
    new = api.exhaustive(tiny_settings, tmp_path / "new", configs=FEW[:1], source=source)
    with pytest.warns(DeprecationWarning, match="now configs"):
        old = poolwise.exhaustive(tiny_settings, tmp_path / "old", poolings=FEW[:1], source=source)
    assert old == new
    with pytest.warns(DeprecationWarning, match="now configs"):
        planned = poolwise.plan(tiny_settings, ["exhaustive"], poolings=FEW[:1], source=source)
    assert [stage.steps for stage in planned.stages] == [12]
    with pytest.raises(RequestError, match="use only configs"):
        poolwise.exhaustive(tiny_settings, tmp_path / "both", poolings=FEW[:1], configs=FEW[:1], source=source)


def test_failures_are_recorded_and_retried_on_request(tmp_path, tiny_settings, source):
    config = poolwise.Config.from_flat({**tiny_settings.to_flat(), "lr": 1e38, "retrain_seeds": 1})
    value = api.exhaustive(config, tmp_path / "run", configs=FEW[:2], source=source)
    assert [failure["pooling"] for failure in value["failed"]] == FEW[:2]
    notes = []

    class Notes(Listener):
        def note(self, text):
            notes.append(text)

    api.exhaustive(config, tmp_path / "run", configs=FEW[:2], source=source, listener=Notes())
    assert notes == []
    api.exhaustive(config, tmp_path / "run", configs=FEW[:2], source=source, listener=Notes(), retry=True)
    assert len([note for note in notes if note.startswith("failed")]) == 2


def test_table_of_all_configurations(tmp_path, tiny_settings, source):
    threads = torch.get_num_threads()
    config = poolwise.Config.from_flat({**tiny_settings.to_flat(), "retrain_steps": 2})
    value = api.exhaustive(config, tmp_path / "run", source=source, table=tmp_path / "mine")
    table = tables.load(tmp_path / "mine")
    assert (table.name, table.seeds, table.truth) == ("mine", [1, 2], "mean")
    assert table.columns == ["seed1", "seed2", "mean", "std"]
    assert table.query("5-3-2", 2) == pytest.approx(
        100 * next(r["accuracies"][1] for r in value["results"] if r["pooling"] == "5-3-2"), abs=1e-4
    )
    assert table.noise() == pytest.approx(value["noise"], abs=1e-3)
    assert table.ceiling() == pytest.approx(value["ceiling"])
    assert {"recipe", "hardware", "versions", "seeds", "data", "command", "precision"} <= set(table.about)
    assert table.about["width"] == 2
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_two_processes_give_the_same_results(tmp_path, tiny_settings, source):
    config = poolwise.Config.from_flat({**tiny_settings.to_flat(), "threads": 1})
    one = api.exhaustive(config, tmp_path / "one", configs=FEW, source=source)
    parallel = poolwise.Config.from_flat({**config.to_flat(), "workers": 2})
    path = tmp_path / "two"
    with pytest.raises(Interrupted):
        api.exhaustive(parallel, path, configs=FEW, source=source, listener=After(7))
    two = api.exhaustive(parallel, path, configs=FEW, source=source)
    assert two["results"] == one["results"]
