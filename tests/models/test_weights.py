"""Initial weights: sources, errors, and reproducible runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import poolwise
from conftest import results
from poolwise.config import Config
from poolwise.errors import PoolwiseError, RequestError, RunFailure
from poolwise.experiment import resolve
from poolwise.models import family
from poolwise.models.chain import affine_norm, batch_norm, create, running_norm
from poolwise.models.weights import load, load_into, plain_tensors
from poolwise.rng import Streams


def chain(name="resnet20", norm=running_norm, classes=3, width=2, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return create(family(name).build, generator, classes=classes, width=width, norm=norm)


@pytest.fixture
def other():
    """Return a state dict of the plain network with non-default running averages."""
    state = poolwise.network("resnet20", "4-3-3", width=2, classes=3, seed=9).state_dict()
    return {key: tensor + 0.25 if tensor.is_floating_point() else tensor for key, tensor in state.items()}


def write_weights(tmp_path, state, name="weights.safetensors"):
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return str(path)


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "vgg16", "mobilenetv2", "convnext"])
def test_exported_weights_load_bitwise_equal(name, tmp_path):
    state = poolwise.network(name, family(name).default, width=2, classes=3, seed=9).state_dict()
    network = chain(name)
    assert load_into(network, load(write_weights(tmp_path, state))) == []
    tensors, head = plain_tensors(network)
    assert list(tensors) == list(state)
    assert 0 < len(head) < len(tensors)
    assert all(torch.equal(tensors[key], tensor) for key, tensor in state.items())


@pytest.mark.parametrize(
    ("name", "wrapper"),
    [
        *(("weights.safetensors", None), ("weights.pt", None), ("weights.bin", None), ("weights.pth", "state_dict")),
        *(("weights.pth", "model_state_dict"), ("weights.pth", "model")),
    ],
)
def test_files_as_scripts_write_them(name, wrapper, other, tmp_path):
    state = {f"module.{key}": tensor for key, tensor in other.items()} if wrapper == "model" else other
    saved = state if wrapper is None else {wrapper: state, "epoch": 3, "args": {"lr": 0.1}}
    network = chain()
    load_into(network, load(write_weights(tmp_path, saved, name)))
    assert all(torch.equal(tensor, other[key]) for key, tensor in plain_tensors(network)[0].items())


def test_the_last_layer_is_reinitialized_for_another_number_of_classes(other, tmp_path):
    network, before = chain(classes=7), chain(classes=7)
    assert load_into(network, load(write_weights(tmp_path, other))) == ["head.linear.bias", "head.linear.weight"]
    tensors = plain_tensors(network)[0]
    assert torch.equal(tensors["head.linear.weight"], before.head.linear.weight)
    assert all(torch.equal(tensor, other[key]) for key, tensor in tensors.items() if not key.startswith("head"))
    headless = {key: tensor for key, tensor in other.items() if not key.startswith("head")}
    assert len(load_into(chain(), load(write_weights(tmp_path, headless, "body.safetensors")))) == 2


def test_only_the_classifier_of_a_torchvision_network_is_reinitialized(tmp_path):
    import torchvision

    theirs = torchvision.models.mobilenet_v2().state_dict()
    network = chain("torchvision:mobilenet_v2", classes=4, width=None)
    assert load_into(network, load(write_weights(tmp_path, theirs))) == ["classifier.1.bias", "classifier.1.weight"]
    tensors = network.model.state_dict()
    assert all(torch.equal(tensors[key], theirs[key]) for key in tensors if not key.startswith("classifier"))


def test_a_supernet_without_scale_and_shift_is_refused(other, tmp_path):
    weights = load(write_weights(tmp_path, other))
    with pytest.raises(RequestError, match="--norm affine or recalibrated"):
        load_into(chain(norm=batch_norm), weights)
    load_into(chain(norm=affine_norm), weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {k: v for k, v in state.items() if k != "stem.0.weight"}, "stem.0.weight is missing"),
        (lambda state: {**state, "extra.weight": torch.zeros(2)}, "it has no extra.weight"),
        (
            lambda state: {**state, "stem.0.weight": torch.zeros(4, 3, 3, 3)},
            "4x3x3x3 in the weights and 2x3x3x3 in the network",
        ),
        (lambda state: {**state, "stem.0.weight": torch.full((2, 3, 3, 3), torch.nan)}, "not finite"),
        (lambda state: {**state, "head.linear.weight": torch.zeros(3, 5)}, "head.linear.weight is 3x5 in the weights"),
    ],
)
def test_weights_of_another_network_change_nothing(change, message, other, tmp_path):
    state = change(other)
    network = chain()
    before = {k: tensor.clone() for k, tensor in network.state_dict().items()}
    with pytest.raises(RequestError, match=message):
        load_into(network, load(write_weights(tmp_path, state)))
    assert all(torch.equal(before[k], tensor) for k, tensor in network.state_dict().items())


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_malicious_file_is_not_executed(tmp_path):
    target = tmp_path / "carried-out"
    path = write_weights(tmp_path, {"weight": torch.zeros(2), "x": Trap(target)}, "bad.pth")
    with pytest.raises(RequestError, match="cannot be read as tensors"):
        load(path)
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists()  # the trap works


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_damaged_files_raise_request_errors(suffix, other, tmp_path):
    path, draw = Path(write_weights(tmp_path, other, f"weights{suffix}")), np.random.default_rng(0)
    content = path.read_bytes()
    for data in [
        b"",
        content[: len(content) // 2],
        content[1:],
        *(draw.bytes(n) for n in (1, 100, 5000)),
        b"\xff" * 64,
    ]:
        path.write_bytes(data)
        with pytest.raises(RequestError, match="weights"):
            load(str(path))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(RequestError, match="no named tensors"):
        load(str(tmp_path / "list.pth"))


@pytest.mark.parametrize(
    ("source", "error", "line"),
    [
        ("nothing.pth", RequestError, "no such file"),
        ("weights.h5", RequestError, "a file that ends with"),
        ("torchvision:resnet19", RequestError, "did you mean 'resnet1"),
        ("torchvision:resnet18.IMAGENET1K_V9", RequestError, "torchvision has the weights IMAGENET1K_V1"),
        ("timm:resnet26dd", RequestError, "did you mean 'resnet26d'"),
        ("timm:resnet26d.nothing", RequestError, "timm has the weights resnet26d"),
        ("torchvision:resnet18", RunFailure, "cannot be downloaded"),
        ("timm:resnet26d", RunFailure, "cannot be downloaded"),
    ],
)
def test_unavailable_weights_raise_errors(source, error, line, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def silent(request, timeout):
        raise OSError(f"{request.full_url} does not answer")

    monkeypatch.setattr("urllib.request.urlopen", silent)
    with pytest.raises(error, match=line):
        load(source)


def test_torchvision_files_are_checked_by_sha256(other, tmp_path, monkeypatch):
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(other, folder / "resnet18-f37072fd.pth")  # does not match the hash in the name
    with pytest.raises(RunFailure, match="SHA-256 does not start with f37072fd"):
        load("torchvision:resnet18")
    weights = load(str(folder / "resnet18-f37072fd.pth"))
    name = f"own-{weights.sha256[:8]}.pth"
    (folder / "resnet18-f37072fd.pth").rename(folder / name)
    monkeypatch.setattr(torchvision.models.WeightsEnum, "url", property(lambda self: f"https://example.org/{name}"))
    assert load("torchvision:resnet18").sha256 == load("torchvision:resnet18.IMAGENET1K_V1").sha256 == weights.sha256


@pytest.fixture
def pretrained_config(tiny_settings, other, tmp_path):
    return tiny_settings.replace(norm="affine", weights=write_weights(tmp_path, other))


def test_weights_for_selects_the_trainings(pretrained_config, other, tiny_source):
    for weights_for in ("both", "search", "retrain"):
        experiment = resolve(pretrained_config.replace(weights_for=weights_for), tiny_source)
        search = experiment.supernet("init0", Streams(0)).chain.at(0, 0)
        standalone = experiment.build(running_norm, "init", Streams(0), "retrain")
        key = next(iter(other))
        matches = [torch.equal(next(part.parameters()), other[key]) for part in (search, standalone)]
        assert matches == [weights_for in ("both", "search"), weights_for in ("both", "retrain")]
    with pytest.raises(RequestError, match="add --weights"):
        Config.from_flat(weights_for="search")
    with pytest.raises(RequestError, match="did you mean 'retrain'"):
        Config.from_flat(weights="a.pth", weights_for="retrained")
    with pytest.raises(RequestError, match="--weights-for retrain"):
        resolve(pretrained_config.replace(norm="batch"), tiny_source)


@pytest.mark.slow
def test_a_run_from_weights_is_reproducible_and_resumes_only_with_the_same_weights(
    pretrained_config, other, tiny_source, tmp_path
):
    for workers in (1, 2):
        config = pretrained_config.replace(workers=workers, threads=1, block=8)
        poolwise.run(config, tmp_path / str(workers), source=tiny_source)
    assert results(tmp_path / "1") == results(tmp_path / "2")
    scratch = pretrained_config.replace(weights=None, threads=1, block=8)
    poolwise.run(scratch, tmp_path / "scratch", source=tiny_source)
    assert results(tmp_path / "1")[1] != results(tmp_path / "scratch")[1]
    recorded = json.loads((tmp_path / "1/run.json").read_text())["weights"]
    assert recorded == {
        "from": pretrained_config.model.weights,
        "sha256": load(pretrained_config.model.weights).sha256,
        "for": "both",
        "anew": [],
    }
    write_weights(tmp_path, {key: tensor + 1 for key, tensor in other.items()})
    poolwise.resume(tmp_path / "1", source=tiny_source)  # nothing is left to do and the file is not read
    (tmp_path / "1/retrain.json").unlink()
    (tmp_path / "1/spare/retrain.json").unlink(missing_ok=True)
    with pytest.raises(PoolwiseError, match="differ from those of the run"):
        poolwise.resume(tmp_path / "1", source=tiny_source)


@pytest.mark.slow
def test_timm_weights_from_the_cache(tmp_path, image_folder):
    import timm

    hub = tmp_path / "hf" / "hub" / "models--timm--test_resnet.r160_in1k"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs" / "main").write_text("abc")
    (hub / "snapshots" / "abc").mkdir(parents=True)
    save_file(timm.create_model("test_resnet").state_dict(), hub / "snapshots" / "abc" / "model.safetensors")
    command = [
        *(
            str(Path(sys.executable).with_name("poolwise")),
            "run",
            "--model",
            "timm:test_resnet",
            "--weights",
            "timm:test_resnet",
        ),
        *("--data", f"folder:{image_folder}", "--image-size", "32", "--steps", "4", "--batch-size", "4"),
        *("--retrain-steps", "2", "--retrain-seeds", "2", "--precision", "float32", "--lr", "0.001"),
        *("--poolings", "2,3", "--out", str(tmp_path / "run"), "--quiet"),
    ]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "POOLWISE_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
    assert done.returncode == 0, done.stderr
    recorded = json.loads((tmp_path / "run/run.json").read_text())["weights"]
    assert recorded["from"] == "timm:test_resnet"
    assert recorded["anew"] == ["fc.bias", "fc.weight"]
