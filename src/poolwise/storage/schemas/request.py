"""Schemas of ``run.json``: the request, and the choices made for this machine."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, Strict

from poolwise.storage.schemas.common import Environment, Images, Space
from poolwise.storage.schemas.fields import FileSchema, Number, Object, Omittable, PoolingName, Positive, Schema, Text


class Limits(Schema):
    """Measured quantities that constrain the picks: latency in milliseconds, by configuration name."""

    latency_ms: Omittable[dict[str, Number]] = None


class RunFile(FileSchema):
    """``run.json`` of any folder. Stand-alone trainings within a comparison have fewer fields."""

    FILE: ClassVar[str] = "run.json"

    settings: Omittable[Object] = None
    stages: Omittable[tuple[Text, ...]] = None
    commands: Omittable[tuple[Text, ...]] = None
    poolings: tuple[PoolingName, ...] | None = None
    limits: Omittable[Limits] = None


class RequestImages(Images):
    """The images of a run, with their mean and standard deviation per channel."""

    mean: tuple[Number, ...] | None = None
    std: tuple[Number, ...] | None = None


class Weights(Schema):
    """The weights that trainings start from.

    Attributes:
        source: file or name; called ``from`` in the file.
        used_by: ``search``, ``retrain`` or ``both``; called ``for`` in the file.
        new: parts that are initialized randomly.
    """

    source: Text = Field(alias="from")
    sha256: Text
    used_by: Text = Field(alias="for")
    new: tuple[Text, ...] = Field(alias="anew")


class Parallel(Schema):
    """Number of worker processes, and of threads in each."""

    workers: Annotated[int, Strict(), Field(ge=1, le=1024)]
    threads: Annotated[int, Strict(), Field(ge=1, le=4096)]
    slowdown: Omittable[Annotated[float, Strict(), Field(ge=0, le=1e6, allow_inf_nan=False)]] = None


class Calibration(Schema):
    """Choices made for this machine when the run started."""

    precision: Text
    parallel: Parallel
    block: Positive | None = None


class RunRequest(RunFile, Environment):
    """``run.json`` of a run that trains or ranks."""

    settings: Object
    stages: tuple[Text, ...]
    commands: tuple[Text, ...]
    space: Space
    default: PoolingName
    data: RequestImages
    weights: Omittable[Weights] = None
    calibration: Calibration
