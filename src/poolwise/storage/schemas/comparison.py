"""Schemas of the results of a comparison and of a simulation: ``compare.json`` and ``simulate.json``."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, Strict, ValidationError, model_validator

from poolwise.storage.schemas.common import Environment, Space
from poolwise.storage.schemas.fields import (
    Count,
    FileSchema,
    Interval,
    Number,
    Omittable,
    PoolingName,
    Positive,
    Schema,
    Text,
    inconsistent,
)

_Score = Annotated[float, Strict(), Field(allow_inf_nan=False)]  # of any size


class ComparedTable(Schema):
    """The table that rankings were evaluated against."""

    name: Text
    space: Space
    model: Omittable[Text] = None
    source: Omittable[Text] = None


class Measured(Schema):
    """A measure of one ranking, with its interval over configurations."""

    value: Number
    low: Number
    high: Number


class Averaged(Schema):
    """A measure averaged over seeds; the standard deviation of a single seed is None."""

    mean: Number
    std: Number | None
    low: Number
    high: Number


class _Ranked(Schema):
    """A method and its compute. The measures are further fields, whose names are in ``measures`` of the file."""

    model_config = ConfigDict(extra="allow")

    method: Text
    budget: Count | None
    budget_macs: Count | None
    spent_macs: Number | None
    treatment: Text


class CompareRow(_Ranked):
    """One ranking with one treatment of its scores."""

    seed: Count
    first: PoolingName


class CompareSummary(_Ranked):
    """The rankings of one method with one treatment of their scores, averaged over seeds."""

    n: Positive

    def measure(self, name: str) -> Averaged:
        """Return a measure of ``CompareFile.measures``."""
        return Averaged.model_validate((self.model_extra or {}).get(name))


class CompareEntry(Schema):
    """The scores of one ranking, in the order of the table's space."""

    method: Text
    seed: Count
    budget: Count | None
    budget_macs: Count | None
    scores: tuple[_Score, ...]


class ComparePair(Schema):
    """A paired test of two methods."""

    first: Text
    second: Text
    budget: Count | None
    budget_macs: Count | None
    treatment: Text
    measure: Text
    n: Positive
    difference: Number
    interval: Interval
    permutation: Number
    wilcoxon: Number | None


class ComparePoint(Schema):
    """The quality of a ranking after spending ``spent_macs`` MACs."""

    method: Text
    seed: Count
    budget: Count | None
    spent_macs: Count
    tau_b: Number
    regret: Number = Field(alias="regret@1")


class CompareFile(FileSchema, Environment):
    """``compare.json``: rankings evaluated against a table.

    Attributes:
        noise: standard deviation between seeds of the table in percentage points.
        ceiling: Kendall tau-b between seeds of the table.
        truth: accuracy in percent of each configuration of ``poolings``.
        measures: names of the measures in ``rows`` and ``summary``.
        failed: one line for each entry whose training failed.
    """

    FILE: ClassVar[str] = "compare.json"

    table: ComparedTable
    noise: Number | None
    ceiling: Number | None
    poolings: tuple[PoolingName, ...]
    truth: tuple[Number, ...]
    measures: tuple[Text, ...]
    failed: tuple[Text, ...]
    entries: tuple[CompareEntry, ...]
    rows: tuple[CompareRow, ...]
    summary: tuple[CompareSummary, ...]
    pairs: tuple[ComparePair, ...]
    anytime: tuple[ComparePoint, ...]
    resamples: Positive
    command: Text

    @model_validator(mode="after")
    def _is_complete(self) -> CompareFile:
        for name, values in (
            ("truth", self.truth),
            *((f"entries[{i}].scores", entry.scores) for i, entry in enumerate(self.entries)),
        ):
            if len(values) != len(self.poolings):
                raise inconsistent(f"{name} has {len(values)} values for {len(self.poolings)} configurations")
        self._check_measures("rows", self.rows, Measured)
        self._check_measures("summary", self.summary, Averaged)
        return self

    def _check_measures(self, name: str, rows: tuple[_Ranked, ...], schema: type[Schema]) -> None:
        for i, row in enumerate(rows):
            for measure in self.measures:
                value: Any = (row.model_extra or {}).get(measure)
                try:
                    schema.model_validate(value)
                except ValidationError:
                    raise inconsistent(f"{name}[{i}] has no valid measure {measure[:60]}") from None


class SimulatedMethod(Schema):
    """One method; every list has one value per number of full-length trainings.

    Attributes:
        mean, q10, q50, q90: regret of the first choice in percentage points.
        found: share of runs whose first choice is within the tolerance.
        reached: share of runs that have trained a configuration within the tolerance.
        compute: compute so far, as a share of training every configuration.
    """

    method: Text
    search_macs: Count
    mean: tuple[Number, ...]
    q10: tuple[Number, ...]
    q50: tuple[Number, ...]
    q90: tuple[Number, ...]
    found: tuple[Number, ...]
    reached: tuple[Number, ...]
    compute: tuple[Number, ...]


class SimulateFile(FileSchema, Environment):
    """``simulate.json``: methods that choose stand-alone trainings, simulated with the accuracies of a table."""

    FILE: ClassVar[str] = "simulate.json"

    table: Text
    model: Text
    runs: Positive
    trials: Positive
    tolerance: Number
    methods: tuple[SimulatedMethod, ...]
    command: Text

    @model_validator(mode="after")
    def _is_complete(self) -> SimulateFile:
        for i, row in enumerate(self.methods):
            for name in ("mean", "q10", "q50", "q90", "found", "reached", "compute"):
                if len(getattr(row, name)) != self.trials:
                    raise inconsistent(
                        f"methods[{i}].{name} has {len(getattr(row, name))} values for {self.trials} trainings"
                    )
        return self
