"""Before training: what configurations cost, where downsamplings can stand, and a guess."""

from __future__ import annotations

from typing import Any

import torch

from poolwise import suggesting
from poolwise.api.handing import network
from poolwise.errors import RequestError
from poolwise.networks import family
from poolwise.networks.cost import Cost, family_costs
from poolwise.networks.others import build, is_other
from poolwise.networks.slots import Slots, slots
from poolwise.space import Pooling
from poolwise.suggesting import Guess


def costs(
    model: str = "resnet20", *, width: int | None = None, image_size: int = 32, classes: int = 10
) -> dict[Pooling, Cost]:
    """Costs of every configuration of a family, in the order of its space, before any training."""
    return family_costs(model, width, image_size, classes)


def named_slots(model: str, *, width: int | None = None, image_size: int | None = None, classes: int = 10) -> Slots:
    """Where the downsamplings of a network can stand, by name: a family, or ``torchvision:resnet18``, ``timm:resnet26d``.

    ``image_size`` is 32 where it is not given, and 224 for other libraries' networks.
    """
    if is_other(model):
        if width is not None:
            raise RequestError(f"width is of this library's own families and {model} has its own: leave it out")
        return slots(build(model, classes), torch.zeros(2, 3, image_size or 224, image_size or 224))
    plain = network(model, family(model).default, width=width, classes=classes)
    return slots(plain, torch.zeros(2, 3, image_size or 32, image_size or 32))


def suggest(model: str = "resnet20", **arguments: Any) -> Guess:
    """A guess without any training, within limits of cost; arguments as of ``suggesting.suggest``."""
    return suggesting.suggest(model, **arguments)
