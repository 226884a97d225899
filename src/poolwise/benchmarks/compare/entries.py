"""One entry of a comparison: a method with a seed and a budget, in its own folder, resumable at any time."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from poolwise.benchmarks.compare.compute import Compute
from poolwise.benchmarks.compare.judge import Entry
from poolwise.benchmarks.compare.methods import MethodSpec
from poolwise.config import Config
from poolwise.datasets.sources import Source
from poolwise.errors import RequestError
from poolwise.experiment import Experiment, resolve
from poolwise.pipeline import runner
from poolwise.progress import Listener
from poolwise.rankings import baselines
from poolwise.rankings.ranking import parts
from poolwise.selection import strategies
from poolwise.selection.refine import SCORES
from poolwise.spaces import PoolingSpace
from poolwise.storage import FORMAT, RunFolder, environment
from poolwise.storage.schemas import RankingFile, TrialsFile
from poolwise.training.calibration import Parallel, cpu_threads
from poolwise.training.standalone import Purpose
from poolwise.training.trials import Result, TrainingRequest, TrialRunner

TRIALS = "trials.json"
PURPOSE = Purpose("trial")


@dataclass(frozen=True)
class Work:
    """Task of one entry.

    Attributes:
        spec: The method.
        seed: Seed of its split, weights and draws.
        budget, macs: Allowed compute, in steps of a single SuperNet and in MACs.
        config: Config of its search, or of its stand-alone trainings.
        folder: Folder of its results.
    """

    spec: MethodSpec
    seed: int
    budget: int
    macs: int
    config: Config
    folder: Path

    @property
    def done(self) -> bool:
        return (self.folder / (TRIALS if self.spec.standalone else RankingFile.FILE)).exists()

    def request(self) -> dict[str, Any]:
        """Return the request that the folder must match."""
        request: dict[str, Any] = {"settings": self.config.to_flat()}
        return {**request, "method": self.spec.method, "macs": self.macs} if self.spec.standalone else request

    def check(self) -> None:
        """Raise RequestError if the folder holds a different request."""
        if not (self.folder / "run.json").exists():
            return
        recorded = RunFolder.open(self.folder).request()
        config = Config.from_flat(recorded["settings"])  # settings added since then have their defaults
        if config.search.proxy is None:  # studies of earlier versions stored it unresolved
            config = config.replace(short=self.config.search.proxy)
        recorded["settings"] = config.to_flat()
        for name, value in self.request().items():
            if recorded.get(name) != value:
                raise RequestError(f"{self.folder} holds a different request ({name} differs): use another --out")


class Share(Listener):
    """Report the progress of one entry as ``units`` of the total progress."""

    def __init__(self, listener: Listener, units: int, steps: int | None):
        self.listener, self.units, self.steps = listener, units, steps
        self.rate = 0.0  # units per step
        self._units_done, self._reported = 0.0, 0

    def start(self, stage: str, total: int, done: int = 0) -> None:
        self.rate = self.units / (self.steps or total) if stage in ("search", "short") else 0.0
        self.advance(done)

    def advance(self, units: int = 1, **info: Any) -> None:
        self.add(units * self.rate)

    def add(self, units: float) -> None:
        """Report that another ``units`` of the total are done."""
        self._units_done += units
        increase = min(int(self._units_done), self.units) - self._reported
        if increase > 0:
            self._reported += increase
            self.listener.advance(increase)

    def check(self) -> None:
        self.listener.check()


def carry_out(experiment: Experiment, listener: Listener, _hold: None, work: Work) -> None:
    """Run the unfinished part of one entry on the images of ``experiment``.

    Raises:
        Interrupted: The listener was asked to stop.
    """
    share = Share(listener, work.budget, None if work.spec.standalone else work.config.search.steps)
    if not (work.folder / "run.json").exists() and work.folder.exists():
        shutil.rmtree(work.folder)  # killed before the request was written
    (_trials if work.spec.standalone else _search)(work, experiment.source, share)
    share.add(work.budget)


def _search(work: Work, source: Source, share: Share) -> None:
    commands, experiment, planned = ["search", "rank"], None, None
    if (work.folder / "run.json").exists():
        folder = RunFolder.open(work.folder)
    else:
        folder, experiment, planned = runner.create(work.config, work.folder, commands, source)
    runner.carry_out(folder, commands, source, share, experiment, planned=planned)


def method_of(work: Work, compute: Compute) -> strategies.Strategy:
    """Create the strategy of a stand-alone entry in its initial state.

    Raises:
        RequestError: A package that it needs is missing.
    """
    space, steps = compute.experiment.space, compute.full_steps
    hints = [name for name in work.config.refine.hints if name != SCORES]  # there is no search
    return strategies.create(
        work.spec.method,
        space,
        seed=work.seed,
        macs=work.macs,
        steps=steps,
        cost=compute.trial,
        default=compute.experiment.default,
        hints=baselines.hints(hints, compute.experiment, list(space)).functions,
    )


def _trials(work: Work, source: Source, share: Share) -> None:
    """Run the trainings that the strategy requests; reuse results of this or other entries of the same seed."""
    if (work.folder / "run.json").exists():
        folder = RunFolder.open(work.folder)
    else:
        folder = RunFolder.create(work.folder, {**work.request(), **environment()})
    experiment = resolve(work.config, source)
    compute = Compute(experiment)
    method = method_of(work, compute)
    runner = TrialRunner(experiment, folder.trials(), PURPOSE, share, parallel=Parallel(1, cpu_threads()))
    points: list[dict[str, Any]] = []
    while (ask := method.ask()) is not None:
        request = TrainingRequest(str(ask.pooling), ask.seed, ask.steps)
        share.rate = work.budget / work.macs * compute.trial(ask.pooling, ask.steps) / ask.steps
        if not runner.is_recorded(request) and (earlier := _elsewhere(work, request)) is not None:
            runner.record(request, earlier)
        row = runner.run([request])[request]
        method.tell(*ask, row["accuracy"] or 0.0)
        points.append({"spent_macs": method.spent, "scores": method.ranking().tolist()})
    assert method.spent <= work.macs, "a strategy spent more than its budget"
    value = {
        "format": FORMAT,
        "poolings": [str(pooling) for pooling in experiment.space],
        "scores": method.ranking().tolist(),
        "accuracies": method.accuracies,
        "spent_macs": method.spent,
        "points": points,
        **environment(),
    }
    folder.write_json(TRIALS, value)


def _elsewhere(work: Work, request: TrainingRequest) -> Result | None:
    """Return the result of the same training in another entry of the study.

    Seed, split and recipe are equal, so the result is identical. It counts as if it had been trained here.
    """
    for path in sorted(work.folder.parent.glob(f"*-{work.seed}/trials.sqlite")):
        trials = RunFolder(path.parent).trials()
        if trials.accuracy(*request) is not None:
            row = next(t for t in trials.all() if (t["pooling"], t["seed"], t["budget"]) == request)
            return Result(row["accuracy"], row["curve"], row["seconds"])
    return None


def read(work: Work, space: PoolingSpace) -> Entry:
    """Return the ranking of a finished entry: scores (accuracies in percent), spent MACs, and intermediate points."""
    folder, label, parts_2P = RunFolder.open(work.folder), work.spec.label, None
    if work.spec.standalone:
        trials = folder.load(TrialsFile, "run the same command again")
        unit = 100.0 if trials.accuracies else 1.0
        points = tuple((point.spent_macs, unit * np.array(point.scores)) for point in trials.points)
        scores_P, spent, percent = unit * np.array(trials.scores), trials.spent_macs, trials.accuracies
    else:
        value = folder.read(RankingFile.FILE, "run the same command again")
        rows = {row["pooling"]: row for row in value["ranking"]}
        ordered = [rows[str(pooling)] for pooling in space]
        scores_P, points, percent = np.array([100 * row["score"] for row in ordered]), (), True
        if value.get("short", {}).get("used"):
            shared_P, proxy_P = parts(ordered)
            parts_2P = np.stack([100 * shared_P, proxy_P])
        spent = sum(value["spent"].values())
    return Entry(label, work.seed, work.macs, scores_P, percent, work.budget, spent, points, parts_2P)
