"""A run: searching, ranking, retraining, reporting, and going on."""

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
from poolwise.experiment import requested_space
from poolwise.pipeline import autotuning, estimates, reorder, runner
from poolwise.pipeline.estimates import Plan
from poolwise.pipeline.graph import RUN as STAGES
from poolwise.progress import Listener
from poolwise.rankings import ranking
from poolwise.selection import refine as refining
from poolwise.spaces import Pooling
from poolwise.storage import RunFolder, alone

_RETRAIN_SETTINGS = (
    *("top", "retrain_seeds", "retrain_epochs", "retrain_steps"),
    *("until_decided", "max_seeds", "margin", "equal_cost", *LIMITS, "latency_batch"),
)
REFINE_SETTINGS = (
    *("trials", "refiner", "margin", "at_once", "retrain_epochs", "retrain_steps"),
    *(*LIMITS, "latency_batch"),
)


def search(config: Config, out: str | Path, *, source: Source | None = None, listener: Listener | None = None) -> Run:
    """Train the mixture and keep it in the run folder ``out``."""
    folder, problem, planned = runner.create(config, out, ["search"], source, listener=listener)
    return Run(runner.carry_out(folder, ["search"], source, listener, problem, planned=planned).path)


def run(
    config: Config, out: str | Path, *, source: Source | None = None, listener: Listener | None = None
) -> Retraining:
    """Search, rank, retrain and report in one go; returns the content of ``retrain.json``."""
    folder, problem, planned = runner.create(config, out, STAGES, source, listener=listener)
    runner.carry_out(folder, STAGES, source, listener, problem, planned=planned)
    return Retraining(folder.read("retrain.json", ""), folder.path)


def rank(
    folder: str | Path,
    *,
    fusion: bool | None = None,
    source: Source | None = None,
    listener: Listener | None = None,
    **limits: float | None,
) -> Ranking:
    """Score every configuration with a finished search; returns the content of ``ranking.json``.

    ``fusion`` says whether scores are fused with productive convolutions (None: as the run was asked for). Where the
    run is ranked already, its scores are put in order anew, with the stand-alone trainings that it holds by now, and results
    that followed from another order are removed, but no training. ``max_macs`` and the other limits (with
    ``latency_batch``) say what may be picked. A call that is cut off is finished by ``resume``.
    """
    opened = RunFolder.open(Path(folder))
    with alone(opened.path):
        reorder.finish(opened)
    request = opened.request()
    config = changed(reorder.requested_settings(request), limits, (*LIMITS, "latency_batch"))
    if fusion is not None:
        config = config.replace(fusion=fusion)
    again = fusion is not None and opened.has(ranking.OUTPUT)
    limited, found = any(limit is not None for limit in limits.values()), None
    if limited:
        experiment, found = constraints.limited(runner.reopened(opened, source, _unlimited(config, limits)))
        config, source = experiment.config, experiment.source
    if fusion is not None and not again:  # it is ranked that way at once
        known = Config.from_flat(request["settings"])
        request["settings"] = known.replace(fusion=fusion).to_flat()
    if again or limited or reorder.PENDING in request:
        # limits do not say what is ranked but what is picked of it: they wait until it is ranked
        request = reorder.pending(request, config, found.to_json() if found else None)
    with alone(opened.path):
        runner.request_stage(opened, "rank", request)
    runner.carry_out(opened, ["rank"], source, listener)
    return Ranking(opened.read(ranking.OUTPUT, ""), opened.path)


def refine(
    folder: str | Path, *, source: Source | None = None, listener: Listener | None = None, **changes: Any
) -> Refinement:
    """Train a handful of configurations stand-alone, where that tells most; returns the content of ``refine.json``.

    ``trials``, ``refiner``, ``margin``, ``at_once``, ``retrain_epochs`` and ``retrain_steps`` change the request. A training on
    half of the images has half of those steps. Finished trainings are used again, so more trials continue where fewer ended.
    Results that followed from other picks are removed, but no training; ``resume`` makes them again.
    """
    opened = RunFolder.open(Path(folder))
    return Refinement(_again(opened, "refine", changes, REFINE_SETTINGS, source, listener), opened.path)


