"""Schemas of events, the profile of a stage, stand-alone trainings and the manifest."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, Strict

from poolwise.storage.schemas.fields import (
    Count,
    FileSchema,
    Number,
    Omittable,
    PoolingName,
    Positive,
    Schema,
    Share,
    Text,
)

_Seconds = Annotated[float, Strict(), Field(ge=0, le=1e12, allow_inf_nan=False)]


class ProfileFile(FileSchema):
    """``profile.json``: seconds spent in each part of a stage, summed over its processes."""

    FILE: ClassVar[str] = "profile.json"

    stage: Text
    steps: Positive
    seconds: dict[str, _Seconds]


class TrialRow(Schema):
    """One stand-alone training, as stored in SQLite; ``budget`` is its steps, a curve is ``[[step, loss], ...]``."""

    pooling: PoolingName
    seed: Count
    budget: Positive
    accuracy: Share | None
    curve: tuple[tuple[Number, Number], ...]
    state: Text
    seconds: Number | None
    error: Text | None


class StageEvent(Schema):
    """The end of a stage, with its estimated (``planned``) and actual duration in seconds."""

    stage: Text
    planned: Number | None
    seconds: Number


class SearchEvent(Schema):
    """Progress of a search: means since the previous event. Fields that do not apply to a method are missing."""

    step: Count
    loss: Number
    accuracy: Omittable[Number] = None
    entropy: Omittable[Number] = None


class AssignmentEvent(Schema):
    """The assignment p(m | pooling): one row per configuration, one column per SuperNet."""

    step: Count
    assignment: tuple[tuple[Share, ...], ...]


class FilePrint(Schema):
    """SHA-256 and size of a file's content."""

    sha256: Text
    size: Count


class ManifestFile(Schema):
    """``manifest.json``: for each file name the fingerprints of its valid contents, newest first."""

    run: Text
    files: dict[str, tuple[FilePrint, ...]]
    sha256: Text
