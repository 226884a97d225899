"""Checks of values that a user gives, with one message for each kind of mistake."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from poolwise.errors import RequestError, abbreviated


def check_integer(name: str, value: Any, least: int) -> None:
    """Raise RequestError unless ``value`` is an integer of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise RequestError(f"{name} is {abbreviated(value)}: use an integer of at least {least}")


def check_positive(name: str, value: Any) -> None:
    """Raise RequestError unless ``value`` is a finite number above 0."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
        raise RequestError(f"{name} is {abbreviated(value)}: use a finite number above 0")


def check_distinct(name: str, values: Sequence[Any], least: int) -> None:
    """Raise RequestError unless ``values`` are integers of at least ``least``, one or more, each once."""
    if not values or len(set(values)) < len(values):
        raise RequestError(f"{name} {', '.join(map(str, values)) or 'none'}: list at least one, each once")
    if not all(isinstance(value, int) and not isinstance(value, bool) and value >= least for value in values):
        listed = ", ".join(map(str, values))
        raise RequestError(f"{name} {listed}: use integers of at least {least}")
