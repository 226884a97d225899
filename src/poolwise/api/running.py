"""Run the stages: search, rank, refine, retrain and report; plan and resume runs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from poolwise import constraints
from poolwise.api.results import Ranking, Refinement, Retraining, Run
from poolwise.config import LIMITS, Config
from poolwise.datasets.sources import Source
from poolwise.errors import RequestError
from poolwise.models import requested_space
from poolwise.pipeline import autotuning, estimates, graph, reorder, runner
from poolwise.pipeline.estimates import Plan
from poolwise.pipeline.graph import RUN_STAGES
from poolwise.progress import Listener
from poolwise.selection import refine as refining
from poolwise.spaces import Pooling
from poolwise.storage import RunFolder, exclusive
from poolwise.storage.schemas import RankingFile, RetrainFile

_RETRAIN_SETTINGS = (
    *("top", "retrain_seeds", "retrain_epochs", "retrain_steps"),
    *("until_decided", "max_seeds", "margin", "equal_cost", *LIMITS, "latency_batch"),
)
REFINE_SETTINGS = (
    *("trials", "refiner", "hints", "margin", "at_once", "retrain_epochs", "retrain_steps"),
    *(*LIMITS, "latency_batch"),
)


def search(config: Config, out: str | Path, *, source: Source | None = None, listener: Listener | None = None) -> Run:
    """Train the mixture of SuperNets and save it in the run folder ``out``."""
    folder, experiment, planned = runner.create(config, out, ["search"], source, listener=listener)
    return Run(runner.carry_out(folder, ["search"], source, listener, experiment, planned=planned).path)


def run(
    config: Config, out: str | Path, *, source: Source | None = None, listener: Listener | None = None
) -> Retraining:
    """Search, rank, retrain and report. Return the content of ``retrain.json``."""
    folder, experiment, planned = runner.create(config, out, RUN_STAGES, source, listener=listener)
    runner.carry_out(folder, RUN_STAGES, source, listener, experiment, planned=planned)
    return Retraining(folder.read(RetrainFile.FILE, ""), folder.path)


def rank(
    folder: str | Path,
    *,
    fusion: bool | None = None,
    source: Source | None = None,
    listener: Listener | None = None,
    **limits: float | None,
) -> Ranking:
    """Score every configuration with a finished search.

    If the run is already ranked, ``fusion`` or a limit reorders its scores, using the stand-alone trainings done since.
    Results that depend on the old order are removed; trainings are kept. ``resume`` finishes an interrupted call.

    Args:
        folder: Run folder.
        fusion: Whether to combine scores with productive convolutions (default: as the run was requested).
        source: The images (default: the data set that the run names).
        listener: Receives progress, and can stop the work.
        limits: ``max_macs`` and the other cost limits (with ``latency_batch``) that picks must satisfy.

    Returns:
        The content of ``ranking.json``.
    """
    opened = RunFolder.open(Path(folder))
    with exclusive(opened.path):
        reorder.finish(opened)
    request = opened.request()
    config = changed(reorder.requested_settings(request), limits, (*LIMITS, "latency_batch"))
    if fusion is not None:
        config = config.replace(fusion=fusion)
    again = fusion is not None and opened.has(RankingFile.FILE)
    limited, feasible = any(limit is not None for limit in limits.values()), None
    if limited:
        experiment, feasible = constraints.limited(runner.reopened(opened, source, _unlimited(config, limits)))
        config, source = experiment.config, experiment.source
    if fusion is not None and not again:  # not ranked yet: the first ranking uses it
        known = Config.from_flat(request["settings"])
        request["settings"] = known.replace(fusion=fusion).to_flat()
    if again or limited or reorder.PENDING in request:
        # limits restrict the picks, not the ranking: they are applied once the run is ranked
        request = reorder.pending(request, config, feasible.to_json() if feasible else None)
    with exclusive(opened.path):
        runner.request_stage(opened, "rank", request)
    runner.carry_out(opened, ["rank"], source, listener)
    return Ranking(opened.read(RankingFile.FILE, ""), opened.path)


def refine(
    folder: str | Path, *, source: Source | None = None, listener: Listener | None = None, **changes: Any
) -> Refinement:
    """Train the few most informative configurations stand-alone. Return the content of ``refine.json``.

    ``changes`` (any of REFINE_SETTINGS) modify the request. A training on half of the images takes about half of the
    retraining steps. Finished trainings are reused, so a larger ``trials`` continues where a smaller one ended. Results
    that depend on other picks are removed and can be recreated by ``resume``; trainings are kept.
    """
    opened = RunFolder.open(Path(folder))
    return Refinement(_again(opened, "refine", changes, REFINE_SETTINGS, source, listener), opened.path)


def retrain(
    folder: str | Path, *, source: Source | None = None, listener: Listener | None = None, **changes: Any
) -> Retraining:
    """Retrain the top of the ranking and the default. Return the content of ``retrain.json``.

    ``top``, ``retrain_seeds``, ``retrain_epochs``, ``retrain_steps``, ``until_decided``, ``max_seeds``, ``margin``,
    ``equal_cost`` and limits modify the request. Finished trainings of the same length are reused.
    """
    opened = RunFolder.open(Path(folder))
    return Retraining(_again(opened, "retrain", changes, _RETRAIN_SETTINGS, source, listener), opened.path)


def _again(
    opened: RunFolder,
    stage: str,
    changes: dict[str, Any],
    allowed: Sequence[str],
    source: Source | None,
    listener: Listener | None,
) -> dict[str, Any]:
    """Run a stage that follows the ranking, as requested or with changes, and update a requested report."""
    with exclusive(opened.path):
        reorder.finish(opened)
    opened.read(RankingFile.FILE, f"rank it first, poolwise rank {opened.path}")
    request, output = opened.request(), graph.stage(stage).done
    config = changed(Config.from_flat(request["settings"]), changes, allowed)
    # reject a wrong request before anything is changed
    experiment, feasible = constraints.limited(runner.reopened(opened, source, _unlimited(config, changes), listener))
    config = experiment.config
    if stage == "refine":
        refining.check(experiment, opened.read(RankingFile.FILE, ""))
    renew = config != Config.from_flat(request["settings"]) or not opened.has(output)
    limits = {"limits": feasible.to_json()} if feasible else {}
    with exclusive(opened.path):
        runner.request_stage(opened, stage, {**request, **limits, "settings": config.to_flat()}, renew=renew)
    names = [name for name in (stage, "report") if name in opened.request()["stages"]]
    return runner.carry_out(opened, names, source, listener, experiment).read(output, "")


def _unlimited(config: Config, changes: dict[str, Any]) -> Config:
    """Return the config without the measured ``only`` if a limit is among the changes, so that limits apply again."""
    changes_limits = any(changes.get(name) is not None for name in (*LIMITS, "latency_batch"))
    return config.replace(only=None) if changes_limits else config


def changed(config: Config, changes: dict[str, Any], allowed: Sequence[str] = _RETRAIN_SETTINGS) -> Config:
    """Return the config with changes to ``allowed`` settings. Raises RequestError for any other change."""
    new_values: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    unknown = sorted(set(new_values) - set(allowed))
    if unknown:
        raise RequestError(f"{unknown[0]!r} cannot be changed here: use {', '.join(allowed)}")
    if "retrain_epochs" in new_values and "retrain_steps" not in new_values:
        new_values["retrain_steps"] = None
    return config.replace(**new_values)


def report(folder: str | Path) -> Path:
    """Write ``figures/`` and the self-contained page ``report.html`` of a run. Return the path of the page.

    Afterwards, repeating a stage also updates the report.
    """
    opened = RunFolder.open(Path(folder))
    opened.read(RankingFile.FILE, f"rank it first, poolwise rank {opened.path}")
    with exclusive(opened.path):
        runner.request_stage(opened, "report", renew=True)
    runner.carry_out(opened, ["report"], None, None)
    return opened.path / "report.html"


def resume(folder: str | Path, *, source: Source | None = None, listener: Listener | None = None) -> Run:
    """Continue with all requested stages that are not done yet."""
    opened = Run.open(folder)
    stages = opened.request()["stages"]
    graph.check_names(stages)
    runner.carry_out(opened, stages, source, listener)
    return opened


def plan(
    config: Config,
    asked: Sequence[str] = RUN_STAGES,
    *,
    configs: Sequence[Pooling | str] | None = None,
    source: Source | None = None,
    poolings: Sequence[Pooling | str] | None = None,
) -> Plan:
    """Estimate the steps, MACs, time, memory and disk space of stages on this machine, without running them.

    Args:
        config: The request.
        asked: The stages.
        configs: The configurations of an ``exhaustive`` stage, which is planned alone; None for all.
        source: The images (default: the data set that ``config`` names).
        poolings: Deprecated name of ``configs``.
    """
    configs = listed_configs(configs, poolings)
    graph.check_names(asked)
    for name in asked:
        if graph.stage(name).listed:
            space = requested_space(config).full
            listed = None if configs is None else [str(space.check(config)) for config in configs]
            return runner.plan_listed(config, name, listed, source)
    experiment, _ = autotuning.prepare(config, source)
    return estimates.plan(experiment, asked, timing=autotuning.timing(experiment))


def listed_configs(
    configs: Sequence[Pooling | str] | None, poolings: Sequence[Pooling | str] | None
) -> Sequence[Pooling | str] | None:
    """Return the listed configurations; warn if they are passed under the deprecated name ``poolings``."""
    if poolings is None:
        return configs
    if configs is not None:
        raise RequestError("poolings is the old name of configs: use only configs")
    warnings.warn(
        "poolings=[...] with configurations is now configs=[...]; the old name will be removed in the next release",
        DeprecationWarning,
        stacklevel=3,
    )
    return poolings


def plan_left(folder: str | Path, *, source: Source | None = None) -> Plan | None:
    """Return the plan of what ``resume`` would do; None if nothing is left to train or rank."""
    return runner.plan_left(RunFolder.open(Path(folder)), source)


def fit(
    config: Config,
    seconds: float,
    asked: Sequence[str] = RUN_STAGES,
    kept: Iterable[str] = (),
    *,
    source: Source | None = None,
) -> Config:
    """Return a config whose steps, M and images fit the time on this machine; settings in ``kept`` do not change."""
    graph.check_names(asked)
    return estimates.fit(config, seconds, asked, kept, source)
