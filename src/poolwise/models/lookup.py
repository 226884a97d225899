"""Find a network by name (of this library, of another one, or of the user), and the configurations to choose from."""

from __future__ import annotations

from poolwise.config import Config
from poolwise.models.external import networks
from poolwise.models.families.registry import FAMILIES, Family
from poolwise.rng import Streams
from poolwise.spaces import PoolingSpace, Subspace, subset


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


def requested_space(config: Config) -> PoolingSpace:
    """Return the space of configurations of a request.

    It has all configurations with the requested numbers of downsamplings, a random subset, or those within the limits.
    """
    known = family(config.model.name)
    space = known.over(config.model.poolings)
    if config.limits.only is not None:
        return Subspace.of(space, sorted({*config.limits.only, str(known.default)}))
    if config.model.max_configs is not None:
        return subset(space, config.model.max_configs, Streams(config.seed)["subset"], [known.default])
    return space
