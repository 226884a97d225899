"""The request of a comparison, and what it would train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from poolwise.benchmarks.compare.methods import parse_methods
from poolwise.benchmarks.compare.study import check_controls
from poolwise.config.checks import check_distinct, check_whole
from poolwise.errors import RequestError
from poolwise.statistics.uncertainty import RESAMPLES

_LISTS = ("columns", "controls", "methods", "budgets", "seeds")
_HARDWARE = ("device", "precision", "threads", "workers", "compile")


@dataclass(frozen=True)
class CompareConfig:
    """What is compared with a table of stand-alone accuracies.

    Attributes:
        table: Name of a table of the package, or the folder of one.
        model: Network; by default the table's.
        columns: Rankings that the table holds, such as ``supernets4``; None for all.
        controls: Rankings that need no training; ``naswot`` and ``grad_norm`` need the images of the table.
        methods: What is trained first, at equal compute, such as ``mixture@supernets=8;draw=rounds``; ``all`` for everything.
        budgets: Compute of each method: what so many steps of a single SuperNet and its ranking take.
        seeds: Each gives its own split, initial weights and draws; paired tests are over them.
        supernets: M of samplers that train several SuperNets, where the variant does not set it.
        recipe: Preset that the table's networks were trained with, for a table that does not say it.
        device, precision, threads, workers, compile: Hardware settings; by default the table's, or measured.
        resamples: Bootstrap draws of an interval.

    Raises:
        RequestError: A value is not allowed, or something occurs twice.
    """

    table: str | Path
    model: str | None = None
    columns: Sequence[str] | None = None
    controls: Sequence[str] = ("macs", "productive", "receptive_field")
    methods: Sequence[str] = ()
    budgets: Sequence[int] = (1500,)
    seeds: Sequence[int] = (0, 1, 2)
    supernets: int = 4
    recipe: str | None = None
    device: str | None = None
    precision: str | None = None
    threads: int | None = None
    workers: int | None = None
    compile: str | None = None
    resamples: int = RESAMPLES

    def __post_init__(self) -> None:
        for name in _LISTS:
            value = getattr(self, name)
            if isinstance(value, str):
                raise RequestError(f"{name} is {value!r}: a list is allowed")
            if value is not None:
                object.__setattr__(self, name, tuple(value))
        check_distinct("budgets", self.budgets, 1)
        check_distinct("seeds", self.seeds, 0)
        check_whole("supernets", self.supernets, 1)
        check_whole("resamples", self.resamples, 1)
        check_controls(self.controls)
        parse_methods(self.methods, self.supernets)

    @property
    def hardware(self) -> dict[str, Any]:
        """Hardware settings that are given, by name."""
        values = {name: getattr(self, name) for name in _HARDWARE}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class PlannedEntry:
    """One training of a comparison: a method with a budget and a seed.

    Attributes:
        method: Label of the method.
        seed: Seed of its split, weights and draws.
        budget: Compute in steps of a single SuperNet.
        macs: The same in multiply-adds.
        steps: Steps of its search, or of a full stand-alone training.
        trains: What it trains, in words.
        done: Whether the folder already holds its result.
    """

    method: str
    seed: int
    budget: int
    macs: int
    steps: int
    trains: str
    done: bool


@dataclass(frozen=True)
class ComparisonPlan:
    """What a comparison would train.

    Attributes:
        table: Name of the table.
        methods: Labels of the methods.
        entries: Every training, finished ones as well.
        macs, seconds: Multiply-adds and estimated time of the trainings that are not done.
        workers, threads: Processes, and CPU threads of each.
        precision: Number format.
    """

    table: str
    methods: tuple[str, ...]
    entries: tuple[PlannedEntry, ...]
    macs: int
    seconds: float
    workers: int
    threads: int | None
    precision: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "methods": list(self.methods), "entries": [asdict(entry) for entry in self.entries]}
