"""Find a network by name: a family of this library, or a network of another library or of the user."""

from __future__ import annotations

from poolwise.models.external import networks
from poolwise.models.families.registry import FAMILIES, Family


def available() -> list[Family]:
    """Return all families of this library."""
    return list(FAMILIES.all().values())


def family(name: str) -> Family:
    """Return the family called ``name``. An external network is wrapped as a family.

    Raises:
        RequestError: Nothing has this name, or the external network cannot be searched.
    """
    return networks.family_of(name) if networks.is_other(name) else FAMILIES.get(name)


def default_image_size(name: str) -> int:
    """Return the default image size in pixels along one side: 224 for external networks, otherwise 32."""
    return 224 if networks.is_other(name) else 32
