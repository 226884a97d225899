"""Find a network by its name: one of this library's families, or a network of another library or of the user."""

from __future__ import annotations

from poolwise.models.external import networks
from poolwise.models.families.registry import FAMILIES, Family


def available() -> list[Family]:
    """Return every family of this library, by name."""
    return list(FAMILIES.all().values())


def family(name: str) -> Family:
    """Return the family called ``name``; a network that is not of this library is wrapped as one.

    Raises:
        RequestError: Nothing has this name; the message lists the known names.
    """
    return networks.family_of(name) if networks.is_other(name) else FAMILIES.get(name)


def default_image_size(name: str) -> int:
    """Return the pixels along one side where none are given: 32, and 224 for networks that are not of this library."""
    return 224 if networks.is_other(name) else 32
