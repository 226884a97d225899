"""The stages of a run as one graph: what each reads, what it writes, and what of it is never removed.

The rest follows from it: the order of the stages, which of them are done, which are left, and what a new request or a new
ranking makes out of date. A new stage is one more entry of ``STAGES``.
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
from poolwise.supernets import trainer
from poolwise.supernets.state import SearchState

RUN = ("search", "rank", "retrain", "report")  # what `poolwise run` does
Files = Mapping[str, Mapping[str, Any]]  # content of JSON files by name


@dataclass
class Work:
    """What the stages of one process work with.

    Attributes:
        folder: the run.
        experiment: what the run is about; None for stages that only read files.
        listener: hears of the progress.
        retry: repeat stand-alone trainings that failed.
        state: of a search in this process, so that the ranking need not read it from its checkpoint.
    """

    folder: RunFolder
    experiment: Experiment | None
    listener: Listener
    retry: bool = False
    state: SearchState | None = None


@dataclass(frozen=True)
class Stage:
    """One stage. Names of files may hold ``*``.

    Attributes:
        name: as in the command and in ``run.json``.
        reads: files of other stages that it reads. They are the edges of the graph.
        writes: its results. They are removed when they are out of date, and made again.
        done: the file that shows that no work is left.
        run: does the work.
        keeps: trainings and checkpoints. They are never removed, so that a stage that is done again repeats none of them.
        weights: files among ``keeps`` that belong to the result. Where one is lost, the stage is done again.
        used: returns the part of ``reads`` that the results depend on, from the content of these files and the settings.
            A file that changes elsewhere does not put the results out of date.
        fits: whether results that are there follow from what is read now.
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
        """Return what the results depend on: all of the JSON files that it reads, unless ``used`` says less."""
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
    from poolwise.reports import page  # takes matplotlib with it

    page.write(work.folder)


def _exhaustive(work: Work) -> None:
    assert work.experiment is not None
    members = members_of(work.experiment, work.folder.request()["poolings"])
    exhaustive(work.experiment, work.folder, members, work.listener, work.retry)


def members_of(experiment: Experiment, poolings: Sequence[str] | None) -> list[Pooling]:
    """Return the configurations of an exhaustive run; None for all."""
    space = experiment.space
    return list(space) if poolings is None else [space.parse(name) for name in poolings]


def _picked(files: Files, config: Config) -> object:
    """Retraining depends on which configurations are picked and as what, not on the scores that led there."""
    return picks.choose(files["ranking.json"], files.get("refine.json"), config).roles


def _refined(files: Files, _settings: Config) -> object:
    """Refining depends on the smoothed score of every configuration, and on the order only where not all were ranked.

    Limits of what may be picked do not belong to it: what a refinement says of a configuration stays true within other
    limits, and ``selection.picks`` picks within those of the run.
    """
    return refining.inputs(files["ranking.json"])


# In an order in which each stage follows those that it reads from. The ranking also uses finished trainings of the run
# where it estimates; that is no edge, as these never put a ranking out of date: they are used when it is made again.
STAGES = (
    Stage(
        "search",
        reads=(),
        writes=(),
        done="ranking.json",  # before that, a finished search is restored in no time
        run=_search,
        keeps=("checkpoints/search.safetensors", "short.sqlite"),
    ),
    Stage(
        "rank",
        reads=("checkpoints/search.safetensors", "short.sqlite"),
        writes=("ranking.json",),
        done="ranking.json",
        run=_rank,
    ),
    Stage(
        "refine",
        reads=("ranking.json",),
        writes=("refine.json",),
        done="refine.json",
        run=_refine,
        keeps=("refine.sqlite",),
        used=_refined,
    ),
    Stage(
        "retrain",
        reads=("ranking.json", "refine.json"),
        writes=("verdict.json", "retrain.json"),
        done="retrain.json",
        run=_retrain,
        keeps=("trials.sqlite", "default-*.sqlite"),
        weights=("checkpoints/*-seed*steps.safetensors",),
        used=_picked,
        fits=retraining.fits,
    ),
    Stage(
        "report",
        reads=("ranking.json", "refine.json", "retrain.json"),
        writes=("figures/*", "report.html"),
        done="report.html",
        run=_report,
    ),
    Stage(
        "exhaustive",
        reads=(),
        writes=("exhaustive.json",),
        done="exhaustive.json",
        run=_exhaustive,
        keeps=("trials.sqlite",),
    ),
)
_BY_NAME = {stage.name: stage for stage in STAGES}


def stage(name: str) -> Stage:
    """Return the stage of this name."""
    return _BY_NAME[name]


def ordered(names: Iterable[str]) -> list[str]:
    """Return names of stages in the order in which they are carried out."""
    return sorted(set(names), key=list(_BY_NAME).index)


def downstream(name: str) -> list[Stage]:
    """Return the stages that read what a stage leaves, directly or through others."""
    found: list[Stage] = []
    for later in STAGES[STAGES.index(stage(name)) + 1 :]:
        sources = [stage(name), *found]
        if any(file in (*one.writes, *one.keeps) for one in sources for file in later.reads):
            found.append(later)
    return found


def invalidated(name: str) -> tuple[str, ...]:
    """Return what is out of date where a stage is to be done again: its results and all that follow from them."""
    return tuple(file for one in (stage(name), *downstream(name)) for file in one.writes)


def outdated(folder: RunFolder, new: Files, config: Config) -> tuple[str, ...]:
    """Return the results of a ranked run that are out of date once ``new`` files and ``settings`` are in place.

    Out of date is a result whose stage would now read something else of what it depends on, and what follows from it.
    """
    names = {file for one in STAGES for file in one.writes if file.endswith(".json")}
    before: dict[str, Mapping[str, Any]] = {name: folder.read(name, "") for name in names if folder.has(name)}
    after, former = {**before, **new}, Config.from_flat(folder.request()["settings"])
    found: list[str] = []
    for one in STAGES:
        if set(one.writes) & set(new):
            continue
        if set(one.reads) & set(found) or one.part(before, former) != one.part(after, config):
            found.extend(one.writes)
    return tuple(found)


def misfits(folder: RunFolder) -> tuple[str, ...]:
    """Return the results that do not follow from what the run holds, as in runs of earlier versions."""
    found = [one.name for one in STAGES if folder.has(one.done) and one.fits is not None and not one.fits(folder)]
    return tuple(file for name in found for file in invalidated(name))


def unusable(lost: Iterable[str]) -> tuple[str, ...]:
    """Return the results that are to be made again where files of the run are lost."""
    lost = list(lost)
    found = [one.name for one in STAGES if any(_matches(name, (*one.writes, *one.weights)) for name in lost)]
    return tuple(file for name in found for file in invalidated(name))


def left(folder: RunFolder, names: Iterable[str]) -> list[str]:
    """Return which of these stages are to be carried out, in order: those not done, and those that follow from them."""
    found: list[str] = []
    for name in ordered(names):
        follows = any(stage(name) in downstream(other) for other in found)
        if follows or not folder.has(stage(name).done):
            found.append(name)
    return found


def remove(folder: RunFolder, files: Sequence[str]) -> None:
    """Remove results, all of them whenever the process is killed. Nothing is written where none of them is there."""
    if present := existing(folder, files):
        folder.save_request(folder.request(), drop=present)


def existing(folder: RunFolder, files: Sequence[str]) -> tuple[str, ...]:
    """Return the files of the run that have one of these names."""
    _, known = folder.manifest.read()
    plain = [name for name in files if folder.has(name)]
    return tuple(dict.fromkeys([*plain, *(name for name in known if _matches(name, files))]))


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
