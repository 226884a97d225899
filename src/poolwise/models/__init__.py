"""Networks as chains of a stem, ordered layers and a head. Each family is one file, which the registry discovers."""

from poolwise.models.families.registry import Family
from poolwise.models.lookup import available, family, requested_space

__all__ = ["Family", "available", "family", "requested_space"]
