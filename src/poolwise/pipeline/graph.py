"""The stages of a run as a graph: the files that each stage reads, writes, and never removes.

The graph determines the order of the stages, which stages are done, and which results a new request or ranking makes
out of date. To add a stage, add an entry to ``STAGES``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from poolwise.config import Config
from poolwise.experiment import Experiment
from poolwise.progress import Listener
from poolwise.rankings import proxy_training, scoring
from poolwise.selection import picks
from poolwise.selection import refine as refining
from poolwise.selection import retrain as retraining
from poolwise.selection.exhaustive import exhaustive
from poolwise.spaces import Pooling
from poolwise.storage import RunFolder
from poolwise.storage.schemas import ExhaustiveFile, RankingFile, RefineFile, RetrainFile, VerdictFile
from poolwise.supernets import trainer
from poolwise.supernets.state import SearchState

RUN = ("search", "rank", "retrain", "report")  # what `poolwise run` does
Files = Mapping[str, Mapping[str, Any]]  # contents of JSON files by name


@dataclass
class Work:
    """Context that the stages of one process share.

    Attributes:
        folder: The run folder.
        experiment: The experiment; None for stages that only read files.
        listener: Receives progress.
        retry: Repeat stand-alone trainings that failed.
        state: State of a search in this process, so that the ranking does not load its checkpoint.
    """

    folder: RunFolder
    experiment: Experiment | None
    listener: Listener
    retry: bool = False
    state: SearchState | None = None


@dataclass(frozen=True)
class Stage:
    """One stage. File names may contain ``*``.

    Attributes:
        name: Name, as in the command and in ``run.json``.
        reads: Files of other stages that this stage reads. They are the edges of the graph.
        writes: Result files. They are removed and recreated when they are out of date.
        done: The file whose existence shows that the stage is done.
        run: Function that does the work.
        keeps: Trainings and checkpoints. They are never removed, so that a repeated stage can reuse them.
        weights: Trained weights that are part of the result. If one is lost, the stage is repeated.
        used: Returns the part of ``reads`` that the results depend on, given the contents of the files and the config.
            Changes to other parts do not invalidate the results.
        fits: Returns whether existing results are consistent with the files that the stage reads now.
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    done: str
    run: Callable[[Work], object]
    keeps: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    used: Callable[[Files, Config], object] | None = None
    fits: Callable[[RunFolder], bool] | None = None

    def part(self, files: Files, config: Config) -> object:
        """Return what the results depend on: ``used`` if it is set, otherwise all files that the stage reads."""
        return self.used(files, config) if self.used else [files.get(name) for name in self.reads]


def _search(work: Work) -> None:
    assert work.experiment is not None
    work.state = SearchState.open(work.experiment, work.folder)
    trainer.train(work.state, work.folder, work.listener)
    proxy_training.train(work.experiment, work.folder, work.listener)


def _rank(work: Work) -> None:
    assert work.experiment is not None
    scoring.rank(work.experiment, work.folder, work.listener, work.state)
    work.state = None  # frees its memory


def _refine(work: Work) -> None:
    assert work.experiment is not None
    refining.refine(work.experiment, work.folder, work.listener)


def _retrain(work: Work) -> None:
    assert work.experiment is not None
    retraining.retrain(work.experiment, work.folder, work.listener)


def _report(work: Work) -> None:
    from poolwise.reports import page  # imports matplotlib

    page.write(work.folder)


def _exhaustive(work: Work) -> None:
    assert work.experiment is not None
    members = members_of(work.experiment, work.folder.request()["poolings"])
    exhaustive(work.experiment, work.folder, members, work.listener, work.retry)


def members_of(experiment: Experiment, poolings: Sequence[str] | None) -> list[Pooling]:
    """Return the configurations of an exhaustive run (``poolings`` None: all of the space)."""
    space = experiment.space
    return list(space) if poolings is None else [space.parse(name) for name in poolings]


def _picked(files: Files, config: Config) -> object:
    """Return what retraining depends on: the picked configurations and their roles, not the scores behind them."""
    return picks.choose(files[RankingFile.FILE], files.get(RefineFile.FILE), config).roles


def _refined(files: Files, _settings: Config) -> object:
    """Return what refinement depends on: the smoothed scores, and the order only if not all configurations are ranked.

    Limits on the picks are not part of it: refinement results remain valid under other limits, and ``selection.picks``
    applies the limits of the run.
    """
    return refining.inputs(files[RankingFile.FILE])


