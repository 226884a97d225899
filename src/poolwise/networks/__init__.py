"""Networks as chains: stem, ordered layers, head. One family a file; the registry finds the files by itself."""

from poolwise.networks.registry import Family, available, family

__all__ = ["Family", "available", "family"]
