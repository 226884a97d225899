"""The registry of network families. To add a family, add a file to this folder that uses ``@register(...)``."""

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
        name: The value for ``--model``.
        default: The published configuration.
        width: Base number of channels in the family's paper. None if the width is fixed.
        build: ``build(classes=, width=, norm=)`` returns a Chain. ``models.chain.create`` draws its weights.
        summary: One line for listings.
        operator: The downsampling operator, ``pool`` or ``stride`` (see ``models.supernet``), also set on its chains.
        reduction: Factor by which the first layer reduces the resolution in every configuration.
        external: Whether this is an external network (``models.external.networks``).
    """

    name: str
    default: Pooling
    width: int | None
    build: Build
    summary: str
    operator: str = "pool"
    reduction: int = 1
    external: bool = False

    @property
    def space(self) -> PoolingSpace:
        """Return all configurations with as many downsamplings as the default."""
        return PoolingSpace(self.default.layers, self.default.poolings)

    def over(self, counts: Sequence[int] | None) -> PoolingSpace:
        """Return all configurations with these numbers of downsamplings, and the default. None means ``space``."""
        return self.space if counts is None else space_of(self.default.layers, counts, also=[self.default])


FAMILIES: Registry[Family] = Registry(
    "model", "poolwise.models.families", hint="; torchvision:NAME, timm:NAME and FILE.py:NAME are also allowed"
)


def register(
    name: str, *, default: str, width: int, summary: str, operator: str = "pool", reduction: int = 1
) -> Callable[[Build], Build]:
    """Return a decorator that registers a build function as the family ``name``.

    Other arguments: see ``Family``. The decorated function sets ``operator`` and ``reduction`` on its chains.
    """

    def add(build: Build) -> Build:
        @functools.wraps(build)
        def marked(*args: Any, **kwargs: Any) -> Chain:
            chain = build(*args, **kwargs)
            chain.operator, chain.reduction = operator, reduction
            return chain

        FAMILIES.add(name, Family(name, Pooling.parse(default), width, marked, summary, operator, reduction))
        return marked

    return add
