"""``--time-budget`` on the command line: what it chooses, what it keeps, and what it refuses."""

import pytest

from poolwise import api
from poolwise.cli import requests
from poolwise.config import preset
from poolwise.errors import RequestError


@pytest.mark.parametrize("name", ["steps", "epochs", "search_macs", "retrain_steps", "retrain_epochs"])
def test_a_time_budget_refuses_a_length(name, monkeypatch):
    monkeypatch.setattr(api, "fit", None)  # refused before anything is timed
    with pytest.raises(RequestError, match=rf"--time-budget chooses .*: omit --{name.replace('_', '-')} or"):
        requests.fitted({name: 100}, "30m", api.RUN_STAGES)
    config = requests.fitted({name: 100}, None, api.RUN_STAGES)  # without a budget it is taken
    assert config.get(name) == 100


def test_a_used_folder_is_refused_before_anything_is_timed(monkeypatch, tmp_path):
    monkeypatch.setattr(api, "fit", None)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RequestError, match="already holds another run"):
        requests.fitted({}, "30m", api.RUN_STAGES, tmp_path)


def test_a_time_budget_keeps_supernets_and_images(monkeypatch):
    seen = {}

    def fit(config, seconds, stages, kept):
        seen.update(seconds=seconds, stages=stages, kept=kept)
        return config.replace(steps=77)

    monkeypatch.setattr(api, "fit", fit)
    config = requests.fitted({"supernets": 3, "images": 500, "lr": None, "preset_name": "demo"}, "2m", ["search"])
    assert (config.search.supernets, config.data.images, config.search.steps) == (3, 500, 77)
    assert (seen["seconds"], seen["stages"]) == (120.0, ["search"])
    assert {"supernets", "images"} <= set(seen["kept"])
    assert "lr" not in seen["kept"]
    assert config.training.lr == preset("demo").training.lr
