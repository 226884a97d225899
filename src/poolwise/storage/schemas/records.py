"""Events, the profile of a search, one stand-alone training, and the manifest."""

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
    """``profile.json``: seconds of each part of a stage, summed over its processes."""

    FILE: ClassVar[str] = "profile.json"

    stage: Text
    steps: Positive
    seconds: dict[str, _Seconds]


class TrialRow(Schema):
    """One stand-alone training, as its SQLite row; a curve is ``[[step, loss], ...]``."""

    pooling: PoolingName
    seed: Count
    budget: Positive
    accuracy: Share | None
    curve: tuple[tuple[Number, Number], ...]
    state: Text
    seconds: Number | None
    error: Text | None


class StageEvent(Schema):
    """A stage ended. Seconds that it took and that were estimated."""

    stage: Text
    planned: Number | None
    seconds: Number


class SearchEvent(Schema):
    """Progress of a search, means since the event before. Fields that a method does not have are missing."""

    step: Count
    loss: Number
    accuracy: Omittable[Number] = None
    entropy: Omittable[Number] = None


class AssignmentEvent(Schema):
    """The assignment p(m | pooling): one row a configuration, one column a SuperNet."""

    step: Count
    assignment: tuple[tuple[Share, ...], ...]


class FilePrint(Schema):
    """SHA-256 and size of a file's content."""

    sha256: Text
    size: Count


class ManifestFile(Schema):
    """``manifest.json``: for each name the contents that are sound, the newest first."""

    run: Text
    files: dict[str, tuple[FilePrint, ...]]
    sha256: Text
