"""Networks as chains: stem, ordered layers, head. One family a file; the registry finds the files by itself."""

from poolwise.models.families.registry import Family
from poolwise.models.lookup import available, family

__all__ = ["Family", "available", "family"]
