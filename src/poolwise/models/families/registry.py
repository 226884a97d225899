"""The registry of network families. A new family is one file in this folder with ``@register(...)`` in it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from poolwise.registry import Registry
from poolwise.spaces import Pooling, PoolingSpace, space_of

if TYPE_CHECKING:
    from poolwise.models.chain import Chain

Build = Callable[..., "Chain"]


@dataclass(frozen=True)
class Family:
    """A network that can be searched.

    Attributes:
        name: what ``--model`` takes.
        default: the placement that everyone copies.
        width: base number of channels that the family's paper uses; None where it cannot be chosen.
        build: ``build(classes=, width=, norm=)`` returns a Chain whose weights are still to be drawn.
        summary: one line.
        operator: how the network is downsampled, ``pool`` or ``stride`` (see ``switch``); its chains carry it along.
        reduction: how many times smaller the first layer's output is than the image, whatever the placement.
        whole: whether it is a network that is not of this library (``networks.others``).
    """

    name: str
    default: Pooling
    width: int | None
    build: Build
    summary: str
    operator: str = "pool"
    reduction: int = 1
    whole: bool = False

    @property
    def space(self) -> PoolingSpace:
        """All placements of as many downsamplings as the default has."""
        return PoolingSpace(self.default.layers, self.default.poolings)

    def over(self, counts: Sequence[int] | None) -> PoolingSpace:
        """All placements of these numbers of downsamplings, and the default; ``space`` where none are given."""
        return self.space if counts is None else space_of(self.default.layers, counts, also=[self.default])


FAMILIES: Registry[Family] = Registry(
    "model", "poolwise.models.families", hint="; torchvision:NAME, timm:NAME and FILE.py:NAME are taken as well"
)


def register(
    name: str, *, default: str, width: int, summary: str, operator: str = "pool", reduction: int = 1
) -> Callable[[Build], Build]:
    """Return a decorator that registers a build function as the family ``name``; its chains carry the operator."""

    def add(build: Build) -> Build:
        @functools.wraps(build)
        def marked(*args: Any, **kwargs: Any) -> Chain:
            chain = build(*args, **kwargs)
            chain.operator, chain.reduction = operator, reduction
            return chain

        FAMILIES.add(name, Family(name, Pooling.parse(default), width, marked, summary, operator, reduction))
        return marked

    return add
