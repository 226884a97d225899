"""External networks through all commands: interrupted, resumed from another directory, refined, exported."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

import poolwise
from conftest import clean_environment, draw_images
from poolwise.cli import cli
from poolwise.errors import RequestError
from poolwise.models.external.networks import build, with_absolute_path

NETS = f"""{Path(__file__).parents[1].joinpath("own_network.py").read_text()}

class Headed(Small):
    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(4, 7, bias=False))


class Narrow(Small):
    def forward(self, images):
        assert images.shape[2] < 64, "for small images"
        return super().forward(images)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with a file of networks and a folder of images."""
    place = tmp_path_factory.mktemp("others")
    (place / "nets").mkdir()
    for stem in ("nets_of_tests", "nets-of-tests"):
        (place / "nets" / f"{stem}.py").write_text(NETS)
    for part, count in (("train", 48), ("val", 24)):
        data = draw_images(count, 32, 5)
        for i, (image, label) in enumerate(zip(data.images, data.labels, strict=True)):
            folder = place / "images" / part / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{i}.png")
    return place


def flags(place, model, steps=30):
    return [
        "--model", model, "--data", f"folder:{place / 'images'}", "--image-size", "32", "--supernets", "2", "--steps", f"{steps}",
        "--batch-size", "12", "--eval-batch-size", "12", "--precision", "float32", "--threads", "1", "--workers", "1",
        "--device", "cpu", "--quiet",
    ]  # fmt: skip


RETRAINING = ["--retrain-steps", "3", "--retrain-seeds", "2"]


def command(*arguments):
    result = CliRunner().invoke(cli, [str(one) for one in arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.fixture(scope="module")
def ran(place):
    """Return a finished run of a class in a file that is given by a relative path."""
    return finished(place, "nets_of_tests.py:Small", "small")


def finished(place, model, name, *more):
    before = os.getcwd()
    os.chdir(place / "nets")
    try:
        command("run", *flags(place, model), *RETRAINING, *more, "--out", place / name)
    finally:
        os.chdir(before)
    return place / name


def results_of(run):
    return [
        json.loads((run / name).read_text())[key]
        for name, key in (("ranking.json", "ranking"), ("retrain.json", "results"))
    ]


class StopsInTheMiddle(poolwise.Listener):
    def advance(self, units=1, **info):
        self.done = getattr(self, "done", 0) + units
        self.stopping = self.done > 15


def test_stopped_and_resumed_from_another_directory(place, ran, tmp_path, monkeypatch):
    config = poolwise.Config.from_flat(poolwise.Run.open(ran).request()["settings"])
    assert config.model.name == f"{place / 'nets' / 'nets_of_tests.py'}:Small"
    monkeypatch.chdir(place / "nets")
    requested = config.replace(model="nets_of_tests.py:Small", data="folder:../images")
    with pytest.raises(poolwise.Interrupted):
        poolwise.run(requested, place / "stopped", listener=StopsInTheMiddle())
    assert not (place / "stopped" / "ranking.json").exists()
    monkeypatch.chdir(tmp_path)
    command("resume", place / "stopped", "--quiet")
    assert results_of(place / "stopped") == results_of(ran)


@pytest.mark.slow
def test_killed_and_resumed_from_another_directory(place, ran, tmp_path):
    out, nets = place / "killed", place / "nets"
    arguments = [*flags(place, "nets_of_tests.py:Small"), *RETRAINING, "--out", str(out)]
    code = f"from poolwise.cli import main; main({['run', *arguments, '--checkpoint-minutes', '0.0001']!r})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=nets, env=clean_environment())
    checkpoint, patience = out / "checkpoints" / "search.safetensors", time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < patience:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.exists()
    assert not (out / "report.html").exists()
    code = f"from poolwise.cli import main; main(['resume', {str(out)!r}, '--quiet'])"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=clean_environment(), check=True, capture_output=True)
    assert results_of(out) == results_of(ran)


def test_the_stages_one_by_one(place, tmp_path):
    model = f"{place / 'nets' / 'nets_of_tests.py'}:Small"
    run = tmp_path / "run"
    assert "search: 12 steps" in command("search", *flags(place, model, 12), "--plan")
    command("search", *flags(place, model, 12), "--norm", "recalibrated", "--out", run)
    command("rank", run, "--quiet")
    assert "rank: " in command("rank", run, "--plan")
    poolwise.retrain(run, retrain_steps=3, retrain_seeds=2, top=2)
    output = command("refine", run, "--trials", 3, "--quiet")
    assert "3 trainings" in output
    assert len(json.loads((run / "refine.json").read_text())["trials"]) == 3
    command("report", run)
    assert "nets_of_tests.py" in (run / "report.html").read_text()
    assert poolwise.Run.open(run).request()["settings"]["model"] == model
    assert "suggestions without training" in command("suggest", "--model", model, "--image-size", 32)
    with pytest.raises(RequestError, match="norm affine is not supported by the external network"):
        command("search", *flags(place, model), "--norm", "affine", "--out", tmp_path / "x")


@pytest.mark.slow
def test_exhaustive_and_compare(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place / "nets")
    arguments = [
        "exhaustive", "--model", "../nets/nets_of_tests.py:Small", "--data", "folder:../images", "--image-size", 32,
        "--retrain-steps", 2, "--retrain-seeds", 2, "--batch-size", 12, "--precision", "float32", "--threads", 1, "--workers", 1,
        "--device", "cpu", "--quiet", "--out", tmp_path / "all", "--table", tmp_path / "mine",
    ]  # fmt: skip
    command(*arguments)
    before = (tmp_path / "all" / "trials.sqlite").read_bytes()
    command(*[str(one).replace("../nets/", "") for one in arguments])  # another path to the same file
    assert (tmp_path / "all" / "trials.sqlite").read_bytes() == before
    study = [
        "compare", "--table", tmp_path / "mine", "--model", "nets_of_tests.py:Small", "--methods", "spos,random", "--budgets",
        8, "--seeds", 0, "--controls", "macs", "--resamples", 20, "--quiet", "--out", tmp_path / "study",
    ]  # fmt: skip
    command(*study)
    methods = {row["method"] for row in json.loads((tmp_path / "study" / "compare.json").read_text())["rows"]}
    assert methods == {"spos", "random", "macs"}
    monkeypatch.chdir(tmp_path)
    command(*[place / "nets" / one if one == "nets_of_tests.py:Small" else one for one in study])


EXPORT = """
import torch
torch.set_num_threads(1)  # as here: threads change last bits
torch.manual_seed(0)
images = torch.randn(3, 3, 32, 32)
with torch.no_grad():
    torch.save({"logits": model(images), "class": type(model).__name__, "keys": list(model.state_dict())}, "answer")
