"""What samplers the library knows. A new method is one file in this folder with ``@register(...)`` in it."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable
from typing import TypeVar

from poolwise.errors import RequestError, did_you_mean
from poolwise.settings import Settings
from poolwise.supernets.samplers.base import Sampler

_METHODS: dict[str, type[Sampler]] = {}
Method = TypeVar("Method", bound=type[Sampler])


def register(name: str, *, summary: str) -> Callable[[Method], Method]:
    """Decorator that adds a sampler class to the registry under ``name``, with one line on what it does."""

    def add(method: Method) -> Method:
        assert name not in _METHODS, f"two samplers are called {name}"
        method.name, method.about = name, summary
        _METHODS[name] = method
        return method

    return add


def _discover() -> None:
    package = importlib.import_module("poolwise.supernets.samplers")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"poolwise.supernets.samplers.{module.name}")


def available() -> list[type[Sampler]]:
    """Every sampler in the house, by name."""
    _discover()
    return [_METHODS[name] for name in sorted(_METHODS)]


def sampler(name: str) -> type[Sampler]:
    """The sampler called ``name``; call it with a Task. Raises RequestError with the known names otherwise."""
    known = {method.name: method for method in available()}
    if name not in known:
        raise RequestError(f"unknown method {name!r}{did_you_mean(name, known)}. Known methods: {', '.join(known)}")
    return known[name]


def settled(settings: Settings) -> Settings:
    """The settings with the number of SuperNets that their method trains.

    Raises RequestError for an unknown method, and for a warm-up that the method does not know or that has nothing to branch
    into.
    """
    method = sampler(settings.method)
    if settings.warm_up and not method.warms_up:
        knowing = ", ".join(other.name for other in available() if other.warms_up)
        raise RequestError(
            f"warm_up is {settings.warm_up} and method {method.name} has no warm-up: leave it at 0, or use {knowing}"
        )
    if settings.warm_up and not method.single and settings.supernets == 1:
        raise RequestError(
            f"warm_up is {settings.warm_up} and supernets is 1: one SuperNet has none to branch into; give 2 or more"
        )
    if settings.branching == "measured" and not method.doubles:
        knowing = ", ".join(other.name for other in available() if other.doubles)
        raise RequestError(
            f"branching is measured and method {method.name} has as many SuperNets from start to end: use {knowing}"
        )
    if settings.branching == "measured" and settings.warm_up:
        raise RequestError(
            f"branching is measured and warm_up is {settings.warm_up}: SuperNets begin where it pays, or"
            " after a warm-up; leave one of them out"
        )
    if settings.branching == "measured" and settings.supernets not in (None, 1, 2, 4):
        raise RequestError(f"branching is measured and supernets is {settings.supernets}: 1, 2, 4 or auto are allowed")
    asked = settings.supernets
    if asked is not None or method.single:
        asked = method.supernets_used(asked or 1)
    return dataclasses.replace(settings, supernets=asked)


def left_open(settings: Settings, steps: int, configurations: int, most: int) -> tuple[Settings, str]:
    """Settings that leave the number of SuperNets open, with what the method makes of that, and why, in a sentence.

    Args:
        steps: on SuperNets.
        most: SuperNets that there is memory for.
    """
    method = sampler(settings.method)
    count, why = method.supernets_for(steps, configurations, most)
    if count == 1 or not method.doubles or settings.warm_up or settings.branching == "fixed":
        told = f"{count} SuperNet{'' if count == 1 else 's'}: {why}"
        return dataclasses.replace(settings, supernets=count), told
    count = 4 if count >= 4 else 2  # they double
    told = f"1 SuperNet at first, up to {count} where configurations are better off apart: {why}"
    return dataclasses.replace(settings, supernets=count, branching="measured"), told
