import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open

import poolwise
from poolwise import api, handing
from poolwise.cli import cli
from poolwise.errors import RequestError


@pytest.fixture(scope="module")
def finished(tmp_path_factory, request):
    from conftest import draw_images
    from poolwise.images.sources import Source
    from poolwise.settings import Settings

    settings = Settings(
        width=2, supernets=2, steps=30, batch_size=16, eval_batch_size=24, retrain_steps=6, retrain_seeds=2, lr=0.05,
        draw="rounds", precision="float32", device="cpu",
    )  # fmt: skip
    source = Source("tiny", draw_images(96, 8, 1), draw_images(48, 8, 2), ("red", "green", "blue"))
    path = tmp_path_factory.mktemp("handing") / "run"
    api.run(settings, path, source=source)
    return path


def best(path):
    return json.loads((path / "ranking.json").read_text())["picks"]["best"]


def images(batch=3):
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def expected(path, pooling, seed=1):
    return api.model(path, pooling, seed)(images())


def test_safetensors_and_the_lines_that_load_them(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    api.hand_over(finished, tmp_path / "model.safetensors", seed=2)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        about = json.loads(file.metadata()["poolwise"])
    assert (about["pooling"], about["seed"], about["classes"]) == (best(finished), 2, ["red", "green", "blue"])
    assert len(about["mean"]) == len(about["std"]) == 3
    assert 0 <= about["accuracy"] <= 1
    told, names = api.hand_over(finished, "python", seed=2), {}
    exec(compile(told, "told", "exec"), names)
    with torch.no_grad():
        assert torch.equal(names["model"](images()), expected(finished, best(finished), 2))
    assert names["mean"] == about["mean"]


@pytest.mark.parametrize("pooling", ["best", "default", "cheap"])
def test_onnx_gives_what_torch_gives(finished, tmp_path, pooling):
    path = tmp_path / "deep" / "model.onnx"
    told = api.hand_over(finished, path, pooling=pooling)
    picks = json.loads((finished / "ranking.json").read_text())
    names = {
        "best": picks["picks"]["best"],
        "cheap": picks["picks"]["best_at_default_macs"],
        "default": picks["default"],
    }
    name = names[pooling]
    assert name in told
    onnx.checker.check_model(onnx.load(path))
    session = onnxruntime.InferenceSession(str(path))
    (found,) = session.run(None, {"images": images().numpy()})
    assert np.allclose(found, expected(finished, name).numpy(), atol=1e-5)
    assert session.run(None, {"images": images(7).numpy()})[0].shape == (7, 3)
    about = session.get_modelmeta().custom_metadata_map
    assert (about["pooling"], json.loads(about["classes"])) == (name, ["red", "green", "blue"])
    assert sorted(one.name for one in path.parent.iterdir()) == ["model.onnx"]


def test_what_differs_is_not_written(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(handing, "TOLERANCE", -1.0)
    with pytest.raises(poolwise.PoolwiseError, match="differs from torch"):
        api.hand_over(finished, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "model.pt"], ".safetensors or .onnx, or python"),
        (["--to", "m.onnx", "--pooling", "1-1-8"], "has no retrained 1-1-8"),
        (["--to", "m.onnx", "--pooling", "none"], "write stage lengths"),
        (["--to", "m.onnx", "--seed", "9"], "seed 9"),
    ],
)
def test_wrong_requests(finished, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(cli, ["export", str(finished), *arguments], standalone_mode=False)
    assert isinstance(found.exception, RequestError)
    assert message in str(found.exception)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(finished, tmp_path):
    (tmp_path / "model.onnx").write_text("mine")
    with pytest.raises(RequestError, match="exists"):
        api.hand_over(finished, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_text() == "mine"


def test_a_missing_package_is_named(finished, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RequestError, match=r"onnxruntime is missing\): pip install 'poolwise\[onnx\]'"):
        api.hand_over(finished, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
