"""Before training: the cost of each configuration, and the slots of a network."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from poolwise.api.exports import network
from poolwise.config import Config
from poolwise.models import requested_space
from poolwise.models.cost import Cost, family_costs, sized
from poolwise.models.external.networks import build, is_other
from poolwise.models.external.slots import Slots, slots
from poolwise.models.lookup import default_image_size
from poolwise.spaces import LISTED, Pooling, PoolingSpace

DRAWN = 1000  # configurations drawn from a space that is too large to list


def costs(
    model: str = "resnet20",
    *,
    width: int | None = None,
    image_size: int | None = None,
    classes: int = 10,
    poolings: Sequence[int] | None = None,
    max_configs: int | None = None,
) -> dict[Pooling, Cost]:
    """Compute the cost of every configuration of a network, in the order of its space. Nothing is trained.

    Args:
        model: Network family, or the name of a network from another library.
        width: Base number of channels (default: that of the network).
        image_size: Pixels along one side (default: 32; 224 for networks from other libraries).
        classes: Number of classes.
        poolings: Allowed numbers of downsamplings (default: that of the default). The default configuration is always
            included.
        max_configs: Draw this many configurations uniformly, including the default. If a space has more than LISTED,
            DRAWN is used unless this is given.
    """
    space = _listed(Config.from_flat(model=model, poolings=_tuple(poolings), max_configs=max_configs))
    return family_costs(model, width, image_size or default_image_size(model), classes, space)


def placements(model: str = "resnet20", *, poolings: Sequence[int] | None = None) -> PoolingSpace:
    """Return the space whose configurations ``costs`` lists or draws from."""
    return requested_space(Config.from_flat(model=model, poolings=_tuple(poolings)))


def _listed(config: Config) -> PoolingSpace:
    space = requested_space(config)
    return space if space.size <= LISTED else requested_space(config.replace(max_configs=DRAWN))


def _tuple(poolings: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if poolings is None else tuple(poolings)


def named_slots(model: str, *, width: int | None = None, image_size: int | None = None, classes: int = 10) -> Slots:
    """Return the slots where a network can downsample, with layer names. Arguments are those of ``costs``."""
    size = image_size or default_image_size(model)
    if is_other(model) and width is None:
        return slots(build(model, classes), torch.zeros(2, 3, size, size))
    plain = network(model, sized(model, width).default, width=width, classes=classes)
    return slots(plain, torch.zeros(2, 3, size, size))
