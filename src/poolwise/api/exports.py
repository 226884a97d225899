"""Build networks with fresh or trained weights, and export them to files."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from torch import nn

from poolwise import exports
from poolwise.config import Config
from poolwise.errors import RequestError
from poolwise.models import family
from poolwise.models.chain import create, running_norm
from poolwise.models.cost import sized
from poolwise.models.supernet import plain_model
from poolwise.rng import Streams
from poolwise.sanitize import reading
from poolwise.selection.picks import picks_of
from poolwise.spaces import Pooling
from poolwise.storage import RunFolder
from poolwise.storage.schemas import RetrainFile
from poolwise.training.trials import weights_name


@dataclass(frozen=True)
class Exported:
    """A file that ``export`` wrote.

    Attributes:
        path: The file.
        pooling: The exported configuration.
        seed: Seed of its training.
        accuracy: Test accuracy, 0 to 1.
        max_difference: For ONNX, the largest difference between the logits of onnxruntime and torch, in standard
            deviations of the logits; None for other formats.
    """

    path: Path
    pooling: str
    seed: int
    accuracy: float
    max_difference: float | None = None

    def __str__(self) -> str:
        if self.max_difference is None:
            return f"{self.path}: {self.pooling}, seed {self.seed}, test accuracy {100 * self.accuracy:.2f} %"
        return (
            f"{self.path}: {self.pooling}, seed {self.seed}, dynamic batch; onnxruntime differs from torch by"
            f" {self.max_difference:.1e} of the logits' spread"
        )


def network(
    model: str, pooling: Pooling | str, *, width: int | None = None, classes: int = 10, seed: int = 0
) -> nn.Module:
    """Build a configuration with fresh weights, as stand-alone training does.

    Returns:
        A plain ``nn.Sequential`` for a family of this library; for a network from another library, that network with
        its downsamplings moved.
    """
    known = sized(model, width)
    arguments: dict[str, Any] = {"classes": classes, "width": width or known.width, "norm": running_norm}
    return plain_model(create(known.build, Streams(seed).torch("init"), **arguments), pooling)


def model(folder: str | Path, pooling: Pooling | str, seed: int = 1) -> nn.Module:
    """Load a retrained configuration as a plain module (see ``network``) in evaluation mode, on the CPU."""
    plain, _ = _load_trained(RunFolder.open(Path(folder)), pooling, seed)
    return plain


@overload
def export(
    run: str | Path, to: str | Path, *, pooling: Pooling | str = "best", seed: int = 1
) -> Exported: ...  # pragma: no cover


@overload
def export(
    run: nn.Module, to: Pooling | str | None = None, operator: str | None = None, *, pooling: Pooling | str = ...
) -> nn.Module: ...  # pragma: no cover


def export(
    run: str | Path | nn.Module,
    to: str | Path | Pooling | None = None,
    operator: str | None = None,
    *,
    pooling: Pooling | str = "best",
    seed: int = 1,
) -> Exported | nn.Module:
    """Write a retrained configuration to a file.

    Deprecated: passing a network and a configuration (and an ``operator``), which calls ``poolwise.plain_model``.

    Args:
        run: Run folder.
        to: File name that ends with ``.safetensors`` or ``.onnx``.
        pooling: A retrained configuration, or ``best``, ``cheap`` (the best with at most the default's MACs) or
            ``default``.
        operator: Deprecated; only with a network as ``run``.
        seed: Seed of its training.

    Raises:
        RequestError: The configuration was not retrained, the file exists, or a package is missing. Nothing is written.
    """
    if isinstance(run, nn.Module):
        _warn("poolwise.export(network, pooling) is now poolwise.plain_model(network, pooling)")
        return plain_model(run, pooling if to is None else str(to), operator)
    suffix = exports.check_path(str(to))
    trained = _find_trained(run, pooling, seed)
    path, about = Path(str(to)), trained.about
    if suffix == ".onnx":
        difference = exports.write_onnx(trained, path)
        return Exported(path, about["pooling"], seed, about["accuracy"], difference)
    exports.write_safetensors(trained, path)
    return Exported(path, about["pooling"], seed, about["accuracy"])


def python_code(run: str | Path, *, pooling: Pooling | str = "best", seed: int = 1) -> str:
    """Return Python code that builds a retrained configuration and loads its weights; see ``export``."""
    return exports.python_code(_find_trained(run, pooling, seed))


def hand_over(folder: str | Path, to: str | Path, *, pooling: Pooling | str = "best", seed: int = 1) -> str:
    """Export a retrained configuration (deprecated: call ``export`` or ``python_code``)."""
    _warn("poolwise.hand_over is now poolwise.export, and poolwise.python_code for Python code")
    if str(to) == "python":
        return python_code(folder, pooling=pooling, seed=seed)
    return str(export(folder, to, pooling=pooling, seed=seed))


def _warn(message: str) -> None:
    """Issue a DeprecationWarning to the caller of the public function."""
    warnings.warn(f"{message}; this form will be removed in the next release", DeprecationWarning, stacklevel=3)


def _load_trained(opened: RunFolder, pooling: Pooling | str, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """Load a retrained configuration and the record of its training."""
    request, name = opened.request(), str(Pooling.parse(str(pooling)))
    config = Config.from_flat(request["settings"])
    steps = opened.read(RetrainFile.FILE, f"retrain it first, poolwise retrain {opened.path}")["steps"]
    loaded = opened.load_checkpoint(weights_name(name, seed, steps))
    trials = opened.trials().all()
    if loaded is None:
        done = sorted({f"{trial['pooling']} (seed {trial['seed']})" for trial in trials})
        raise RequestError(
            f"{opened.path} has no retrained {pooling}, seed {seed}: available are {', '.join(done) or 'none'}"
        )
    trial = next((t for t in trials if (t["pooling"], t["seed"], t["budget"]) == (name, seed, steps)), None)
    if trial is None:
        raise RequestError(
            f"{opened.path}/trials.sqlite does not contain {name}, seed {seed}: to train it again, use poolwise retrain"
            f" {opened.path} with another number of --retrain-seeds"
        )
    with reading(f"{opened.path}: the checkpoint of {name}, seed {seed},", "retrain it"):
        plain = network(config.model.name, name, width=config.model.width, classes=len(request["data"]["classes"]))
        plain.load_state_dict(loaded[0])
    return plain.eval(), trial


def _find_trained(run: str | Path, pooling: Pooling | str, seed: int) -> exports.Trained:
    """Load the retrained configuration that ``pooling`` names, with the information needed to use it."""
    opened = RunFolder.open(Path(run))
    picks = picks_of(opened)
    named = {"best": picks.best, "cheap": picks.best_at_default_macs, "default": picks.default}
    name = named.get(str(pooling), str(pooling))
    plain, trial = _load_trained(opened, name, seed)
    request = opened.request()
    config, data = Config.from_flat(request["settings"]), request["data"]
    about = {
        "model": config.model.name,
        "pooling": name,
        "width": config.model.width or family(config.model.name).width,
        "classes": data["classes"],
        "image_size": data["image_size"],
        "mean": data.get("mean"),
        "std": data.get("std"),
        "seed": seed,
        "steps": trial["budget"],
        "accuracy": trial["accuracy"],
    }
    return exports.Trained(plain, about)
