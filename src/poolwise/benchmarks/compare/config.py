"""Config of a comparison, and its plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from poolwise.benchmarks.compare.methods import parse_methods
from poolwise.benchmarks.compare.study import check_controls
from poolwise.config.checks import check_distinct, check_integer
from poolwise.errors import RequestError
from poolwise.statistics.uncertainty import RESAMPLES

_LISTS = ("columns", "controls", "methods", "budgets", "seeds")
_HARDWARE = ("device", "precision", "threads", "workers", "compile")


@dataclass(frozen=True)
class CompareConfig:
    """Options of a comparison with a table of stand-alone accuracies.

    Attributes:
        table: Name of a bundled table, or a folder with a table.
        model: Network; by default that of the table.
        columns: Rankings stored in the table, such as ``supernets4``; None for all.
        controls: Rankings that need no training: counts, or zero-cost proxies, which need the images of the table. ``naswot``
            is a mean over draws of weights and images, ``naswot-order`` their stochastic order.
        methods: Methods to train at equal compute, such as ``mixture@supernets=8;draw=rounds``; ``all`` for every
            method.
        budgets: Compute per method, as the number of steps of a single SuperNet; its ranking is added.
        seeds: Each seed determines a split, initial weights and random draws; paired tests are over seeds.
        supernets: M of samplers that train several SuperNets, unless the variant sets it.
        recipe: Preset that the networks of the table were trained with, if the table does not state it.
        device, precision, threads, workers, compile: Hardware settings; by default from the table, or measured.
        resamples: Bootstrap draws per interval.

    Raises:
        RequestError: A value is invalid or occurs twice.
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
                raise RequestError(f"{name} is {value!r}: use a list")
            if value is not None:
                object.__setattr__(self, name, tuple(value))
        check_distinct("budgets", self.budgets, 1)
        check_distinct("seeds", self.seeds, 0)
        check_integer("supernets", self.supernets, 1)
        check_integer("resamples", self.resamples, 1)
        check_controls(self.controls)
        parse_methods(self.methods, self.supernets)

    @property
    def hardware(self) -> dict[str, Any]:
        """Return the hardware settings that are not None, by name."""
        values = {name: getattr(self, name) for name in _HARDWARE}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class PlannedEntry:
    """One planned entry of a comparison: a method with a budget and a seed.

    Attributes:
        method: Label of the method.
        seed: Seed of its split, weights and draws.
        budget: Compute in steps of a single SuperNet.
        macs: The same compute in MACs.
        steps: Steps of the search, or of a full stand-alone training.
        trains: Description of what is trained.
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
    """Plan of a comparison.

    Attributes:
        table: Name of the table.
        methods: Labels of the methods.
        entries: All entries, including finished ones.
        macs, seconds: MACs and estimated time of the unfinished entries.
        workers, threads: Number of processes, and CPU threads of each.
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
