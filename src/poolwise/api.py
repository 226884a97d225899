"""The Python face: each function is one command.

    import poolwise
    result = poolwise.run(poolwise.preset("demo"), "runs/demo")

``search``, ``rank``, ``retrain`` and ``report`` are the stages of ``run``; each reads what the stage before it wrote
into the run folder, and ``resume`` goes on with whatever was asked for and is not done.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from poolwise import handing, planning, stages, suggesting
from poolwise.errors import RequestError
from poolwise.images.sources import Source
from poolwise.metrics.uncertainty import RESAMPLES
from poolwise.networks import family
from poolwise.networks.chain import create, running_norm
from poolwise.networks.cost import Cost, family_costs
from poolwise.networks.others import build, is_other
from poolwise.networks.slots import Slots, slots
from poolwise.networks.switch import export
from poolwise.planning import Plan
from poolwise.problem import Problem
from poolwise.progress import Listener
from poolwise.rng import Streams
from poolwise.runs import RunFolder, Trials, alone
from poolwise.searching import ranked
from poolwise.settings import Settings
from poolwise.space import Pooling
from poolwise.stages import STAGES
from poolwise.suggesting import Guess
from poolwise.truth import standalone, tables

_RETRAIN_SETTINGS = ("top", "retrain_seeds", "retrain_epochs", "retrain_steps")


def costs(
    model: str = "resnet20", *, width: int | None = None, image_size: int = 32, classes: int = 10
) -> dict[Pooling, Cost]:
    """Costs of every configuration of a family, in the order of its space, before any training."""
    return family_costs(model, width, image_size, classes)


def named_slots(model: str, *, width: int | None = None, image_size: int | None = None, classes: int = 10) -> Slots:
    """Where the downsamplings of a network can stand, by name: a family, or ``torchvision:resnet18``, ``timm:resnet26d``.

    ``image_size`` is 32 where it is not given, and 224 for other libraries' networks.
    """
    if is_other(model):
        if width is not None:
            raise RequestError(f"width is of this library's own families and {model} has its own: leave it out")
        return slots(build(model, classes), torch.zeros(2, 3, image_size or 224, image_size or 224))
    plain = network(model, family(model).default, width=width, classes=classes)
    return slots(plain, torch.zeros(2, 3, image_size or 32, image_size or 32))


def suggest(
    model: str = "resnet20",
    *,
    width: int | None = None,
    image_size: int = 32,
    classes: int = 10,
    max_macs: float | None = suggesting.MAX_MACS,
) -> Guess:
    """A guess without any training, within so many times the default's MACs; see ``suggesting.suggest``."""
    return suggesting.suggest(model, width=width, image_size=image_size, classes=classes, max_macs=max_macs)


def search(
    settings: Settings, out: str | Path, *, source: Source | None = None, listener: Listener | None = None
) -> RunFolder:
    """Train the mixture and keep it in the run folder ``out``."""
    folder, problem = stages.create(settings, out, ["search"], source)
    return stages.carry_out(folder, ["search"], source, listener, problem)


def run(
    settings: Settings, out: str | Path, *, source: Source | None = None, listener: Listener | None = None
) -> dict[str, Any]:
    """Search, rank, retrain and report in one go; returns the content of ``retrain.json``."""
    folder, problem = stages.create(settings, out, STAGES, source)
    stages.carry_out(folder, STAGES, source, listener, problem)
    return folder.read("retrain.json", "")


