"""``exhaustive.json``, tables, and the files of a comparison: ``study.json`` and ``trials.json``."""

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
    """The stand-alone trainings of one configuration; no accuracy where one failed."""

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
    """The settings that a table needs."""

    model: Text
    width: Count | None


class ExhaustiveImages(Schema):
    """Number of test images."""

    test: Count


class ExhaustiveFile(FileSchema):
    """``exhaustive.json``.

    Attributes:
        noise: standard deviation between seeds in points, pooled over configurations.
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
    """The field that makes a JSON file the description of a table."""

    space: Space


class TableImages(Schema):
    """The images that a table was made with."""

    image_size: Omittable[Pixels] = None
    classes: Omittable[tuple[Text, ...]] = None
    fingerprint: Text | None = None


class TableRecipe(Schema):
    """The settings that a table was made with."""

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
    """Scores of all configurations after so many MACs."""

    spent_macs: Count
    scores: tuple[Number, ...]


class TrialsFile(FileSchema):
    """``trials.json``: the result of a method of stand-alone trainings within a comparison.

    Attributes:
        accuracies: whether the scores are accuracies, 0 to 1.
    """

    FILE: ClassVar[str] = "trials.json"

    scores: tuple[Number, ...]
    accuracies: Flag
    spent_macs: Count
    points: tuple[TrialsPoint, ...]
