"""The stages of a run as a graph: the files that each stage reads, writes, and never removes.

The graph determines the order of the stages, which of them must run, what they cost, and which results a new request or
ranking makes out of date. The runner, the estimates and the run folder treat all stages alike.

To add a stage, add a ``Stage`` to ``STAGES`` and an estimate to ``pipeline.costs``. What users see of it is written by hand:

- a schema of its result file (``storage/schemas/``, listed in ``FILES``),
- a function and a result type (``api/running.py``, ``api/results.py``), exported by ``api`` and ``poolwise``,
- a command (``cli/commands.py``), its place in the help (``cli/options.py: Sections``) and its output (``cli/show.py``),
- its section of the report, if it has one (``reports/page.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

from poolwise import parallelism
from poolwise.config import Config
from poolwise.errors import RequestError, did_you_mean
from poolwise.experiment import Experiment
from poolwise.models import requested_space
from poolwise.pipeline import costs
from poolwise.pipeline.costs import Trainings
from poolwise.pipeline.stage import Files, Length, Stage, Work
from poolwise.rankings import proxy_training, scoring
from poolwise.selection import picks
from poolwise.selection import refine as refining
from poolwise.selection import retrain as retraining
from poolwise.selection.exhaustive import exhaustive
from poolwise.spaces import Pooling
from poolwise.storage import RunFolder, checkpoint_name
from poolwise.storage.schemas import ExhaustiveFile, RankingFile, RefineFile, RetrainFile, VerdictFile
from poolwise.supernets import samplers, trainer
from poolwise.supernets.budget import total_steps
from poolwise.supernets.state import CHECKPOINT, SearchState

RUN_STAGES = ("search", "rank", "retrain", "report")  # names of the stages of `poolwise run`


def _search(work: Work) -> None:
    assert work.experiment is not None
    work.state = SearchState.open(work.experiment, work.folder)
    trainer.train(work.state, work.folder, work.listener)
    proxy_training.train(work.experiment, work.folder, work.listener)


def _searched(folder: RunFolder) -> bool:
    """Return whether a search has ended and its checkpoint is intact."""
    ended = any(event.get("stage") == "search" for event in folder.events("stage"))
    return ended and folder.is_intact(checkpoint_name(CHECKPOINT))


def _check_choice(config: Config) -> None:
    """Raise RequestError if the network has only one configuration, or too many for the method of the search."""
    space = requested_space(config).full
    if space.size < 2:
        raise RequestError(
            f"{config.model.name} has only one configuration with {space.poolings} downsamplings in {space.layers} layers: there"
            f" is nothing to search, so allow another number, --poolings {max(space.poolings - 1, 0)},{space.poolings}"
        )
    samplers.sampler(config.search.method).check_size(requested_space(config).size)


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


def _retrainings(folder: RunFolder, experiment: Experiment) -> Trainings | None:
    """Return the trainings of the current picks; None if the run is not ranked."""
    if not folder.has(RankingFile.FILE):
        return None
    roles = picks.picks_of(folder, experiment.config).roles
    return [(Pooling.parse(pooling), experiment.config.retrain.seeds) for pooling in roles]


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


def listed_trainings(experiment: Experiment, poolings: Sequence[str] | None) -> Trainings:
    """Return the trainings of an exhaustive run: ``members_of``, with the number of seeds."""
    return [(pooling, experiment.config.retrain.seeds) for pooling in members_of(experiment, poolings)]


def _picked(files: Files, config: Config) -> object:
    """Return what retraining depends on: the picked configurations and their roles, not the scores behind them."""
    return picks.choose(files[RankingFile.FILE], files.get(RefineFile.FILE), config).roles


def _refined(files: Files, _settings: Config) -> object:
    """Return what refinement depends on: the smoothed scores, and the order only if not all configurations are ranked.

    Limits on the picks are not part of it: refinement results remain valid under other limits, and ``selection.picks``
    applies the limits of the run.
    """
    return refining.inputs(files[RankingFile.FILE])


_STANDALONE = ("trainings", parallelism.for_trainings)
_RETRAINING = Length("retrain_steps", lambda experiment: experiment.retrain_steps, 2.0)
# Topological order: each stage follows the stages whose files it reads. The ranking also uses finished trainings of the
# run. That is not an edge because trainings never invalidate a ranking; they are used the next time it is computed.
STAGES = (
    Stage(
        "search",
        reads=(),
        writes=(),
        done=RankingFile.FILE,
        finished=_searched,
        run=_search,
        keeps=(checkpoint_name(CHECKPOINT), proxy_training.FILE),
        check=_check_choice,
        plan=costs.search,
        parallel=("search", parallelism.for_search),
        disk=costs.search_bytes,
        length=Length("steps", total_steps, 3.0),
    ),
    Stage(
        "rank",
        reads=(checkpoint_name(CHECKPOINT), proxy_training.FILE),
        writes=(RankingFile.FILE,),
        done=RankingFile.FILE,
        run=_rank,
        plan=costs.ranking,
    ),
    Stage(
        "refine",
        reads=(RankingFile.FILE,),
        writes=(RefineFile.FILE,),
        done=RefineFile.FILE,
        run=_refine,
        keeps=("refine.sqlite",),
        used=_refined,
        remade=(RefineFile.FILE,),
        plan=costs.refinement,
        parallel=_STANDALONE,
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
        remade=(RetrainFile.FILE,),
        plan=costs.retraining,
        trainings=_retrainings,
        parallel=_STANDALONE,
        disk=costs.retraining_bytes,
        length=_RETRAINING,
    ),
    Stage(
        "report",
        reads=(RankingFile.FILE, RefineFile.FILE, RetrainFile.FILE),
        writes=("figures/*", "report.html"),
        done="report.html",
        run=_report,
        needs_experiment=False,
    ),
    Stage(
        "exhaustive",
        reads=(),
        writes=(ExhaustiveFile.FILE,),
        done=ExhaustiveFile.FILE,
        run=_exhaustive,
        keeps=("trials.sqlite",),
        remade=(ExhaustiveFile.FILE,),
        listed=True,
        plan=costs.exhaustive,
        trainings=lambda folder, experiment: listed_trainings(experiment, folder.request()["poolings"]),
        parallel=_STANDALONE,
        length=_RETRAINING,
    ),
)
_BY_NAME = {stage.name: stage for stage in STAGES}
REMADE = tuple(file for one in STAGES for file in one.remade)


def stage(name: str) -> Stage:
    """Return the stage called ``name``, which must exist."""
    assert name in _BY_NAME, f"no stage is called {name!r}"
    return _BY_NAME[name]


def check_names(names: Iterable[str]) -> None:
    """Raise RequestError if a user or a file names a stage that does not exist."""
    for name in names:
        if name not in _BY_NAME:
            raise RequestError(
                f"unknown stage {name[:60]!r}{did_you_mean(name, _BY_NAME, '.')} Known: {', '.join(_BY_NAME)}"
            )


def ordered(names: Iterable[str]) -> list[str]:
    """Return the names of stages in execution order."""
    return sorted(set(names), key=lambda name: STAGES.index(stage(name)))


def downstream(name: str) -> list[Stage]:
    """Return the stages that depend on a stage, directly or indirectly."""
    dependents: list[Stage] = []
    for later in STAGES[STAGES.index(stage(name)) + 1 :]:
        sources = [stage(name), *dependents]
        if any(file in (*one.writes, *one.keeps) for one in sources for file in later.reads):
            dependents.append(later)
    return dependents


def waits(name: str, others: Iterable[str]) -> bool:
    """Return whether a stage depends on one of the other stages."""
    return any(stage(name) in downstream(other) for other in others)


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
    """Return, in order, which of these stages must run: those that are not done, and those that depend on them.

    A stage that is finished, but has no result of its own, runs only for a stage that depends on it.
    """
    pending: list[str] = []
    for name in ordered(names):
        follows = waits(name, pending)
        if follows or not folder.has(stage(name).done):
            pending.append(name)
    return [name for name in pending if not _is_finished(folder, name) or _feeds(name, pending)]


def _is_finished(folder: RunFolder, name: str) -> bool:
    finished = stage(name).finished
    return finished is not None and finished(folder)


def _feeds(name: str, others: Iterable[str]) -> bool:
    """Return whether one of the other stages depends on this one."""
    return any(stage(other) in downstream(name) for other in others)


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
