"""The Python face: each function is one command.

    import poolwise
    result = poolwise.run(poolwise.preset("demo"), "runs/demo")

``search``, ``rank``, ``retrain`` and ``report`` are the stages of ``run``; each reads what the stage before it wrote
into the run folder, and ``resume`` goes on with whatever was asked for and is not done.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from poolwise import planning, workers
from poolwise.errors import RequestError
from poolwise.images.sources import Source
from poolwise.networks import family
from poolwise.networks.chain import batch_norm, create, running_norm
from poolwise.networks.cost import Cost, CostModel
from poolwise.networks.switch import export
from poolwise.planning import Plan
from poolwise.problem import Problem
from poolwise.progress import Listener
from poolwise.rng import Streams
from poolwise.runs import RunFolder, Trials, command_line, environment
from poolwise.searching import loop, ranking, samplers
from poolwise.settings import Settings
from poolwise.space import Pooling
from poolwise.truth import standalone

STAGES = ("search", "rank", "retrain", "report")
# what shows that a stage needs no more work; a finished search is restored in no time until it is ranked
_OUTPUTS = {"search": "ranking.json", "rank": "ranking.json", "retrain": "retrain.json", "report": "report.html"}
_RETRAIN_SETTINGS = ("top", "retrain_seeds", "retrain_epochs", "retrain_steps")


def costs(
    model: str = "resnet20", *, width: int | None = None, image_size: int = 32, classes: int = 10
) -> dict[Pooling, Cost]:
    """Costs of every configuration of a family, in the order of its space, before any training."""
    known = family(model)
    arguments = {"classes": classes, "width": width or known.width, "norm": batch_norm}
    chain = create(known.build, Streams(0).torch("cost"), **arguments)
    price = CostModel(chain, image_size, known.default)
    return {pooling: price(pooling) for pooling in known.space}


def search(
    settings: Settings, out: str | Path, *, source: Source | None = None, listener: Listener | None = None
) -> RunFolder:
    """Train the mixture and keep it in the run folder ``out``."""
    return _begin(settings, out, ["search"], source, listener)


def run(
    settings: Settings, out: str | Path, *, source: Source | None = None, listener: Listener | None = None
) -> dict[str, Any]:
    """Search, rank, retrain and report in one go; returns the content of ``retrain.json``."""
    folder = _begin(settings, out, list(STAGES), source, listener)
    return folder.read("retrain.json", "")


def rank(folder: str | Path, *, source: Source | None = None, listener: Listener | None = None) -> dict[str, Any]:
    """Score every configuration with a finished search; returns the content of ``ranking.json``."""
    opened = RunFolder.open(Path(folder))
    _ask_for(opened, "rank")
    return _stage_by_stage(opened, ["rank"], source, listener).read("ranking.json", "")


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
    problem = _problem(opened, source, settings)  # a wrong request is told before anything is touched
    if settings.to_json() != request["settings"] or not opened.has("retrain.json"):
        for name in ("retrain.json", "report.html"):  # what they say is no longer what was asked for
            (opened.path / name).unlink(missing_ok=True)
    opened.save_request({**request, "settings": settings.to_json()})
    _ask_for(opened, "retrain")
    stages = [stage for stage in STAGES[2:] if stage in opened.request()["stages"]]
    return _stage_by_stage(opened, stages, source, listener, problem).read("retrain.json", "")


def changed(settings: Settings, changes: dict[str, int | None]) -> Settings:
    """Settings with another retraining. RequestError for a change that retraining cannot make."""
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    unknown = sorted(set(given) - set(_RETRAIN_SETTINGS))
    if unknown:
        raise RequestError(f"retrain cannot change {unknown[0]!r}: {', '.join(_RETRAIN_SETTINGS)} can be changed")
    if "retrain_epochs" in given and "retrain_steps" not in given:
        given["retrain_steps"] = None
    return dataclasses.replace(settings, **given)


def report(folder: str | Path) -> Path:
    """Write ``figures/`` and the self-contained page ``report.html`` from the files of a run; returns its path."""
    from poolwise.reporting import page

    opened = RunFolder.open(Path(folder))
    path = page.write(opened)
    _ask_for(opened, "report")  # so that a later retraining renews it
    return path


def resume(folder: str | Path, *, source: Source | None = None, listener: Listener | None = None) -> RunFolder:
    """Go on with everything that was asked of the run and is not done yet."""
    opened = RunFolder.open(Path(folder))
    return _stage_by_stage(opened, opened.request()["stages"], source, listener)


def model(folder: str | Path, pooling: Pooling | str, seed: int = 1) -> torch.nn.Sequential:
    """A retrained configuration as a plain ``nn.Sequential`` in evaluation mode, on the CPU."""
    opened = RunFolder.open(Path(folder))
    request = opened.request()
    settings = Settings.from_json(request["settings"])
    known = family(settings.model)
    steps = opened.read("retrain.json", f"retrain it first, poolwise retrain {folder}")["steps"]
    loaded = opened.load_checkpoint(standalone.weights_name(str(Pooling.parse(str(pooling))), seed, steps))
    if loaded is None:
        done = sorted({f"{trial['pooling']} (seed {trial['seed']})" for trial in Trials(opened).all()})
        raise RequestError(f"{folder} has no retrained {pooling}, seed {seed}: there are {', '.join(done) or 'none'}")
    arguments = {
        "classes": len(request["data"]["classes"]),
        "width": settings.width or known.width,
        "norm": running_norm,
    }
    plain = export(create(known.build, Streams(0).torch("init"), **arguments), pooling)
    plain.load_state_dict(loaded[0])
    return plain.eval()


def plan(settings: Settings, stages: Sequence[str] = STAGES, *, source: Source | None = None) -> Plan:
    """Steps, multiply-adds, time, memory and disk that ``stages`` would take on this machine, without doing them."""
    problem = Problem(settings, source)
    problem.parallel = workers.measured(problem, problem.rough_seconds)
    return planning.plan(problem, stages)


def fit(
    settings: Settings,
    seconds: float,
    stages: Sequence[str] = STAGES,
    kept: Iterable[str] = (),
    *,
    source: Source | None = None,
) -> Settings:
    """Settings with steps, M and images that fit the time on this machine; those named in ``kept`` stay."""
    return planning.fit(settings, seconds, stages, kept, source)


def _begin(
    settings: Settings, out: str | Path, stages: list[str], source: Source | None, listener: Listener | None
) -> RunFolder:
    if settings.data.startswith("folder:"):  # a run is resumed from anywhere
        path = Path(settings.data.removeprefix("folder:")).expanduser().absolute()
        settings = dataclasses.replace(settings, data=f"folder:{path}")
    settings = samplers.settled(settings)
    problem = Problem(settings, source)
    problem.search_steps  # noqa: B018 (a wrong length is told before anything is measured)
    problem.parallel = workers.measured(problem, problem.rough_seconds)
    planned = planning.plan(problem, stages)
    planning.check_memory(planned, problem)
    request = {
        "commands": [command_line()],
        "settings": settings.to_json(),
        "stages": stages,
        "space": problem.space.to_json(),
        "default": str(problem.default),
        "data": problem.describe_data(),
        "calibration": problem.describe_choices(),
        "plan": planned.to_json(),
        **environment(),
    }
    folder = RunFolder.create(Path(out), request)
    return _stage_by_stage(folder, stages, source, listener, problem)


def _ask_for(folder: RunFolder, stage: str) -> None:
    request = folder.request()
    commands, command = request["commands"], command_line()
    if stage not in request["stages"]:
        request["stages"] = [*request["stages"], stage]
    folder.save_request({**request, "commands": commands if command in commands else [*commands, command]})


def _stage_by_stage(
    folder: RunFolder,
    stages: list[str],
    source: Source | None,
    listener: Listener | None,
    problem: Problem | None = None,
) -> RunFolder:
    """Do the stages that are not done, in order, with the choices that the run has already made."""
    listener = listener or Listener()
    left = [stage for stage in stages if not folder.has(_OUTPUTS[stage])]
    if any(stage != "report" for stage in left):
        problem = problem or _problem(folder, source)
        planned = planning.plan(problem, left)
        for line in planned.lines():
            listener.note(line)
        listener.expect({stage.name: stage.seconds for stage in planned.stages})
    for stage in left:
        if stage == "report":
            report(folder.path)
            continue
        assert problem is not None
        if stage == "retrain":  # by now it is known what will be trained
            known = standalone.roles_of(folder.read("ranking.json", ""), problem.settings.top)
            trainings = [(Pooling.parse(pooling), problem.settings.retrain_seeds) for pooling in known]
            planned = planning.plan(problem, ["retrain"], trainings)
            listener.expect({"retrain": planned.seconds})
        begin = time.monotonic()
        work = {"search": loop.search, "rank": ranking.rank, "retrain": standalone.retrain}[stage]
        work(problem, folder, listener)
        seconds = round(time.monotonic() - begin, 1)
        folder.log({"event": "stage", "stage": stage, "planned": planned.of(stage), "seconds": seconds})
    return folder


def _problem(folder: RunFolder, source: Source | None, settings: Settings | None = None) -> Problem:
    """What a run is about, with the choices it has made; RequestError where its images have changed since."""
    request = folder.request()
    settings = settings or Settings.from_json(request["settings"])
    problem = Problem(settings, source, request["calibration"])
    found, expected = problem.source.fingerprint(), request["data"]["fingerprint"]
    if found != expected:
        raise RequestError(
            f"the images of {problem.source.name} are not those that the run began with (fingerprint {found[:12]}, was"
            f" {expected[:12]}): put them back or start a new run"
        )
    return problem
