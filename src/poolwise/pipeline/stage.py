"""What a stage of a run is: its files, its work, its cost, and the context it works in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from poolwise.config import Config
from poolwise.experiment import Experiment
from poolwise.pipeline.costs import Planner, Trainings
from poolwise.progress import Listener
from poolwise.storage import RunFolder
from poolwise.supernets.state import SearchState
from poolwise.training.calibration import Parallel

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


class Length(NamedTuple):
    """The length of a stage, which a time budget chooses.

    Attributes:
        setting: The setting with the number of steps.
        steps: Returns the steps that are requested now.
        share: Share of the time, relative to the other stages.
    """

    setting: str
    steps: Callable[[Experiment], int]
    share: float


@dataclass(frozen=True)
class Stage:
    """One stage. File names may contain ``*``.

    Attributes:
        name: Name, as in the command and in ``run.json``.
        reads: Files of other stages that this stage reads. They are the edges of the graph.
        writes: Result files. They are removed and recreated when they are out of date.
        done: If this file exists, the stage is done. For the search it is the result of the ranking; see ``finished``.
        run: Function that does the work.
        keeps: Trainings and checkpoints. They are never removed, so that a repeated stage can reuse them.
        weights: Trained weights that are part of the result. If one is lost, the stage is repeated.
        used: Returns the part of ``reads`` that the results depend on, given the contents of the files and the config.
            Changes to other parts do not invalidate the results.
        fits: Returns whether existing results are consistent with the files that the stage reads now.
        finished: Returns whether all work is done although ``done`` is missing. The stage then runs only if a stage that
            reads its files must run, which is fast and gives that stage the state in memory.
        remade: Results that are rebuilt from ``keeps`` without training if they are deleted.
        needs_experiment: Whether the stage needs the network and the images.
        check: Raises RequestError for a config that the stage cannot be run with.
        listed: Whether the stage trains the configurations that the request lists (``poolings``; all by default).
        plan: Estimates the cost; None if it is negligible.
        trainings: Returns the stand-alone trainings that the stage needs now; None if they are not known yet.
        parallel: Kind of work, and a function that returns its processes and threads.
        disk: Returns the bytes of the weights that remain.
        length: The length, if a time budget can choose it.
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
    finished: Callable[[RunFolder], bool] | None = None
    remade: tuple[str, ...] = ()
    needs_experiment: bool = True
    check: Callable[[Config], None] | None = None
    listed: bool = False
    plan: Planner | None = None
    trainings: Callable[[RunFolder, Experiment], Trainings | None] | None = None
    parallel: tuple[str, Callable[[Experiment], Parallel]] | None = None
    disk: Callable[[Experiment], int] | None = None
    length: Length | None = None

    def part(self, files: Files, config: Config) -> object:
        """Return what the results depend on: ``used`` if it is set, otherwise all files that the stage reads."""
        return self.used(files, config) if self.used else [files.get(name) for name in self.reads]