def rank(
    folder: str | Path,
    *,
    fusion: bool | None = None,
    source: Source | None = None,
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Score every configuration with a finished search; returns the content of ``ranking.json``.

    ``fusion`` says whether scores are fused with productive convolutions (None: as the run was asked for). Where the
    run is ranked already, its scores are put in order anew, with the stand-alone trainings that it holds by now, and what
    followed from another order (``retrain.json``, ``report.html``; no training) is dropped.
    """
    opened = RunFolder.open(Path(folder))
    if fusion is not None:
        with alone(opened.path):
            ranked.order_anew(opened, fusion)
    stages.ask_for(opened, "rank")
    return stages.carry_out(opened, ["rank"], source, listener).read(ranked.OUTPUT, "")


def retrain(
    folder: str | Path, *, source: Source | None = None, listener: Listener | None = None, **changes: int | None
) -> dict[str, Any]:
    """Retrain the top of the ranking beside the default; returns the content of ``retrain.json``.

    ``top``, ``retrain_seeds``, ``retrain_epochs`` and ``retrain_steps`` change what the run was asked for; finished
    trainings of the same length are used again.
    """
    opened = RunFolder.open(Path(folder))
    opened.read("ranking.json", f"rank it first, poolwise rank {folder}")
    request = opened.request()
    settings = changed(Settings.from_json(request["settings"]), changes)
    problem = stages.reopened(opened, source, settings)  # a wrong request is told before anything is touched
    if settings != Settings.from_json(request["settings"]) or not opened.has("retrain.json"):
        for name in ("retrain.json", "report.html"):  # what they say is no longer what was asked for
            (opened.path / name).unlink(missing_ok=True)
    opened.save_request({**request, "settings": settings.to_json()})
    stages.ask_for(opened, "retrain")
    left = [stage for stage in STAGES[2:] if stage in opened.request()["stages"]]
    return stages.carry_out(opened, left, source, listener, problem).read("retrain.json", "")


def changed(settings: Settings, changes: dict[str, int | None]) -> Settings:
    """Settings with another retraining. RequestError for a change that retraining cannot make."""
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    unknown = sorted(set(given) - set(_RETRAIN_SETTINGS))
    if unknown:
        raise RequestError(f"retrain cannot change {unknown[0]!r}: {', '.join(_RETRAIN_SETTINGS)} can be changed")
    if "retrain_epochs" in given and "retrain_steps" not in given:
        given["retrain_steps"] = None
    return dataclasses.replace(settings, **given)


def exhaustive(
    settings: Settings,
    out: str | Path,
    *,
    poolings: Sequence[Pooling | str] | None = None,
    retry: bool = False,
    table: str | Path | None = None,
    source: Source | None = None,
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Train every configuration (or the listed ``poolings``) stand-alone; returns the content of ``exhaustive.json``.

    ``retrain_seeds``, ``retrain_epochs`` and ``retrain_steps`` of the settings say how many seeds and how long. On a
    folder that holds the same request it goes on with what is not trained yet (``workers`` may differ); ``retry``
    repeats the trainings that failed. ``table`` is a folder that gets the tabular benchmark, named after the folder.
    Raises RequestError where the folder holds a different request.
    """
    space = family(settings.model).space
    asked = None if poolings is None else [str(space.check(pooling)) for pooling in poolings]
    if asked is not None and (not asked or len(set(asked)) < len(asked)):
        twice = next((name for name in asked if asked.count(name) > 1), None)
        raise RequestError(f"pooling {twice} is listed twice" if twice else "no pooling is listed: list at least one")
    name = None if table is None else tables.check_name(Path(table).absolute().name)
    if name and asked is not None and len(asked) < len(space):
        raise RequestError(f"a table needs all {len(space)} configurations and {len(asked)} are listed")
    path = Path(out)
    if (path / "run.json").exists():
        folder, problem = RunFolder.open(path), None
        _same_request(folder, settings, asked)
    else:
        folder, problem = stages.create(settings, path, ["exhaustive"], source, asked)
    if retry and folder.has("exhaustive.json") and folder.read("exhaustive.json", "")["failed"]:
        (folder.path / "exhaustive.json").unlink()
    value = stages.carry_out(folder, ["exhaustive"], source, listener, problem, retry).read("exhaustive.json", "")
    if table is not None and name:
        tables.write(table, name, value, command="; ".join(folder.request()["commands"]))
    return value


def _same_request(folder: RunFolder, settings: Settings, poolings: list[str] | None) -> None:
    """RequestError where the run was asked for something else; another number of workers is taken over."""
    request, wanted = folder.request(), stages.rooted(settings).to_json()
    kept = Settings.from_json(request["settings"]).to_json()  # a run begun before a setting was there has its default
    if "exhaustive" not in request["stages"]:
        raise RequestError(f"{folder.path} holds a run of another kind: give another --out")
    for name, value in {**wanted, "poolings": poolings}.items():
        had = request.get("poolings") if name == "poolings" else kept.get(name)
        if value != had and name != "workers":
            raise RequestError(
                f"{folder.path} holds another request ({name.removeprefix('retrain_')} {had}, now {value}):"
                f" go on with it (poolwise resume {folder.path}) or give another --out"
            )
    if wanted != request["settings"]:
        folder.save_request({**request, "settings": wanted})


def compare(
    table: str | Path,
    out: str | Path,
    *,
    model: str | None = None,
    columns: Sequence[str] | None = None,
    names: Sequence[str] = ("macs", "productive", "receptive_field"),
    methods: Sequence[str] = (),
    budgets: Sequence[int] = (1500,),
    seeds: Sequence[int] = (0, 1, 2),
    supernets: int = 4,
    recipe: str | None = None,
    machine: dict[str, Any] | None = None,
    resamples: int = RESAMPLES,
    plan: bool = False,
    source: Source | None = None,
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Judge rankings against a table and write csv, json, figures and a page; returns the content of ``compare.json``.

    ``methods`` are trained first, at equal compute (docs/comparison.md); the same call again goes on with what is not done.

    Args:
        table: name or folder of a table, see ``tables.load``.
        methods, budgets, supernets, recipe, machine: what trains, see ``comparing.protocol.Protocol``.
        plan: do nothing and return what would be trained.
        columns: rankings that the table holds (all), as ``supernets4``.
        names: controls; ``naswot`` and ``grad_norm`` need the images that the table was made with, one run a seed.
        source: those images, where they are not the data set that the table names.

    Raises RequestError for an unknown table, one that does not fit ``model``, an empty study, whatever is given twice, and
    a folder that holds a study that contradicts this one.
    """
    from poolwise.comparing import protocol, study
    from poolwise.reporting import comparison

    if len(set(seeds)) < len(seeds) or not seeds:
        raise RequestError(f"seeds {', '.join(map(str, seeds)) or 'none'}: give at least one, each once")
    path = Path(out)
    study.check_out(path)
    truth = tables.load(table)
    protocol.check_out(path, truth)
    known = study.check_model(truth, model)
    trained = None
    if methods:
        arguments: dict[str, Any] = {"supernets": supernets, "recipe": recipe, "machine": machine, "source": source}
        trained = protocol.Protocol(truth, known, methods, budgets, seeds, path, **arguments)
    elif plan:
        raise RequestError("nothing to train, so nothing to plan: name --methods")
    problem = trained.problem if trained else None
    if source is not None and problem is None:
        problem = Problem(study.settings_of(truth, known), source)
    entries = study.column_entries(truth, columns)
    if trained and plan:
        study.check_controls(names)
        return trained.plan()
    entries += study.control_entries(truth, known, names, seeds, problem)
    told, failed = trained.run(listener or Listener()) if trained else ([], [])
    value = study.study([*told, *entries], truth, known, resamples, failed)
    study.write(value, path)
    comparison.write(value, path)
    return value


def report(folder: str | Path) -> Path:
    """Write ``figures/`` and the self-contained page ``report.html`` from the files of a run; returns its path."""
    from poolwise.reporting import page

    opened = RunFolder.open(Path(folder))
    path = page.write(opened)
    stages.ask_for(opened, "report")  # so that a later retraining renews it
    return path


def resume(folder: str | Path, *, source: Source | None = None, listener: Listener | None = None) -> RunFolder:
    """Go on with everything that was asked of the run and is not done yet."""
    opened = RunFolder.open(Path(folder))
    return stages.carry_out(opened, opened.request()["stages"], source, listener)


def network(
    model: str, pooling: Pooling | str, *, width: int | None = None, classes: int = 10, seed: int = 0
) -> torch.nn.Sequential:
    """A configuration of a family as a plain ``nn.Sequential`` with fresh weights, as it is trained stand-alone."""
    known = family(model)
    arguments: dict[str, Any] = {"classes": classes, "width": width or known.width, "norm": running_norm}
    return export(create(known.build, Streams(seed).torch("init"), **arguments), pooling)


def model(folder: str | Path, pooling: Pooling | str, seed: int = 1) -> torch.nn.Sequential:
    """A retrained configuration as a plain ``nn.Sequential`` in evaluation mode, on the CPU."""
    plain, _ = _trained(RunFolder.open(Path(folder)), pooling, seed)
    return plain


def _trained(opened: RunFolder, pooling: Pooling | str, seed: int) -> tuple[torch.nn.Sequential, dict[str, Any]]:
    """A retrained configuration, and what its trial was."""
    request, name = opened.request(), str(Pooling.parse(str(pooling)))
    settings = Settings.from_json(request["settings"])
    steps = opened.read("retrain.json", f"retrain it first, poolwise retrain {opened.path}")["steps"]
    loaded = opened.load_checkpoint(standalone.weights_name(name, seed, steps))
    trials = Trials(opened).all()
    if loaded is None:
        done = sorted({f"{trial['pooling']} (seed {trial['seed']})" for trial in trials})
        raise RequestError(
            f"{opened.path} has no retrained {pooling}, seed {seed}: there are {', '.join(done) or 'none'}"
        )
    plain = network(settings.model, name, width=settings.width, classes=len(request["data"]["classes"]))
    plain.load_state_dict(loaded[0])
    trial = next(t for t in trials if (t["pooling"], t["seed"], t["budget"]) == (name, seed, steps))
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
    ranking = opened.read(ranked.OUTPUT, f"rank it first, poolwise rank {folder}")
    roles = {"best": ranking["picks"]["best"], "cheap": ranking["picks"]["best_at_default_macs"]}
    name = {**roles, "default": ranking["default"]}.get(str(pooling), str(pooling))
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


def plan(
    settings: Settings,
    asked: Sequence[str] = STAGES,
    *,
    poolings: Sequence[Pooling | str] | None = None,
    source: Source | None = None,
) -> Plan:
    """Steps, multiply-adds, time, memory and disk that these stages would take on this machine, without doing them.

    ``poolings`` are those of an ``exhaustive`` stage (None: all).
    """
    if "exhaustive" in asked:
        space = family(settings.model).space
        listed = None if poolings is None else [str(space.check(pooling)) for pooling in poolings]
        return stages.plan_exhaustive(settings, listed, source)
    return planning.plan(stages.measured(settings, source), asked)


def plan_left(folder: str | Path, *, source: Source | None = None) -> Plan | None:
    """What ``resume`` would still do, without doing it; None where nothing is left to train or rank."""
    return stages.plan_left(RunFolder.open(Path(folder)), source)


def fit(
    settings: Settings,
    seconds: float,
    asked: Sequence[str] = STAGES,
    kept: Iterable[str] = (),
    *,
    source: Source | None = None,
) -> Settings:
    """Settings with steps, M and images that fit the time on this machine; those named in ``kept`` stay."""
    return planning.fit(settings, seconds, asked, kept, source)
