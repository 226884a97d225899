"""Schemas of ``exhaustive.json``, of tables, and of the inputs of a comparison: ``study.json`` and ``trials.json``."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, Strict

from poolwise.storage.schemas.common import Space
from poolwise.storage.schemas.fields import (
    Count,
    FileSchema,
    Flag,
    Number,
    Object,
    Omittable,
    Pixels,
    PoolingName,
    Positive,
    Schema,
    Text,
)


class ExhaustiveRow(Schema):
    """The stand-alone trainings of one configuration; the accuracy of a failed training is None."""

    pooling: PoolingName
    accuracies: tuple[Number | None, ...]
    mean: Number | None
    std: Number | None


class FailedTraining(Schema):
    """A training that failed."""

    pooling: PoolingName
    seed: Count
    error: Text


class ExhaustiveSettings(Schema):
    """The part of the config that a table needs."""

    model: Text
    width: Count | None


class ExhaustiveImages(Schema):
    """The number of test images."""

    test: Count


class ExhaustiveFile(FileSchema):
    """``exhaustive.json``: stand-alone trainings of all configurations.

    Attributes:
        noise: standard deviation between seeds in percentage points, pooled over configurations.
        ceiling: Kendall tau-b between seeds.
    """

    FILE: ClassVar[str] = "exhaustive.json"

    space: Space
    steps: Positive
    seeds: tuple[Count, ...]
    results: tuple[ExhaustiveRow, ...]
    failed: tuple[FailedTraining, ...]
    noise: Number | None = None
    ceiling: Number | None = None
    settings: ExhaustiveSettings
    data: ExhaustiveImages


class SpaceOnly(Schema):
    """The field that identifies a JSON file as the description of a table."""

    space: Space


class TableImages(Schema):
    """The images that a table was measured on."""

    image_size: Omittable[Pixels] = None
    classes: Omittable[tuple[Text, ...]] = None
    fingerprint: Text | None = None


class TableRecipe(Schema):
    """The part of the config that a table was measured with."""

    batch_size: Omittable[Positive] = None


class TableFile(SpaceOnly):
    """The JSON file of a tabular benchmark."""

    steps: Omittable[Positive] = None
    model: Omittable[Text] = None
    width: Annotated[int, Strict(), Field(ge=1, le=1_000_000)] | None = None
    source: Omittable[Text] = None
    seeds: tuple[Count, ...] | None = None
    precision: Omittable[Text] = None
    data: Omittable[TableImages] = None
    recipe: TableRecipe | None = None


class StudyFile(FileSchema):
    """``study.json``: the request of a comparison."""

    FILE: ClassVar[str] = "study.json"

    table: Text
    commands: Omittable[tuple[Text, ...]] = None
    recipe: Omittable[Object] = None
    precision: Omittable[Text] = None
    threads: Annotated[int, Strict(), Field(ge=1, le=4096)] | None = None


class TrialsPoint(Schema):
    """Scores of all configurations after spending ``spent_macs`` MACs."""

    spent_macs: Count
    scores: tuple[Number, ...]


class TrialsFile(FileSchema):
    """``trials.json``: the result, within a comparison, of a method that uses stand-alone trainings.

    Attributes:
        accuracies: whether the scores are accuracies (0 to 1).
    """

    FILE: ClassVar[str] = "trials.json"

    scores: tuple[Number, ...]
    accuracies: Flag
    spent_macs: Count
    points: tuple[TrialsPoint, ...]
