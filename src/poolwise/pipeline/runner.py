"""Create runs, carry out their stages, and resume them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from poolwise.config import AUTO, Config
from poolwise.datasets.augment import named
from poolwise.datasets.sources import Source
from poolwise.errors import RequestError
from poolwise.experiment import Experiment, resolve
from poolwise.models import requested_space, weights
from poolwise.models.external import networks
from poolwise.pipeline import autotuning, estimates, graph, reorder
from poolwise.pipeline.costs import Trainings
from poolwise.pipeline.estimates import Plan
from poolwise.pipeline.stage import Work
from poolwise.progress import Listener
from poolwise.spaces import LISTED, PoolingSpace
from poolwise.storage import RunFolder, changes, command_line, environment, exclusive
from poolwise.training import Precision, choose_device
from poolwise.training.calibration import Timing


def with_absolute_paths(config: Config) -> Config:
    """Make paths (images, network, weights) in a config absolute, so that a run can be resumed from any folder."""
    config = config.replace(model=networks.with_absolute_path(config.model.name))
    if config.data.source.startswith("folder:"):
        path = Path(config.data.source.removeprefix("folder:")).expanduser().absolute()
        config = config.replace(data=f"folder:{path}")
    if config.model.weights is not None and not weights.is_named(config.model.weights):
        config = config.replace(weights=str(Path(config.model.weights).expanduser().absolute()))
    return config


def _check_without_images(config: Config) -> None:
    """Raise RequestError for mistakes that show at once: in the device, number format, weights and configurations."""
    choose_device(config.hardware.device)
    if config.hardware.precision not in (None, AUTO):
        Precision.parse(config.hardware.precision)
    if config.model.weights is not None:
        weights.check_source(config.model.weights)
    requested_space(config)


def create(
    config: Config,
    out: str | Path,
    stages: Sequence[str],
    source: Source | None,
    poolings: Sequence[str] | None = None,
    listener: Listener | None = None,
) -> tuple[RunFolder, Experiment, Plan]:
    """Create a run folder with the request. Return it with the experiment and the plan of its stages.

    Args:
        config: The request.
        out: The folder to create.
        stages: Names of the requested stages.
        source: A loaded data set (default: load the one that ``config`` names).
        poolings: Configurations of an exhaustive run (None: all).
        listener: Receives a message before slow measurements.

    Raises:
        RequestError: The request is wrong or needs more memory than is free.
    """
    _check_without_images(config)
    RunFolder.check_free(Path(out))
    if config.limits.only is not None and any(limit is not None for limit in config.limits.active().values()):
        raise RequestError("'only' and cost limits cannot be combined: omit one of them")
    config = with_absolute_paths(config)
    requested = [graph.stage(name) for name in stages]
    for one in requested:
        if one.check is not None:
            one.check(config)
    listed = [one.name for one in requested if one.listed]
    experiment, feasible = autotuning.prepare(
        config, source, _trainings_count(config, poolings) if listed else None, listener
    )
    trainings = {name: graph.listed_trainings(experiment, poolings) for name in listed}
    planned = estimates.plan(experiment, stages, trainings, autotuning.quick_timing(experiment))
    estimates.check_memory(planned, experiment)
    request = {
        "commands": [command_line()],
        "settings": experiment.config.to_flat(),
        "stages": list(stages),
        "space": experiment.space.to_json(),
        "default": str(experiment.default),
        "data": experiment.describe_data(),
        **experiment.describe_weights(),
        "calibration": experiment.describe_choices(),
        "plan": planned.to_json(),
        **({"poolings": poolings} if listed else {}),
        **({"limits": feasible.to_json()} if feasible else {}),
        **environment(),
    }
    return RunFolder.create(Path(out), request), experiment, planned


def request_stage(folder: RunFolder, name: str, request: dict[str, Any] | None = None, *, renew: bool = False) -> None:
    """Add a stage to the request of a run.

    Args:
        folder: The run folder.
        name: Name of the stage.
        request: New content of ``run.json`` (default: only the stage is added).
        renew: Repeat the stage. Its results and those that depend on them are removed in the same step.
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
    """Return the experiment of a run with its recorded choices.

    Raises:
        RequestError: The images, weights or transform differ from those that the run started with.
    """
    request = folder.request()
    config = config or Config.from_flat(request["settings"])
    experiment = resolve(config, source, request["calibration"], listener=listener)
    fingerprint, expected = experiment.source.fingerprint(), request["data"]["fingerprint"]
    if fingerprint != expected:
        raise RequestError(
            f"the images of {experiment.source.name} differ from those of the run (fingerprint {fingerprint[:12]}, was"
            f" {expected[:12]}): restore them or start a new run"
        )
    sha256, recorded = (
        experiment.weights.sha256 if experiment.weights else "",
        request.get("weights", {}).get("sha256", ""),
    )
    if sha256 != recorded:
        raise RequestError(
            f"weights {config.model.weights} differ from those of the run (SHA-256 {sha256[:12]}, was"
            f" {recorded[:12]}): restore them or start a new run"
        )
    transform = experiment.source.augment
    now, then = named(transform) if transform else None, request["data"].get("augment")
    if now != then:
        raise RequestError(
            f"the transform of the data set, {now or 'none'}, differs from that of the run, {then or 'none'}: pass source="
            " with the original transform"
        )
    return experiment


