"""Networks as chains: stem, ordered layers, head. One family a file; the registry finds the files by itself."""

from poolwise.networks.lookup import available, family
from poolwise.networks.registry import Family

__all__ = ["Family", "available", "family"]
