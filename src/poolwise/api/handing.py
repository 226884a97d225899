"""Hand over: networks, fresh or retrained, and files of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from poolwise import handing, standalone
from poolwise.errors import RequestError
from poolwise.networks import family
from poolwise.networks.chain import create, running_norm
from poolwise.networks.cost import sized
from poolwise.networks.switch import export
from poolwise.rankings import ranking
from poolwise.rng import Streams
from poolwise.sanitize import reading
from poolwise.settings import Settings
from poolwise.space import Pooling
from poolwise.storage import RunFolder


def network(
    model: str, pooling: Pooling | str, *, width: int | None = None, classes: int = 10, seed: int = 0
) -> torch.nn.Module:
    """A configuration with fresh weights, as it is trained stand-alone.

    A plain ``nn.Sequential`` of a family; of any other network (``networks.others``) that network, its downsamplings moved.
    """
    known = sized(model, width)
    arguments: dict[str, Any] = {"classes": classes, "width": width or known.width, "norm": running_norm}
    return export(create(known.build, Streams(seed).torch("init"), **arguments), pooling)


def model(folder: str | Path, pooling: Pooling | str, seed: int = 1) -> torch.nn.Module:
    """A retrained configuration as a plain module (see ``network``) in evaluation mode, on the CPU."""
    plain, _ = _trained(RunFolder.open(Path(folder)), pooling, seed)
    return plain


def _trained(opened: RunFolder, pooling: Pooling | str, seed: int) -> tuple[torch.nn.Module, dict[str, Any]]:
    """A retrained configuration, and what its trial was."""
    request, name = opened.request(), str(Pooling.parse(str(pooling)))
    settings = Settings.from_json(request["settings"])
    steps = opened.read("retrain.json", f"retrain it first, poolwise retrain {opened.path}")["steps"]
    loaded = opened.load_checkpoint(standalone.weights_name(name, seed, steps))
    trials = opened.trials().all()
    if loaded is None:
        done = sorted({f"{trial['pooling']} (seed {trial['seed']})" for trial in trials})
        raise RequestError(
            f"{opened.path} has no retrained {pooling}, seed {seed}: there are {', '.join(done) or 'none'}"
        )
    trial = next((t for t in trials if (t["pooling"], t["seed"], t["budget"]) == (name, seed, steps)), None)
    if trial is None:
        raise RequestError(
            f"{opened.path}/trials.sqlite no longer holds {name}, seed {seed}: poolwise retrain {opened.path} with another"
            " number of --retrain-seeds trains it again"
        )
    with reading(f"what {opened.path} keeps of {name}, seed {seed},", "retrain it"):
        plain = network(settings.model, name, width=settings.width, classes=len(request["data"]["classes"]))
        plain.load_state_dict(loaded[0])
    return plain.eval(), trial


def hand_over(folder: str | Path, to: str | Path, *, pooling: Pooling | str = "best", seed: int = 1) -> str:
    """A retrained configuration as a file, or as Python; returns what is to be told.

    Args:
        to: a file that ends with ``.safetensors`` or ``.onnx``, or ``python`` for the lines that build the network.
        pooling: one that was retrained; ``best``, ``cheap`` (best at no more than the default's MACs) or ``default``.
        seed: of its training.

    Raises RequestError where it was not retrained, the file exists, or a package is missing; nothing is written then.
    """
    opened, kind = RunFolder.open(Path(folder)), handing.kind_of(str(to))
    value = opened.read(ranking.OUTPUT, f"rank it first, poolwise rank {folder}")
    roles = {"best": value["picks"]["best"], "cheap": value["picks"]["best_at_default_macs"]}
    name = {**roles, "default": value["default"]}.get(str(pooling), str(pooling))
    plain, trial = _trained(opened, name, seed)
    request = opened.request()
    settings, data = Settings.from_json(request["settings"]), request["data"]
    about = {
        "model": settings.model,
        "pooling": name,
        "width": settings.width or family(settings.model).width,
        "classes": data["classes"],
        "image_size": data["image_size"],
        "mean": data.get("mean"),
        "std": data.get("std"),
        "seed": seed,
        "steps": trial["budget"],
        "accuracy": trial["accuracy"],
    }
    trained = handing.Trained(plain, about)
    if kind == "python":
        return handing.python(trained)
    if kind == ".safetensors":
        handing.save(trained, Path(to))
        return f"{to}: {name}, seed {seed}, test accuracy {100 * trial['accuracy']:.2f} %"
    difference = handing.to_onnx(trained, Path(to))
    return f"{to}: {name}, seed {seed}, dynamic batch; onnxruntime differs from torch by {difference:.1e} of the logits' spread"
