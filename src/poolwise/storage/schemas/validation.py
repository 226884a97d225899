"""Validation of parsed JSON. The first error becomes a one-line message with its location."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from poolwise.errors import RequestError
from poolwise.sanitize import visible
from poolwise.storage.schemas.fields import INCONSISTENT, NOT_ALLOWED

M = TypeVar("M", bound=BaseModel)

_ALLOWED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a finite number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "dict_type": "an object",
    "model_type": "an object",
    "list_type": "a list",
    "tuple_type": "a list",
}


def validate(schema: type[M], value: Any, where: str) -> M:
    """Return ``value`` as an instance of ``schema``.

    Args:
        schema: model of the complete value.
        value: parsed JSON.
        where: prefix of the error message: the file and a colon, ``run.json: ``.

    Raises:
        RequestError: the value is invalid; the message gives the location, the value there and what is allowed.
    """
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        raise RequestError(_message(error.errors(include_url=False)[0], value, where)) from None


def _message(error: ErrorDetails, value: Any, where: str) -> str:
    kind, context = error["type"], error.get("ctx", {})
    place = _place(error, value, where)
    if kind == "missing":
        return f"{place} is missing: the file is damaged, or of another version"
    if kind == "extra_forbidden":
        return f"{place} is unknown: the file is damaged"
    if kind == INCONSISTENT:
        return f"{place}{'' if place == where else ' '}{context['message']}: the file is damaged"
    if kind == NOT_ALLOWED:
        allowed = context["allowed"]
    elif kind in ("too_long", "too_short"):
        allowed = f"a list of length {context.get('max_length', context.get('min_length'))}"
    elif kind in ("greater_than_equal", "less_than_equal"):
        allowed = f"at least {context['ge']:g}" if "ge" in context else f"at most {context['le']:g}"
    else:
        allowed = _ALLOWED.get(kind) or error["msg"]
    shown = visible(_shown(error["input"]))[:60]
    return f"{place if place != where else where.rstrip(': ')} is {shown}, expected {allowed}: the file is damaged"


def _place(error: ErrorDetails, value: Any, where: str) -> str:
    """Return the location of an error, such as ``run.json: data.classes[3]``.

    Parts of pydantic's location that are not keys of the value, such as union tags, are omitted.
    """
    place = where
    for part in error["loc"]:
        if isinstance(part, int) and isinstance(value, (list, tuple)):
            place = f"{place}[{part}]"
            value = value[part] if part < len(value) else None
        elif isinstance(part, str) and isinstance(value, dict) and (part in value or error["type"] == "missing"):
            name = visible(part[:60])
            place = f"{place}{name}" if place.endswith(": ") else f"{place}.{name}"
            value = value.get(part)
    return place


def _shown(value: Any) -> str:
    if isinstance(value, (str, float)):
        return repr(value[:60] if isinstance(value, str) else value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**60 else "a number of more than 60 digits"
    return "null" if value is None else type(value).__name__
