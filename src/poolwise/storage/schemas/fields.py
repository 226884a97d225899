"""Field types of the JSON files: bounded numbers, strings, and names of configurations.

Types are strict: ``"1"`` and ``true`` are not numbers. An integer is accepted where a float is expected.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, Strict
from pydantic_core import PydanticCustomError

from poolwise.errors import RequestError
from poolwise.spaces import Pooling

NOT_ALLOWED, INCONSISTENT = "not_allowed", "inconsistent"  # custom pydantic error types
_LARGEST = 2**63 - 1
_LARGEST_NUMBER = 1e30
_MAX_CHARACTERS = 100_000


class Schema(BaseModel):
    """Base class of all schemas. Instances are immutable; unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class FileSchema(Schema):
    """Base class of the schemas that describe a complete file of a run folder.

    Attributes:
        FILE: name of the file.
        REMEDY: advice if the file does not exist yet; ``{run}`` is replaced by the run folder.
    """

    FILE: ClassVar[str]
    REMEDY: ClassVar[str] = "poolwise resume {run}"


def not_allowed(allowed: str) -> PydanticCustomError:
    """Return the error for a value of the wrong kind; ``allowed`` names the allowed kind."""
    return PydanticCustomError(NOT_ALLOWED, "{allowed}", {"allowed": allowed})


def inconsistent(message: str) -> PydanticCustomError:
    """Return the error for values that contradict each other."""
    return PydanticCustomError(INCONSISTENT, "{message}", {"message": message})


def _text(value: Any) -> str:
    # pydantic's str type rejects lone surrogates, which file names and command lines may contain
    if not isinstance(value, str) or len(value) > _MAX_CHARACTERS:
        raise not_allowed("a string")
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
        raise not_allowed("a value or no field")
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
