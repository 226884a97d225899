"""A subset of a space: configurations that satisfy constraints, are sampled, or are named by the user."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from poolwise.errors import RequestError, abbreviated
from poolwise.spaces.pooling import Pooling
from poolwise.spaces.space import PoolingSpace, uniform_below

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Subspace(PoolingSpace):
    """A subset of a space, in the order of that space; constructed by ``of``.

    Args:
        members: at least one configuration, without duplicates, in any order.
        part_of: the full space.

    Raises:
        RequestError: there are no members, a member is not in the space, or a member occurs twice.
    """

    members: tuple[Pooling, ...] = ()
    part_of: PoolingSpace | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.members:
            raise RequestError("no configuration is selected: select at least one")
        members = tuple(sorted({self.full.check(pooling) for pooling in self.members}))
        if len(members) < len(self.members):
            raise RequestError("a configuration is selected twice: select each once")
        object.__setattr__(self, "members", members)
        object.__setattr__(self, "_places", {pooling: place for place, pooling in enumerate(members)})

    @classmethod
    def of(cls, space: PoolingSpace, members: Iterable[Pooling | str]) -> Subspace:
        """Return the subspace of ``space`` with the given members."""
        chosen = tuple(Pooling.parse(p) if isinstance(p, str) else p for p in members)
        return cls(space.layers, space.poolings, space.min_stage, space.shared_slots, chosen, space.full)

    _places: ClassVar[dict[Pooling, int]]  # set per instance; ClassVar keeps it out of the dataclass fields

    @property
    def full(self) -> PoolingSpace:
        if self.part_of is not None:  # truth testing would call len(), which fails for very large spaces
            return self.part_of
        return PoolingSpace(self.layers, self.poolings, self.min_stage, self.shared_slots)

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(sorted({pooling.poolings for pooling in self.members}))

    @property
    def size(self) -> int:
        return len(self.members)

    def __contains__(self, pooling: object) -> bool:
        return pooling in self._places

    def __getitem__(self, i: int) -> Pooling:
        if not -self.size <= i < self.size:
            raise IndexError(f"index {i} is outside a space of {self.size} configurations")
        return self.members[i]

    def below(self, stages: Sequence[int]) -> int:
        return bisect_left(self.members, tuple(stages), key=lambda pooling: pooling.stages)

    def completions(self, prefix: Sequence[int]) -> int:
        if not prefix:
            return self.size
        return self.below((*prefix[:-1], prefix[-1] + 1)) - self.below(prefix)

    def check(self, pooling: Pooling | str) -> Pooling:
        if isinstance(pooling, str):
            pooling = Pooling.parse(pooling)
        if pooling not in self:
            raise RequestError(
                f"pooling {abbreviated(str(pooling))} is not among the {self.size} selected configurations: use one of them, for"
                f" example {self[self.size // 2]}"
            )
        return pooling

    def _around(self, pooling: Pooling) -> Iterable[Pooling]:  # type: ignore[override]
        return self.full.neighbours(pooling)

    def next_stages(self, prefix: Sequence[int]) -> Sequence[int]:
        count, first = len(prefix), self.below(prefix)
        matches = self.members[first : first + self.completions(prefix)]
        return sorted({pooling.stages[count] for pooling in matches})

    def depths_at(self, layer: int) -> list[int]:
        return self.full.depths_at(layer)

    def to_json(self) -> dict[str, Any]:
        return {**self.full.to_json(), "members": [str(pooling) for pooling in self.members]}


def subset(
    space: PoolingSpace, count: int, generator: np.random.Generator, kept: Iterable[Pooling] = ()
) -> PoolingSpace:
    """Draw ``count`` members uniformly without replacement, always including ``kept``.

    Returns the space itself if it has no more than ``count`` members.
    """
    if space.size <= count:
        return space
    places = {space.index(pooling) for pooling in kept}
    while len(places) < count:
        places.add(uniform_below(generator, space.size))
    return Subspace.of(space, [space[place] for place in sorted(places)])
