"""Find a network by its name: one of this library's families, or a network of another library or of the user."""

from __future__ import annotations

import importlib
import pkgutil

from poolwise.errors import RequestError, did_you_mean
from poolwise.networks import others
from poolwise.networks.registry import Family, registered


def available() -> list[Family]:
    """Return every family of this library, by name."""
    package = importlib.import_module("poolwise.networks")
    for module in pkgutil.iter_modules(package.__path__):  # importing the file of a family registers it
        importlib.import_module(f"poolwise.networks.{module.name}")
    return registered()


def family(name: str) -> Family:
    """Return the family called ``name``; a network that is not of this library is wrapped as one.

    Raises:
        RequestError: Nothing has this name; the message lists the known names.
    """
    if others.is_other(name):
        return others.family_of(name)
    known = {family.name: family for family in available()}
    if name not in known:
        raise RequestError(
            f"unknown model {name!r}{did_you_mean(name, known)}. Known models: {', '.join(known)};"
            " torchvision:NAME, timm:NAME and FILE.py:NAME are taken as well"
        )
    return known[name]


def default_image_size(name: str) -> int:
    """Return the pixels along one side where none are given: 32, and 224 for networks that are not of this library."""
    return 224 if others.is_other(name) else 32