def retrain(
    folder: str | Path, *, source: Source | None = None, listener: Listener | None = None, **changes: Any
) -> Retraining:
    """Retrain the top of the ranking beside the default; returns the content of ``retrain.json``.

    ``top``, ``retrain_seeds``, ``retrain_epochs``, ``retrain_steps``, ``until_decided``, ``max_seeds``, ``margin`` and
    ``equal_cost`` change what the run was asked for; finished trainings of the same length are used again.
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
    """Do a stage that follows the ranking, as it was requested or with changes; a report that was requested is renewed."""
    with alone(opened.path):
        reorder.finish(opened)
    opened.read("ranking.json", f"rank it first, poolwise rank {opened.path}")
    request, output = opened.request(), f"{stage}.json"
    config = changed(Config.from_flat(request["settings"]), changes, allowed)
    # a wrong request is refused before anything is changed
    problem, found = constraints.limited(runner.reopened(opened, source, _unlimited(config, changes), listener))
    config = problem.config
    if stage == "refine":
        refining.method_of(problem, opened.read("ranking.json", ""), config.refine.refiner)
    renew = config != Config.from_flat(request["settings"]) or not opened.has(output)
    limits = {"limits": found.to_json()} if found else {}
    with alone(opened.path):
        runner.request_stage(opened, stage, {**request, **limits, "settings": config.to_flat()}, renew=renew)
    names = [name for name in (stage, "report") if name in opened.request()["stages"]]
    return runner.carry_out(opened, names, source, listener, problem).read(output, "")


def _unlimited(config: Config, changes: dict[str, Any]) -> Config:
    """Settings that are to be limited anew where a limit is among the changes."""
    limited_anew = any(changes.get(name) is not None for name in (*LIMITS, "latency_batch"))
    return config.replace(only=None) if limited_anew else config


def changed(config: Config, changes: dict[str, Any], allowed: Sequence[str] = _RETRAIN_SETTINGS) -> Config:
    """Settings with another retraining, or what else is ``allowed``. RequestError for any other change."""
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    unknown = sorted(set(given) - set(allowed))
    if unknown:
        raise RequestError(f"{unknown[0]!r} cannot be changed here: {', '.join(allowed)} can be changed")
    if "retrain_epochs" in given and "retrain_steps" not in given:
        given["retrain_steps"] = None
    return config.replace(**given)


def report(folder: str | Path) -> Path:
    """Write ``figures/`` and the self-contained page ``report.html`` from the files of a run; returns its path.

    From then on, a stage that is done again renews them.
    """
    opened = RunFolder.open(Path(folder))
    opened.read(ranking.OUTPUT, f"rank it first, poolwise rank {opened.path}")
    with alone(opened.path):
        runner.request_stage(opened, "report", renew=True)
    runner.carry_out(opened, ["report"], None, None)
    return opened.path / "report.html"


def resume(folder: str | Path, *, source: Source | None = None, listener: Listener | None = None) -> Run:
    """Go on with everything that was asked of the run and is not done yet."""
    opened = Run.open(folder)
    runner.carry_out(opened, opened.request()["stages"], source, listener)
    return opened


def plan(
    config: Config,
    asked: Sequence[str] = STAGES,
    *,
    configs: Sequence[Pooling | str] | None = None,
    source: Source | None = None,
    poolings: Sequence[Pooling | str] | None = None,
) -> Plan:
    """Estimate the steps, multiply-adds, time, memory and disk that these stages would take here, without doing them.

    Args:
        settings: The request.
        asked: The stages.
        configs: The configurations of an ``exhaustive`` stage; None for all.
        source: The images, where they are not those of the settings.
        poolings: Deprecated name of ``configs``.
    """
    configs = listed_configs(configs, poolings)
    if "exhaustive" in asked:
        space = requested_space(config).whole
        listed = None if configs is None else [str(space.check(config)) for config in configs]
        return runner.plan_exhaustive(config, listed, source)
    experiment, _ = autotuning.prepare(config, source)
    return estimates.plan(experiment, asked, timing=autotuning.timing(experiment))


def listed_configs(
    configs: Sequence[Pooling | str] | None, poolings: Sequence[Pooling | str] | None
) -> Sequence[Pooling | str] | None:
    """Return the listed configurations, and warn where they come under the deprecated name ``poolings``."""
    if poolings is None:
        return configs
    if configs is not None:
        raise RequestError("poolings is the old name of configs: give configs alone")
    warnings.warn(
        "poolings=[...] with configurations is now configs=[...]; the old name goes with the next release",
        DeprecationWarning,
        stacklevel=3,
    )
    return poolings


def plan_left(folder: str | Path, *, source: Source | None = None) -> Plan | None:
    """What ``resume`` would still do, without doing it; None where nothing is left to train or rank."""
    return runner.plan_left(RunFolder.open(Path(folder)), source)


def fit(
    config: Config,
    seconds: float,
    asked: Sequence[str] = STAGES,
    kept: Iterable[str] = (),
    *,
    source: Source | None = None,
) -> Config:
    """Settings with steps, M and images that fit the time on this machine; those named in ``kept`` stay."""
    return estimates.fit(config, seconds, asked, kept, source)
