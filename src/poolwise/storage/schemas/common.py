"""Schemas that several files share: spaces, images, hardware and versions, the three picks."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, PrivateAttr, Strict, Tag, model_validator

from poolwise.errors import RequestError
from poolwise.spaces import PoolingSpace, read
from poolwise.storage.schemas.fields import (
    Count,
    Flag,
    Omittable,
    Pixels,
    PoolingName,
    Positive,
    Schema,
    Text,
    inconsistent,
)

_MAX_LAYERS = 10_000
_LayerCount = Annotated[int, Strict(), Field(ge=0, le=_MAX_LAYERS)]
_Counts = Annotated[
    Annotated[_LayerCount, Tag("one")] | Annotated[tuple[_LayerCount, ...], Tag("several")],
    Discriminator(lambda value: "several" if isinstance(value, (list, tuple)) else "one"),
]
PICKS = ("best", "best_at_default_macs", "best_for_cost")


class Space(Schema):
    """The output of ``PoolingSpace.to_json``: a space with one or several numbers of poolings, or a subspace."""

    model_config = ConfigDict(extra="forbid")

    layers: _LayerCount
    poolings: _Counts
    min_stage: Omittable[_LayerCount] = None
    shared_slots: Omittable[Flag] = None
    also: Omittable[tuple[PoolingName, ...]] = None
    members: Omittable[tuple[PoolingName, ...]] = None
    _full: PoolingSpace = PrivateAttr()

    @model_validator(mode="after")
    def _is_a_space(self) -> Space:
        try:
            self._full = read({name: value for name, value in self.to_json().items() if name != "members"})
        except RequestError as error:
            raise inconsistent(str(error)) from None
        return self

    @property
    def full(self) -> PoolingSpace:
        """The full space: the space itself or, for a subspace, the space that it was taken from."""
        return self._full

    def to_space(self) -> PoolingSpace:
        """Return the space or, if members are listed, the subspace. Raises RequestError if one is not in the space."""
        return read(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are present in the file."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}


class Images(Schema):
    """The images of a run.

    Attributes:
        training_half: number of images that the search trains on.
        scoring_half: number of images on which configurations are scored.
        note: remark on the data set, shown in the report.
    """

    name: Text
    fingerprint: Text
    classes: tuple[Text, ...]
    image_size: Pixels
    training_half: Positive
    scoring_half: Positive
    note: Omittable[Text] = None


class Hardware(Schema):
    """The machine that produced a result."""

    processor: Text
    threads: Count
    accelerator: Text | None = None


class Environment(Schema):
    """Versions and hardware that a result depends on."""

    versions: dict[str, Text]
    hardware: Hardware


def _three(picks: dict[str, str]) -> dict[str, str]:
    for name in PICKS:
        if name not in picks:
            raise inconsistent(f"has no {name}")
    return picks


Picks = Annotated[dict[str, PoolingName], AfterValidator(_three)]


def check_among(known: set[str], named: dict[str, str]) -> None:
    """Raise a validation error if a named configuration is not among the known ones."""
    for name, pooling in named.items():
        if pooling not in known:
            raise inconsistent(f"{name} {pooling} is not among its configurations")
