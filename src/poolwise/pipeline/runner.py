"""Create a run, carry out its stages, and go on with what is left of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from poolwise.config import Config
from poolwise.datasets.augment import named
from poolwise.datasets.sources import Source
from poolwise.errors import RequestError
from poolwise.experiment import Experiment, requested_space, resolve
from poolwise.models import weights
from poolwise.models.external import networks
from poolwise.pipeline import autotuning, estimates, graph, reorder
from poolwise.pipeline.estimates import Plan
from poolwise.pipeline.graph import Work
from poolwise.progress import Listener
from poolwise.selection.picks import picks_of
from poolwise.spaces import LISTED, Pooling, PoolingSpace
from poolwise.storage import RunFolder, alone, changes, command_line, environment
from poolwise.training.calibration import Timing


def rooted(config: Config) -> Config:
    """Settings whose files (images, a network, weights) have absolute paths, so that a run is resumed from anywhere."""
    config = config.replace(model=networks.rooted(config.model.name))
    if config.data.source.startswith("folder:"):
        path = Path(config.data.source.removeprefix("folder:")).expanduser().absolute()
        config = config.replace(data=f"folder:{path}")
    if config.model.weights is not None and not weights.is_named(config.model.weights):
        config = config.replace(weights=str(Path(config.model.weights).expanduser().absolute()))
    return config


def create(
    config: Config,
    out: str | Path,
    stages: Sequence[str],
    source: Source | None,
    poolings: Sequence[str] | None = None,
    listener: Listener | None = None,
) -> tuple[RunFolder, Experiment, Plan]:
    """Create a run folder that holds the request; return it with the experiment and the plan of its stages.

    Args:
        settings: the request.
        out: the folder to create.
        stages: what is to be done.
        source: a loaded data set; by default the one that the settings name is loaded.
        poolings: the configurations of an exhaustive run (None: all).
        listener: receives a line for what takes time.

    Raises:
        RequestError: the request is wrong or does not fit this machine.
    """
    RunFolder.check_free(Path(out))
    if config.limits.only is not None and any(limit is not None for limit in config.limits.active().values()):
        raise RequestError("only lists what may be picked and limits choose it by cost: leave one of them out")
    config = rooted(config)
    if "search" in stages:
        _check_choice(config)
    alone = "exhaustive" in stages
    problem, found = autotuning.prepare(config, source, _count(config, poolings) if alone else None, listener)
    trainings = _all_trainings(problem, poolings) if alone else None
    planned = estimates.plan(problem, stages, trainings, autotuning.quick_timing(problem))
    estimates.check_memory(planned, problem)
    request = {
        "commands": [command_line()],
        "settings": problem.config.to_flat(),
        "stages": list(stages),
        "space": problem.space.to_json(),
        "default": str(problem.default),
        "data": problem.describe_data(),
        **problem.describe_weights(),
        "calibration": problem.describe_choices(),
        "plan": planned.to_json(),
        **({"poolings": poolings} if alone else {}),
        **({"limits": found.to_json()} if found else {}),
        **environment(),
    }
    return RunFolder.create(Path(out), request), problem, planned


def _check_choice(config: Config) -> None:
    """RequestError where a network can be downsampled in one way alone."""
    space = requested_space(config).whole
    if space.size < 2:
        raise RequestError(
            f"{config.model.name} has only one placement of {space.poolings} downsamplings in {space.layers} layers, so there is"
            f" nothing to search: also allow another number, --poolings {max(space.poolings - 1, 0)},{space.poolings}"
        )


def request_stage(folder: RunFolder, name: str, request: dict[str, Any] | None = None, *, renew: bool = False) -> None:
    """Add a stage to the request of a run.

    Args:
        folder: the run.
        name: of the stage.
        request: the new content of ``run.json``; by default the stage is all that changes.
        renew: do the stage again. Its results and what follows from them are removed in the same step.
    """
    request = request or folder.request()
    commands, command = request["commands"], command_line()
    if name not in request["stages"]:
        request["stages"] = graph.ordered([*request["stages"], name])
    commands = commands if command in commands else [*commands, command]
    drop = graph.existing(folder, graph.invalidated(name)) if renew else ()
    folder.save_request({**request, "commands": commands}, drop)


def reopened(
    folder: RunFolder, source: Source | None, config: Config | None = None, listener: Listener | None = None
) -> Experiment:
    """Return the experiment of a run with the choices that it has made. RequestError where its images have changed."""
    request = folder.request()
    config = config or Config.from_flat(request["settings"])
    problem = resolve(config, source, request["calibration"], listener=listener)
    found, expected = problem.source.fingerprint(), request["data"]["fingerprint"]
    if found != expected:
        raise RequestError(
            f"the images of {problem.source.name} are not those that the run began with (fingerprint {found[:12]}, was"
            f" {expected[:12]}): put them back or start a new run"
        )
    begun, recorded = problem.weights.sha256 if problem.weights else "", request.get("weights", {}).get("sha256", "")
    if begun != recorded:
        raise RequestError(
            f"weights {config.model.weights} are not those that the run began with (SHA-256 {begun[:12]}, was"
            f" {recorded[:12]}): restore them or start a new run"
        )
    transform = problem.source.augment
    now, then = named(transform) if transform else None, request["data"].get("augment")
    if now != then:
        raise RequestError(
            f"the run began with the transform {then or 'none'} and the data set brings {now or 'none'}: give it as source="
            " with the transform that it began with"
        )
    return problem


def carry_out(
    folder: RunFolder,
    names: Sequence[str],
    source: Source | None,
    listener: Listener | None,
    problem: Experiment | None = None,
    retry: bool = False,
    planned: Plan | None = None,
) -> RunFolder:
    """Carry out the stages that are not done, in order, with the choices that the run has already made.

    Args:
        folder: the run.
        names: of the stages.
        source: images, where they are not named in the request.
        listener: hears of the progress.
        problem: what the run is about, where it is at hand already.
        retry: repeat stand-alone trainings that failed.
        planned: the plan that ``create`` returned beside it; by default it is made from quick timings.
    """
    listener = listener or Listener()
    with alone(folder.path):
        _mend(folder, listener)
        left = graph.left(folder, names)
        if any(name != "report" for name in left):
            problem = problem or reopened(folder, source, listener=listener)
            if planned is None:
                planned = _planned(folder, problem, left, autotuning.quick_timing(problem))
                estimates.check_memory(planned, problem)
            for line in planned.lines():
                listener.note(line)
        work = Work(folder, problem, listener, retry)
        for name in left:
            graph.remove(folder, graph.invalidated(name))  # no result may outlast what it follows from
            if name == "report":
                graph.stage(name).run(work)
                continue
            assert work.experiment is not None
            assert planned is not None
            if name == "retrain" and name != left[0]:  # by now it is known what will be trained
                planned = _planned(folder, work.experiment, [name], planned.timing)
            with _timed(work, name, planned):
                graph.stage(name).run(work)
            if reorder.finish(folder):  # a request that waited for the ranking
                work.experiment = reopened(folder, work.experiment.source, listener=listener)
        return folder


@contextmanager
def _timed(work: Work, name: str, plan: Plan) -> Iterator[None]:
    """Log how long a stage took beside how long it was planned to take (null where nothing was timed)."""
    planned: float | None = None
    for part in ("search", "short") if name == "search" else (name,):  # proxy trainings are part of the search
        seconds = plan.of(part)
        if seconds is not None:
            planned = (planned or 0.0) + seconds
            work.listener.expect(part, seconds)
    start = time.monotonic()
    yield
    took = round(time.monotonic() - start, 1)
    work.folder.log({"event": "stage", "stage": name, "planned": planned, "seconds": took})


def _mend(folder: RunFolder, listener: Listener) -> None:
    """Put a folder in order before anything is done in it.

    Damaged files are put back from their copies or made again, what a killed process had started is finished, and results
    that do not follow from what the run holds are removed.
    """
    if folder.adopt():
        listener.note(f"{folder.path} has no manifest.json: its files are taken as they are")
    lost = folder.repair(listener.note)
    folder.settle()
    graph.remove(folder, graph.unusable(lost))
    reorder.finish(folder)
    graph.remove(folder, graph.misfits(folder))
    if found := changes(folder.request()):
        listener.note(
            f"this run began on another machine or version ({'; '.join(found)}): last bits of results may differ"
        )


def _planned(folder: RunFolder, problem: Experiment, names: Sequence[str], timing: Timing | None) -> Plan:
    """Return the plan by what is known by now: once the picks are final, which configurations are retrained."""
    trainings = None
    if "exhaustive" in names:
        trainings = _all_trainings(problem, folder.request()["poolings"])
    elif "retrain" in names and folder.has("ranking.json") and "refine" not in names:
        roles = picks_of(folder, problem.config).roles
        trainings = [(Pooling.parse(pooling), problem.config.retrain.seeds) for pooling in roles]
    return estimates.plan(problem, names, trainings, timing)


def _all_trainings(problem: Experiment, poolings: Sequence[str] | None) -> list[tuple[Pooling, int]]:
    return [(pooling, problem.config.retrain.seeds) for pooling in graph.members_of(problem, poolings)]


def _count(config: Config, poolings: Sequence[str] | None) -> int:
    return config.retrain.seeds * (_everything(config).size if poolings is None else len(poolings))


def _everything(config: Config) -> PoolingSpace:
    """What an exhaustive run trains. RequestError where that is too much to be meant."""
    space = requested_space(config)
    if space.size > LISTED:
        raise RequestError(
            f"exhaustive trains every configuration and there are {space.size:,}, above {LISTED:,}: draw some with"
            " --max-configs, or list them with --configs"
        )
    return space


def plan_left(folder: RunFolder, source: Source | None = None) -> Plan | None:
    """Return the plan of what is left of a run; None where that is nothing but the report."""
    left = [name for name in graph.left(folder, folder.request()["stages"]) if name != "report"]
    if not left:
        return None
    experiment = reopened(folder, source)
    return _planned(folder, experiment, left, autotuning.timing(experiment))


def plan_exhaustive(config: Config, poolings: Sequence[str] | None, source: Source | None = None) -> Plan:
    """What training the listed configurations (None: all) takes, without doing it."""
    experiment, _ = autotuning.prepare(config, source, _count(config, poolings))
    trainings = _all_trainings(experiment, poolings)
    return estimates.plan(experiment, ["exhaustive"], trainings, autotuning.timing(experiment))
