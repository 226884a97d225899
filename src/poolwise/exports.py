"""Export a trained configuration as safetensors, ONNX, or Python code that builds it."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from poolwise.errors import RequestError, RunFailure
from poolwise.models.external.networks import is_other
from poolwise.models.external.source_code import written
from poolwise.sanitize import visible
from poolwise.storage import FORMAT, write_atomically, writing

SUFFIXES = (".safetensors", ".onnx")
TOLERANCE = 1e-4  # maximum difference between onnxruntime and torch, in standard deviations of the logits
_BATCHES = (1, 2, 5)


@dataclass(frozen=True)
class Trained:
    """A trained configuration with the information needed to use it.

    Attributes:
        network: The plain network in evaluation mode on the CPU; takes normalized float32 images_BCHW.
        about: Model, pooling, width, class names, image size, mean and std of the training pixels (0 to 255; None in
            runs of early versions), seed, steps and test accuracy.
    """

    network: nn.Module
    about: Mapping[str, Any]

    @property
    def example(self) -> Tensor:
        """Fixed random images_BCHW of the size that the network was trained on."""
        size = int(self.about["image_size"])
        return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def check_path(to: str) -> str:
    """Return the suffix of a file to write. Raises RequestError if it is not supported or the file exists."""
    suffix = Path(to).suffix
    if suffix not in SUFFIXES:
        raise RequestError(
            f"cannot export to {to[:80]!r}: use a file that ends with {' or '.join(SUFFIXES)}, or python (in Python:"
            " poolwise.python_code)"
        )
    if Path(to).exists():
        raise RequestError(f"{to} exists: use another name, or remove it")
    return suffix


def write_safetensors(trained: Trained, path: Path) -> None:
    """Write the state dict to a safetensors file, with ``about`` as JSON in the metadata."""
    from safetensors.torch import save

    state = {key: tensor.detach().cpu().contiguous() for key, tensor in trained.network.state_dict().items()}
    about = json.dumps({"format": FORMAT, **trained.about}, ensure_ascii=False)
    write_atomically(path, save(state, metadata={"poolwise": about}))


def write_onnx(trained: Trained, path: Path) -> float:
    """Write an ONNX file with a dynamic batch size, after comparing logits of onnxruntime and torch for several sizes.

    Returns:
        The largest difference between the logits of onnxruntime and torch, in standard deviations of the logits.

    Raises:
        RequestError: A package is missing.
        RunFailure: The logits differ by more than TOLERANCE. Nothing is written.
    """
    onnx = _onnx_package()
    with writing(path):
        return _write_checked(trained, path, onnx)


def _write_checked(trained: Trained, path: Path, onnx: Any) -> float:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".poolwise-") as folder:
        draft = Path(folder) / "model.onnx"
        with warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                trained.network,
                (trained.example,),
                draft,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        exported = onnx.load(draft)
        for key, entry in trained.about.items():
            text = entry if isinstance(entry, str) else json.dumps(entry, ensure_ascii=False)
            exported.metadata_props.add(key=key, value=text)
        onnx.save(exported, draft)
        difference = _difference(trained, draft)
        if difference > TOLERANCE:
            raise RunFailure(
                f"onnxruntime differs from torch by {difference:.1e} standard deviations of the logits: no file was written"
            )
        write_atomically(path, draft.read_bytes())
    return difference


def _onnx_package() -> Any:
    """Import the packages that ONNX needs. Raises RequestError if one is missing."""
    packages = {}
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            packages[name] = import_module(name)
        except ImportError as error:
            raise RequestError(
                f"ONNX needs the packages onnx, onnxscript and onnxruntime ({name} is missing): pip install 'poolwise[onnx]'"
            ) from error
    return packages["onnx"]


class _quiet:
    """Context manager that silences the progress messages of the torch exporter."""

    def __enter__(self) -> None:
        self._level = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *_: object) -> None:
        logging.disable(self._level)


@torch.no_grad()
def _difference(trained: Trained, path: Path) -> float:
    """Return the largest difference between onnxruntime and torch, in standard deviations of the logits."""
    onnxruntime = import_module("onnxruntime")  # has no types
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for batch in _BATCHES:
        images_BCHW = trained.example[:1].repeat(batch, 1, 1, 1) * torch.linspace(0.5, 1.5, batch)[:, None, None, None]
        expected_BK = trained.network(images_BCHW)
        (logits_BK,) = session.run(["logits"], {"images": images_BCHW.numpy()})
        spread = max(float(expected_BK.std()), 1e-6)
        worst = max(worst, float((torch.from_numpy(logits_BK) - expected_BK).abs().max()) / spread)
    return worst


def python_code(trained: Trained, weights: str = "model.safetensors") -> str:
    """Return Python code that builds the network and loads weights written by ``write_safetensors``."""
    about = trained.about
    name, pooling, count = about["model"], about["pooling"], len(about["classes"])
    if is_other(name):
        imports, model_lines = written(name, count, pooling)
    else:
        call = f"poolwise.network({name!r}, {pooling!r}, width={about['width']}, classes={count})"
        imports, model_lines = ["import poolwise"], [f"model = {call}"]
    pixels = f"mean, std = {about['mean']}, {about['std']}"
    if about["mean"] is None:
        pixels = "# this run did not store the mean and std of the training images"
    size = about["image_size"]
    lines = [
        f"# {visible(name)} with configuration {pooling}: seed {about['seed']}, {about['steps']} steps,"
        f" test accuracy {100 * about['accuracy']:.2f} %",
        f"# weights: poolwise export RUN --pooling {pooling} --seed {about['seed']} --to {weights}",
        *imports,
        "from safetensors.torch import load_file",
        "",
        *model_lines,
        f"model.load_state_dict(load_file({weights!r}))",
        "model.eval()",
        f"# images_BCHW float32 = (pixels - mean) / std, pixels from 0 to 255, {size} x {size} in training",
        pixels,
    ]
    return "\n".join(lines) + "\n"
