"""Export as safetensors, ONNX and Python code."""

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
from poolwise import api, exports
from poolwise.cli import cli
from poolwise.errors import RequestError
from poolwise.models import family
from poolwise.models.chain import create
from poolwise.models.supernet import SwitchableNet
from poolwise.spaces import Pooling


@pytest.fixture(scope="module")
def finished(tmp_path_factory, request):
    from conftest import draw_images
    from poolwise.config import Config
    from poolwise.datasets.sources import Source

    config = Config.from_flat(
        width=2, supernets=2, steps=30, batch_size=16, eval_batch_size=24, retrain_steps=6, retrain_seeds=2, lr=0.05,
        draw="rounds", precision="float32", device="cpu",
    )  # fmt: skip
    source = Source("tiny", draw_images(96, 8, 1), draw_images(48, 8, 2), ("red", "green", "blue"))
    path = tmp_path_factory.mktemp("exports") / "run"
    api.run(config, path, source=source)
    return path


def best(path):
    return json.loads((path / "ranking.json").read_text())["picks"]["best"]


def images(batch=3):
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def expected(path, pooling, seed=1):
    return api.model(path, pooling, seed)(images())


def test_safetensors_and_the_code_that_loads_them(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    api.export(finished, tmp_path / "model.safetensors", seed=2)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        about = json.loads(file.metadata()["poolwise"])
    assert (about["pooling"], about["seed"], about["classes"]) == (best(finished), 2, ["red", "green", "blue"])
    assert len(about["mean"]) == len(about["std"]) == 3
    assert 0 <= about["accuracy"] <= 1
    code, names = api.python_code(finished, seed=2), {}
    exec(compile(code, "code", "exec"), names)
    with torch.no_grad():
        assert torch.equal(names["model"](images()), expected(finished, best(finished), 2))
    assert names["mean"] == about["mean"]


@pytest.mark.parametrize("pooling", ["best", "default", "cheap"])
def test_onnx_equals_torch(finished, tmp_path, pooling):
    path = tmp_path / "deep" / "model.onnx"
    exported = api.export(finished, path, pooling=pooling)
    picks = json.loads((finished / "ranking.json").read_text())
    names = {
        "best": picks["picks"]["best"],
        "cheap": picks["picks"]["best_at_default_macs"],
        "default": picks["default"],
    }
    name = names[pooling]
    assert (exported.path, exported.pooling, exported.seed) == (path, name, 1)
    assert name in str(exported)
    assert 0 <= exported.max_difference <= exports.TOLERANCE
    assert 0 <= exported.accuracy <= 1
    onnx.checker.check_model(onnx.load(path))
    session = onnxruntime.InferenceSession(str(path))
    (logits,) = session.run(None, {"images": images().numpy()})
    assert np.allclose(logits, expected(finished, name).numpy(), atol=1e-5)
    assert session.run(None, {"images": images(7).numpy()})[0].shape == (7, 3)
    about = session.get_modelmeta().custom_metadata_map
    assert (about["pooling"], json.loads(about["classes"])) == (name, ["red", "green", "blue"])
    assert sorted(one.name for one in path.parent.iterdir()) == ["model.onnx"]


def test_hand_over_is_an_alias_that_warns(finished, tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.warns(DeprecationWarning, match=r"poolwise\.export"):
        message = poolwise.hand_over(finished, path, seed=2)
    accuracy = poolwise.export(finished, tmp_path / "again.safetensors", seed=2).accuracy
    assert message == f"{path}: {best(finished)}, seed 2, test accuracy {100 * accuracy:.2f} %"
    assert path.read_bytes() == (tmp_path / "again.safetensors").read_bytes()
    with pytest.warns(DeprecationWarning, match=r"poolwise\.python_code"):
        assert poolwise.hand_over(finished, "python") == poolwise.python_code(finished)


@pytest.mark.parametrize("keywords", [{}, {"operator": "stride"}])
def test_export_of_a_network_is_plain_model_and_warns(keywords):
    network = SwitchableNet(create(family("resnet20").build, torch.Generator().manual_seed(0), width=2, classes=3))
    plain = poolwise.plain_model(network, "4-3-3", **keywords)
    for call in (
        lambda: poolwise.export(network, "4-3-3", **keywords),
        lambda: poolwise.export(network, pooling="4-3-3", **keywords),
        lambda: poolwise.export(network.chain, Pooling.parse("4-3-3"), *keywords.values()),
    ):
        with pytest.warns(DeprecationWarning, match=r"poolwise\.plain_model"):
            old = call()
        assert torch.equal(old(images()), plain(images()))
        assert str(old) == str(plain)


def test_an_unsupported_file_is_rejected(finished):
    with pytest.raises(RequestError, match=r"safetensors or \.onnx, or python"):
        poolwise.export(finished, "python")


def test_a_model_that_differs_is_not_written(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(exports, "TOLERANCE", -1.0)
    with pytest.raises(poolwise.PoolwiseError, match="differs from torch"):
        api.export(finished, tmp_path / "model.onnx")
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
def test_invalid_requests(finished, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["export", str(finished), *arguments], standalone_mode=False)
    assert isinstance(result.exception, RequestError)
    assert message in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_existing_files_are_not_overwritten(finished, tmp_path):
    (tmp_path / "model.onnx").write_text("mine")
    with pytest.raises(RequestError, match="exists"):
        api.export(finished, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_text() == "mine"


def test_a_missing_package_is_reported(finished, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RequestError, match=r"onnxruntime is missing\): pip install 'poolwise\[onnx\]'"):
        api.export(finished, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