def carry_out(
    folder: RunFolder,
    names: Sequence[str],
    source: Source | None,
    listener: Listener | None,
    experiment: Experiment | None = None,
    retry: bool = False,
    planned: Plan | None = None,
) -> RunFolder:
    """Carry out the stages that are not done, in order, with the recorded choices of the run.

    Args:
        folder: The run folder.
        names: Names of the stages.
        source: The images, if the request does not name them.
        listener: Receives progress.
        experiment: The experiment, if it is already loaded.
        retry: Repeat stand-alone trainings that failed.
        planned: The plan returned by ``create`` (default: estimate one from quick timings).
    """
    listener = listener or Listener()
    with exclusive(folder.path):
        _mend(folder, listener)
        left = graph.left(folder, names)
        if any(graph.stage(name).needs_experiment for name in left):
            experiment = experiment or reopened(folder, source, listener=listener)
            if planned is None:
                planned = _planned(folder, experiment, left, autotuning.quick_timing(experiment))
                estimates.check_memory(planned, experiment)
            for line in planned.lines():
                listener.note(line)
        work = Work(folder, experiment, listener, retry)
        for name in left:
            one = graph.stage(name)
            graph.remove(folder, graph.invalidated(name))  # no result may outlive its inputs
            if not one.needs_experiment:
                one.run(work)
                continue
            assert work.experiment is not None
            assert planned is not None
            if one.trainings is not None and name != left[0]:  # the configurations to train are known now
                planned = _planned(folder, work.experiment, [name], planned.timing)
            with _timed(work, name, planned):
                one.run(work)
            if reorder.finish(folder):  # a reorder was waiting for the ranking
                work.experiment = reopened(folder, work.experiment.source, listener=listener)
        return folder


@contextmanager
def _timed(work: Work, name: str, plan: Plan) -> Iterator[None]:
    """Log the planned and the actual seconds of a stage (planned is null if nothing was timed)."""
    planned: float | None = None
    for part in plan.parts(name):
        if part.seconds is not None:
            planned = (planned or 0.0) + part.seconds
            work.listener.expect(part.name, part.seconds)
    started = time.monotonic()
    yield
    took = round(time.monotonic() - started, 1)
    work.folder.log({"event": "stage", "stage": name, "planned": planned, "seconds": took})


def _mend(folder: RunFolder, listener: Listener) -> None:
    """Repair a run folder before any work starts.

    Restore damaged files from copies or recreate them, finish what a killed process had started, and remove results
    that are inconsistent with the files of the run.
    """
    if folder.adopt():
        listener.note(f"{folder.path} has no manifest.json: its files are accepted unchecked")
    lost = folder.repair(listener.note, graph.REMADE)
    folder.settle()
    graph.remove(folder, graph.unusable(lost))
    reorder.finish(folder)
    graph.remove(folder, graph.misfits(folder))
    if differences := changes(folder.request()):
        listener.note(
            f"this run started on another machine or version ({'; '.join(differences)}): results may differ in the last bits"
        )


def _planned(folder: RunFolder, experiment: Experiment, names: Sequence[str], timing: Timing | None) -> Plan:
    """Return the plan of stages, with the trainings of those that do not wait for another one."""
    trainings: dict[str, Trainings] = {}
    for one in map(graph.stage, names):
        if one.trainings is not None and not graph.waits(one.name, names):
            known = one.trainings(folder, experiment)
            if known is not None:
                trainings[one.name] = known
    return estimates.plan(experiment, names, trainings, timing)


def _trainings_count(config: Config, poolings: Sequence[str] | None) -> int:
    return config.retrain.seeds * (_everything(config).size if poolings is None else len(poolings))


def _everything(config: Config) -> PoolingSpace:
    """Return the space of an exhaustive run. Raises RequestError if it has more than LISTED configurations."""
    space = requested_space(config)
    if space.size > LISTED:
        raise RequestError(
            f"an exhaustive run trains all {space.size:,} configurations, more than the maximum of {LISTED:,}: sample some with"
            " --max-configs, or list them with --configs"
        )
    return space


def plan_left(folder: RunFolder, source: Source | None = None) -> Plan | None:
    """Return the plan of the remaining stages of a run; None if at most the report is left."""
    left = [name for name in graph.left(folder, folder.request()["stages"]) if graph.stage(name).needs_experiment]
    if not left:
        return None
    experiment = reopened(folder, source)
    return _planned(folder, experiment, left, autotuning.timing(experiment))


def plan_listed(config: Config, stage: str, poolings: Sequence[str] | None, source: Source | None = None) -> Plan:
    """Return the plan of a stage that trains the listed configurations (None: all) stand-alone."""
    experiment, _ = autotuning.prepare(config, source, _trainings_count(config, poolings))
    trainings = {stage: graph.listed_trainings(experiment, poolings)}
    return estimates.plan(experiment, [stage], trainings, autotuning.timing(experiment))