# Topological order: each stage follows the stages whose files it reads. The ranking also uses finished trainings of the
# run. That is not an edge because trainings never invalidate a ranking; they are used the next time it is computed.
STAGES = (
    Stage(
        "search",
        reads=(),
        writes=(),
        done=RankingFile.FILE,  # until then, a finished search is restored quickly from its checkpoint
        run=_search,
        keeps=("checkpoints/search.safetensors", "short.sqlite"),
    ),
    Stage(
        "rank",
        reads=("checkpoints/search.safetensors", "short.sqlite"),
        writes=(RankingFile.FILE,),
        done=RankingFile.FILE,
        run=_rank,
    ),
    Stage(
        "refine",
        reads=(RankingFile.FILE,),
        writes=(RefineFile.FILE,),
        done=RefineFile.FILE,
        run=_refine,
        keeps=("refine.sqlite",),
        used=_refined,
    ),
    Stage(
        "retrain",
        reads=(RankingFile.FILE, RefineFile.FILE),
        writes=(VerdictFile.FILE, RetrainFile.FILE),
        done=RetrainFile.FILE,
        run=_retrain,
        keeps=("trials.sqlite", "default-*.sqlite"),
        weights=("checkpoints/*-seed*steps.safetensors",),
        used=_picked,
        fits=retraining.fits,
    ),
    Stage(
        "report",
        reads=(RankingFile.FILE, RefineFile.FILE, RetrainFile.FILE),
        writes=("figures/*", "report.html"),
        done="report.html",
        run=_report,
    ),
    Stage(
        "exhaustive",
        reads=(),
        writes=(ExhaustiveFile.FILE,),
        done=ExhaustiveFile.FILE,
        run=_exhaustive,
        keeps=("trials.sqlite",),
    ),
)
_BY_NAME = {stage.name: stage for stage in STAGES}


def stage(name: str) -> Stage:
    """Return the stage called ``name``."""
    return _BY_NAME[name]


def ordered(names: Iterable[str]) -> list[str]:
    """Return the names of stages in execution order."""
    return sorted(set(names), key=list(_BY_NAME).index)


def downstream(name: str) -> list[Stage]:
    """Return the stages that depend on a stage, directly or indirectly."""
    dependents: list[Stage] = []
    for later in STAGES[STAGES.index(stage(name)) + 1 :]:
        sources = [stage(name), *dependents]
        if any(file in (*one.writes, *one.keeps) for one in sources for file in later.reads):
            dependents.append(later)
    return dependents


def invalidated(name: str) -> tuple[str, ...]:
    """Return the results that repeating a stage invalidates: its own and those that depend on them."""
    return tuple(file for one in (stage(name), *downstream(name)) for file in one.writes)


def outdated(folder: RunFolder, new: Files, config: Config) -> tuple[str, ...]:
    """Return the results of a ranked run that ``new`` files and ``config`` make out of date.

    A result is out of date if the part of the inputs that it depends on changes, or if it depends on such a result.
    """
    names = {file for one in STAGES for file in one.writes if file.endswith(".json")}
    before: dict[str, Mapping[str, Any]] = {name: folder.read(name, "") for name in names if folder.has(name)}
    after, former = {**before, **new}, Config.from_flat(folder.request()["settings"])
    stale: list[str] = []
    for one in STAGES:
        if set(one.writes) & set(new):
            continue
        if set(one.reads) & set(stale) or one.part(before, former) != one.part(after, config):
            stale.extend(one.writes)
    return tuple(stale)


def misfits(folder: RunFolder) -> tuple[str, ...]:
    """Return the results that are inconsistent with the files of the run, as in runs of earlier versions."""
    inconsistent = [
        one.name for one in STAGES if folder.has(one.done) and one.fits is not None and not one.fits(folder)
    ]
    return tuple(file for name in inconsistent for file in invalidated(name))


def unusable(lost: Iterable[str]) -> tuple[str, ...]:
    """Return the results that must be recreated if these files of the run are lost."""
    lost = list(lost)
    affected = [one.name for one in STAGES if any(_matches(name, (*one.writes, *one.weights)) for name in lost)]
    return tuple(file for name in affected for file in invalidated(name))


def left(folder: RunFolder, names: Iterable[str]) -> list[str]:
    """Return, in order, which of these stages must run: those that are not done, and those that depend on them."""
    pending: list[str] = []
    for name in ordered(names):
        follows = any(stage(name) in downstream(other) for other in pending)
        if follows or not folder.has(stage(name).done):
            pending.append(name)
    return pending


def remove(folder: RunFolder, files: Sequence[str]) -> None:
    """Remove results in one step that survives a killed process. Write nothing if none of them exists."""
    if present := existing(folder, files):
        folder.save_request(folder.request(), drop=present)


def existing(folder: RunFolder, files: Sequence[str]) -> tuple[str, ...]:
    """Return the existing files of the run that match ``files``."""
    _, known = folder.manifest.read()
    plain = [name for name in files if folder.has(name)]
    return tuple(dict.fromkeys([*plain, *(name for name in known if _matches(name, files))]))


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
