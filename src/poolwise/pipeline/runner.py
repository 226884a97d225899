"""The stages of a run, one after the other: what is asked for, what is left to do, and doing it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from poolwise import autotuning, planning, refining
from poolwise.calibration import Timing
from poolwise.errors import RequestError
from poolwise.experiment import Experiment, requested_space, resolve
from poolwise.images.augment import named
from poolwise.images.sources import Source
from poolwise.networks import others, weights
from poolwise.planning import Plan
from poolwise.progress import Listener
from poolwise.rankings import proxy_training, ranking, scoring
from poolwise.settings import Settings
from poolwise.space import LISTED, Pooling, PoolingSpace
from poolwise.storage import RunFolder, alone, changes, command_line, environment
from poolwise.supernets import trainer
from poolwise.supernets.state import CHECKPOINT, SearchState
from poolwise.truth import retraining
from poolwise.truth.exhaustive import exhaustive

STAGES = ("search", "rank", "retrain", "report")
ORDER = ("search", "rank", "refine", "retrain", "report", "exhaustive")  # whenever each was asked for
# what shows that a stage needs no more work; a finished search is restored in no time until it is ranked
_OUTPUTS = {
    "search": "ranking.json",
    "rank": "ranking.json",
    "refine": "refine.json",
    "retrain": "retrain.json",
    "report": "report.html",
    "exhaustive": "exhaustive.json",
}


_WORK = {"refine": refining.refine, "retrain": retraining.retrain}


def _search(experiment: Experiment, folder: RunFolder, listener: Listener) -> SearchState:
    """Train the SuperNets, then every configuration alone for a few steps where the settings say so."""
    state = SearchState.open(experiment, folder)
    trainer.train(state, folder, listener)
    proxy_training.train(experiment, folder, listener)
    return state


def rooted(settings: Settings) -> Settings:
    """Settings whose files (images, a network, weights) have absolute paths, so that a run is resumed from anywhere."""
    settings = dataclasses.replace(settings, model=others.rooted(settings.model))
    if settings.data.startswith("folder:"):
        path = Path(settings.data.removeprefix("folder:")).expanduser().absolute()
        settings = dataclasses.replace(settings, data=f"folder:{path}")
    if settings.weights is not None and not weights.is_named(settings.weights):
        settings = dataclasses.replace(settings, weights=str(Path(settings.weights).expanduser().absolute()))
    return settings


def create(
    settings: Settings,
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
    settings = rooted(settings)
    if "search" in stages:
        _check_choice(settings)
    alone = "exhaustive" in stages
    problem, found = autotuning.prepare(settings, source, _count(settings, poolings) if alone else None, listener)
    trainings = _all_trainings(problem, poolings) if alone else None
    planned = planning.plan(problem, stages, trainings, autotuning.quick_timing(problem))
    planning.check_memory(planned, problem)
    request = {
        "commands": [command_line()],
        "settings": problem.settings.to_json(),
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


def _check_choice(settings: Settings) -> None:
    """RequestError where a network can be downsampled in one way alone."""
    space = requested_space(settings).whole
    if space.size < 2:
        raise RequestError(
            f"{settings.model} has one placement of {space.poolings} downsamplings before {space.layers} layers, its own: there"
            f" is nothing to search. Another number of them as well: --poolings {max(space.poolings - 1, 0)},{space.poolings}"
        )


def ask_for(folder: RunFolder, stage: str, request: dict[str, Any] | None = None, drop: tuple[str, ...] = ()) -> None:
    """Add a stage to what is asked of a run (or to another ``request``), and drop files that no longer fit, at once."""
    request = request or folder.request()
    commands, command = request["commands"], command_line()
    if stage not in request["stages"]:
        request["stages"] = sorted([*request["stages"], stage], key=ORDER.index)
    commands = commands if command in commands else [*commands, command]
    folder.save_request({**request, "commands": commands}, drop)


def reopened(
    folder: RunFolder, source: Source | None, settings: Settings | None = None, listener: Listener | None = None
) -> Experiment:
    """Return the experiment of a run with the choices that it has made. RequestError where its images have changed."""
    request = folder.request()
    settings = settings or Settings.from_json(request["settings"])
    problem = resolve(settings, source, request["calibration"], listener=listener)
    found, expected = problem.source.fingerprint(), request["data"]["fingerprint"]
    if found != expected:
        raise RequestError(
            f"the images of {problem.source.name} are not those that the run began with (fingerprint {found[:12]}, was"
            f" {expected[:12]}): put them back or start a new run"
        )
    begun, recorded = problem.weights.sha256 if problem.weights else "", request.get("weights", {}).get("sha256", "")
    if begun != recorded:
        raise RequestError(
            f"weights {settings.weights} are not those that the run began with (SHA-256 {begun[:12]}, was {recorded[:12]}): put"
            " them back or start a new run"
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
    stages: Sequence[str],
    source: Source | None,
    listener: Listener | None,
    problem: Experiment | None = None,
    retry: bool = False,
    planned: Plan | None = None,
) -> RunFolder:
    """Carry out the stages that are not done, in order, with the choices that the run has already made.

    ``problem`` and ``planned`` are what ``create`` returned; ``retry`` repeats stand-alone trainings that failed.
    """
    with alone(folder.path):
        return _carry_out(folder, stages, source, listener or Listener(), problem, retry, planned)


def _carry_out(
    folder: RunFolder,
    stages: Sequence[str],
    source: Source | None,
    listener: Listener,
    problem: Experiment | None,
    retry: bool,
    whole: Plan | None,
) -> RunFolder:
    _mend(folder, listener)
    left = [stage for stage in stages if not folder.has(_OUTPUTS[stage])]
    if any(stage != "report" for stage in left):
        problem = problem or reopened(folder, source, listener=listener)
        if whole is None:
            whole = _planned(folder, problem, left, autotuning.quick_timing(problem))
            planning.check_memory(whole, problem)
        for line in whole.lines():
            listener.note(line)
    state: SearchState | None = None  # of a search in this process, which the ranking need not read from its checkpoint
    for stage in left:
        if stage == "report":
            from poolwise.reporting import page

            page.write(folder)
            continue
        assert problem is not None
        assert whole is not None
        if stage == "retrain" and stage != left[0]:  # the ranking says by now what will be trained
            whole = _planned(folder, problem, [stage], whole.timing)
        planned: float | None = None
        for part in ("search", "short") if stage == "search" else (stage,):  # short trainings are part of the search
            seconds = whole.of(part)
            if seconds is not None:
                planned = (planned or 0.0) + seconds
                listener.expect(part, seconds)
        begin = time.monotonic()
        if stage == "search":
            state = _search(problem, folder, listener)
        elif stage == "rank":
            scoring.rank(problem, folder, listener, state)
            state = None  # frees its memory
        elif stage == "exhaustive":
            exhaustive(problem, folder, _members(problem, folder.request()["poolings"]), listener, retry)
        else:
            _WORK[stage](problem, folder, listener)
        took = round(time.monotonic() - begin, 1)
        folder.log({"event": "stage", "stage": stage, "planned": planned, "seconds": took})
    return folder


def _mend(folder: RunFolder, listener: Listener) -> None:
    """Make a folder sound before anything is done in it: what is damaged is told of, put back, or made again."""
    if folder.adopt():
        listener.note(f"{folder.path} has no manifest.json: its files are taken as they are")
    lost = folder.repair(listener.note)
    folder.settle()
    if any(name.startswith("checkpoints/") for name in lost) and folder.has(retraining.OUTPUT):
        weights = [name for name in lost if name != f"checkpoints/{CHECKPOINT}.safetensors"]
        if weights:  # those trainings are repeated, all others are found
            folder.save_request(folder.request(), drop=(retraining.OUTPUT, _OUTPUTS["report"]))
    if any(name.startswith("figures/") for name in lost):
        folder.save_request(folder.request(), drop=(_OUTPUTS["report"],))
    ranking.finish_order(folder)
    request = folder.request()
    if folder.has(retraining.OUTPUT) and folder.has("ranking.json"):
        retrained = {row["pooling"]: row["roles"] for row in folder.read(retraining.OUTPUT, "")["results"]}
        if retrained != retraining.roles_of(folder, Settings.from_json(request["settings"])):
            folder.save_request(
                request, drop=(retraining.OUTPUT, _OUTPUTS["report"])
            )  # of picks that are none any more
    if found := changes(request):
        listener.note(
            f"this run began on another machine or version ({'; '.join(found)}): last bits of results may differ"
        )


def _planned(folder: RunFolder, problem: Experiment, stages: Sequence[str], timing: Timing | None) -> Plan:
    """Return the plan by what is known by now: after ranking, which configurations are retrained."""
    trainings = None
    if "exhaustive" in stages:
        trainings = _all_trainings(problem, folder.request()["poolings"])
    elif "retrain" in stages and folder.has("ranking.json"):
        known = retraining.roles_of(folder, problem.settings)
        trainings = [(Pooling.parse(pooling), problem.settings.retrain_seeds) for pooling in known]
    return planning.plan(problem, stages, trainings, timing)


def _members(problem: Experiment, poolings: Sequence[str] | None) -> list[Pooling]:
    return list(problem.space) if poolings is None else [problem.space.parse(name) for name in poolings]


def _all_trainings(problem: Experiment, poolings: Sequence[str] | None) -> list[tuple[Pooling, int]]:
    return [(pooling, problem.settings.retrain_seeds) for pooling in _members(problem, poolings)]


def _count(settings: Settings, poolings: Sequence[str] | None) -> int:
    return settings.retrain_seeds * (_everything(settings).size if poolings is None else len(poolings))


def _everything(settings: Settings) -> PoolingSpace:
    """What an exhaustive run trains. RequestError where that is too much to be meant."""
    space = requested_space(settings)
    if space.size > LISTED:
        raise RequestError(
            f"exhaustive trains every configuration and there are {space.size:,}, above {LISTED:,}: draw some with"
            " --max-configs, or list them with --configs"
        )
    return space


def plan_left(folder: RunFolder, source: Source | None = None) -> Plan | None:
    """What is left to do of a run; None where that is nothing but the report."""
    left = [stage for stage in folder.request()["stages"] if stage != "report" and not folder.has(_OUTPUTS[stage])]
    if not left:
        return None
    experiment = reopened(folder, source)
    return _planned(folder, experiment, left, autotuning.timing(experiment))


def plan_exhaustive(settings: Settings, poolings: Sequence[str] | None, source: Source | None = None) -> Plan:
    """What training the listed configurations (None: all) takes, without doing it."""
    experiment, _ = autotuning.prepare(settings, source, _count(settings, poolings))
    trainings = _all_trainings(experiment, poolings)
    return planning.plan(experiment, ["exhaustive"], trainings, autotuning.timing(experiment))