"""


def exported(run, place, folder, kind):
    """Export as safetensors and Python, and check that the Python code rebuilds the network in another process."""
    pick = poolwise.Run.open(run).ranking.picks["best"]
    command("export", run, "--to", folder / "model.safetensors", "--seed", 2)
    lines = command("export", run, "--to", "python", "--seed", 2)
    subprocess.run([sys.executable, "-c", lines + EXPORT], cwd=folder, env=clean_environment(), check=True)
    rebuilt = torch.load(folder / "answer", weights_only=True)
    expected = poolwise.model(run, pick, seed=2)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(rebuilt["logits"], expected(images))
    assert rebuilt["class"] == type(expected).__name__ == kind
    model = build(poolwise.Run.open(run).request()["settings"]["model"], 3)
    assert sorted(load_file(folder / "model.safetensors")) == sorted(rebuilt["keys"]) == sorted(model.state_dict())
    return expected, lines


def test_export_to_python(place, ran, tmp_path):
    _, lines = exported(ran, place, tmp_path, "Small")
    assert "from nets_of_tests import Small\n" in lines
    assert "model = Small(classes=3)\n" in lines


def test_python_for_a_replaced_head_an_invalid_module_name_and_small_images(place, tmp_path):
    from poolwise.models.external.source_code import written

    file = place / "nets" / "nets-of-tests.py"
    for model, pooling, expected_line in (
        ("Headed", "2-2-2", "setattr(model.get_submodule('head'), '1', torch.nn.Linear(4, 3, bias=False))"),
        ("Narrow", "1-4-1", "poolwise.apply(model, '1-4-1', torch.zeros(2, 3, 32, 32))"),
    ):
        imports, lines = written(f"{file}:{model}", 3, pooling)
        assert expected_line in lines
        names = {}
        exec("\n".join([*imports, *lines]), names)
        expected = poolwise.network(f"{file}:{model}", pooling, classes=3)
        names["model"].load_state_dict(expected.state_dict())
        images = torch.randn(2, 3, 32, 32)
        assert torch.equal(names["model"].eval()(images), expected.eval()(images))


def test_python_for_a_registered_network():
    from poolwise.models.external.source_code import written

    name = poolwise.backbone("mine", lambda num_classes: build("torchvision:resnet18", num_classes))
    imports, lines = written(name, 5, "2-2-2-2")
    assert lines[0] == "# build: the argument of poolwise.backbone('mine', build)"
    assert lines[1] == "model = build(num_classes=5)"
    assert imports == ["import poolwise"]


def test_a_space_of_one_configuration_raises_one_line(tmp_path):
    config = poolwise.preset("demo", model="timm:test_resnet", width=None)
    with pytest.raises(RequestError, match=r"one configuration with 3 downsamplings .* --poolings 2,3"):
        poolwise.search(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_paths_of_files_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert with_absolute_path("a/../nets.py:Net") == f"{tmp_path / 'nets.py'}:Net"
    for name in ("resnet20", "timm:resnet26d", "torchvision:resnet18", "own:Net"):
        assert with_absolute_path(name) == name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "kind", "line", "more"),
    [
        (
            "timm:test_resnet",
            "ResNet",
            "model = timm.create_model('test_resnet', num_classes=3)",
            ["--poolings", "2,3"],
        ),
        ("torchvision:resnet18", "ResNet", "model = models.get_model('resnet18', num_classes=3)", ["--max-configs", 4]),
        ("nets_of_tests.py:Headed", "Headed", "model = Headed()", []),
    ],
    ids=["timm", "torchvision", "file"],
)
def test_external_networks_in_every_export_format(place, tmp_path, model, kind, line, more):
    import onnxruntime

    run = finished(place, model, model.rpartition(":")[2], *more)
    expected, lines = exported(run, place, tmp_path, kind)
    assert line in lines.splitlines()
    output = command("export", run, "--to", tmp_path / "model.onnx", "--seed", 2)
    assert "dynamic batch; onnxruntime differs from torch by" in output
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    for batch in (1, 4):
        images = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            logits = expected(images)
        (onnx_logits,) = session.run(None, {"images": images.numpy()})
        assert torch.allclose(torch.from_numpy(onnx_logits), logits, atol=1e-4 * float(logits.std().clamp(min=1)))
