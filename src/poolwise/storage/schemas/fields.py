"""Field types of the JSON files: bounded numbers, texts, and names of configurations.

Numbers and texts are strict: ``"1"`` and ``true`` are no numbers. A whole number is accepted where a real number is expected.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, Strict
from pydantic_core import PydanticCustomError

from poolwise.errors import RequestError
from poolwise.spaces import Pooling

NOT_ALLOWED, INCONSISTENT = "not_allowed", "inconsistent"  # our own kinds of errors
_LARGEST = 2**63 - 1
_LARGEST_NUMBER = 1e30
_MAX_CHARACTERS = 100_000


class Schema(BaseModel):
    """Base of all schemas: immutable; fields that a schema does not name are allowed and ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class FileSchema(Schema):
    """Base of the schemas of whole files of a run folder.

    Attributes:
        FILE: name of the file.
        REMEDY: what to do where it does not exist yet; ``{run}`` stands for the run folder.
    """

    FILE: ClassVar[str]
    REMEDY: ClassVar[str] = "poolwise resume {run}"


def not_allowed(allowed: str) -> PydanticCustomError:
    """The error of a value that is not of the allowed kind; ``allowed`` names that kind."""
    return PydanticCustomError(NOT_ALLOWED, "{allowed}", {"allowed": allowed})


def inconsistent(message: str) -> PydanticCustomError:
    """The error of values that contradict each other."""
    return PydanticCustomError(INCONSISTENT, "{message}", {"message": message})


def _text(value: Any) -> str:
    # pydantic's own str refuses lone surrogates, which file names and command lines may contain
    if not isinstance(value, str) or len(value) > _MAX_CHARACTERS:
        raise not_allowed("a text")
    return value


def _pooling_name(value: Any) -> str:
    try:
        if str(Pooling.parse(_text(value))) == value:
            return str(value)
    except RequestError:
        pass
    raise not_allowed("a name like 5-3-2")


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise not_allowed("an object")
    return value


def _present(value: Any) -> Any:
    if value is None:
        raise not_allowed("a value or no such field")
    return value


Integer = Annotated[int, Strict(), Field(ge=-_LARGEST, le=_LARGEST)]
Count = Annotated[int, Strict(), Field(ge=0, le=_LARGEST)]
Positive = Annotated[int, Strict(), Field(ge=1, le=_LARGEST)]
SuperNets = Annotated[int, Strict(), Field(ge=1, le=10_000)]
Pixels = Annotated[int, Strict(), Field(ge=1, le=100_000)]
Number = Annotated[float, Strict(), Field(ge=-_LARGEST_NUMBER, le=_LARGEST_NUMBER, allow_inf_nan=False)]
Share = Annotated[float, Strict(), Field(ge=-1, le=2, allow_inf_nan=False)]
Ratio = Annotated[float, Strict(), Field(ge=1e-9, le=1e9, allow_inf_nan=False)]
Flag = Annotated[bool, Strict()]
Interval = tuple[Number, Number]
Text = Annotated[str, PlainValidator(_text)]
PoolingName = Annotated[str, PlainValidator(_pooling_name)]
Object = Annotated[dict[str, Any], PlainValidator(_object)]  # any content

T = TypeVar("T")
Omittable = Annotated[T | None, BeforeValidator(_present)]  # may be missing, but not null
