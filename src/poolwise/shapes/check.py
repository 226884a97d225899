"""What a JSON file must look like before any of it is used: types, ranges and the names in it, told in one line.

A shape is a type (``float``: a finite number), a list of one shape, a tuple of shapes, a dict of shapes (``"name?"`` may be
missing, others that are not named are let be), or a function that raises RequestError for what it does not like.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from poolwise.errors import RequestError
from poolwise.sanitize import visible
from poolwise.space import Pooling, read

Shape = Any
_LARGEST = 2**63 - 1
_LARGEST_NUMBER = 1e30
_MOST_LAYERS = 10_000
_MOST_CHARACTERS = 100_000


def check(value: Any, shape: Shape, where: str) -> None:
    """RequestError where ``value`` has not this shape.

    ``where`` is the beginning of what is told then, which leads to the place: the file and a colon, ``run.json: ``.
    """
    if isinstance(shape, dict):
        _check_fields(value, shape, where)
    elif isinstance(shape, (list, tuple)):
        fixed = isinstance(shape, tuple)
        if not isinstance(value, (list, tuple)) or (fixed and len(value) != len(shape)):
            raise _wrong(value, f"a list of {len(shape)}" if fixed else "a list", where)
        for i, inner in enumerate(value):
            check(inner, shape[i] if fixed else shape[0], f"{where}[{i}]")
    elif isinstance(shape, type):
        _check_type(value, shape, where)
    else:
        try:
            shape(value, where)
        except RequestError as error:
            told = str(error)
            raise error if told.startswith(where) else RequestError(f"{where} {told}: the file is damaged") from None


def _check_fields(value: Any, shape: dict[str, Shape], where: str) -> None:
    if not isinstance(value, dict):
        raise _wrong(value, "an object", where)
    for name, inner in shape.items():
        plain = name.removesuffix("?")
        place = inside(where, plain)
        if plain in value:
            check(value[plain], inner, place)
        elif plain == name:
            raise RequestError(f"{place} is missing: the file is damaged, or of another version")


def inside(where: str, name: str) -> str:
    """The place of a field within a place."""
    return where + name if where.endswith(": ") else f"{where}.{name}"


def _check_type(value: Any, kind: type, where: str) -> None:
    if kind is bool or kind is dict:
        right, words = isinstance(value, kind), "true or false" if kind is bool else "an object"
    elif kind is str:
        right, words = isinstance(value, str) and len(value) <= _MOST_CHARACTERS, "a text"
    else:
        numbers = (int,) if kind is int else (int, float)
        right, words = isinstance(value, numbers) and not isinstance(value, bool), "a finite number"
        right = right and abs(value) <= (_LARGEST if kind is int else _LARGEST_NUMBER) and math.isfinite(value)
        words = "a whole number" if kind is int else words
    if not right:
        raise _wrong(value, words, where)


def _wrong(value: Any, allowed: str, where: str) -> RequestError:
    told = value if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
    text = visible(repr(told) if isinstance(told, (str, float)) else str(told)[:60])
    return RequestError(f"{where} is {text[:60]}, and {allowed} is allowed: the file is damaged")


def maybe(shape: Shape) -> Callable[[Any, str], None]:
    """The shape, or null."""

    def look(value: Any, where: str) -> None:
        if value is not None:
            check(value, shape, where)

    return look


def each(shape: Shape) -> Callable[[Any, str], None]:
    """An object whose values have the shape, whatever their names."""

    def look(value: Any, where: str) -> None:
        check(value, dict, where)
        for name, inner in value.items():
            check(inner, shape, inside(where, visible(name[:60])))

    return look


def number(least: float, most: float = _LARGEST, whole: bool = True) -> Callable[[Any, str], None]:
    """A number within bounds."""

    def look(value: Any, where: str) -> None:
        check(value, int if whole else float, where)
        if not least <= value <= most:
            raise _wrong(value, f"from {least:g} to {most:g}", where)

    return look


def pooling(value: Any, where: str) -> None:
    """The name of a configuration."""
    check(value, str, where)
    if str(Pooling.parse(value)) != value:
        raise _wrong(value, "a name like 5-3-2", where)


def space(value: Any, where: str) -> None:
    """What ``PoolingSpace.to_json`` writes, of one number of poolings or of several."""
    whole = number(0, _MOST_LAYERS)
    several = isinstance(value, dict) and isinstance(value.get("poolings"), list)
    known: dict[str, Shape] = {"layers": whole, "poolings": [whole] if several else whole}
    known |= {"min_stage?": whole, "shared_slots?": bool, "also?": [pooling], "members?": [pooling]}
    check(value, known, where)
    unknown = set(value) - {name.removesuffix("?") for name in known}
    if unknown:
        raise RequestError(f"{where}: unknown {visible(min(unknown)[:60])}: the file is damaged")
    read(whole_of(value))


def whole_of(value: dict[str, Any]) -> dict[str, Any]:
    """The space that a subset is of, or the space itself; as plain values."""
    return {name: own for name, own in value.items() if name != "members"}
