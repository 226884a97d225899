"""The union of spaces with different numbers of downsamplings, as one space in closed form."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from poolwise.errors import RequestError, abbreviated
from poolwise.spaces.pooling import Pooling
from poolwise.spaces.space import PoolingSpace
from poolwise.spaces.subspace import Subspace


@dataclass(frozen=True)
class UnionSpace(PoolingSpace):
    """The union of several spaces with the same number of layers; constructed by ``space_of``.

    Args:
        poolings: the largest number of downsamplings of any part.
        parts: spaces with distinct numbers of downsamplings, in ascending order.

    Members are sorted by their stages regardless of how many there are: 1-1-8, then 1-9, then 2-1-7. All stages have
    the same sum, so no member is a prefix of another, and indices follow from counting in each part.
    """

    parts: tuple[PoolingSpace, ...] = ()

    def __post_init__(self) -> None:
        assert len(self.parts) > 1, "a union has at least two parts"
        assert all(part.layers == self.layers for part in self.parts), "parts must have the same number of layers"

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(part.poolings for part in self.parts)

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    def __contains__(self, pooling: object) -> bool:
        return any(pooling in part for part in self.parts)

    def __getitem__(self, i: int) -> Pooling:
        if not -self.size <= i < self.size:
            raise IndexError(f"index {i} is outside a space of {self.size} configurations")
        place, prefix = i % self.size, tuple[int, ...]()
        while sum(prefix) < self.layers:
            choices, before = self.next_stages(prefix), partial(self._below_next, prefix)
            prefix = (*prefix, choices[bisect_right(choices, place, key=before) - 1])
        return Pooling(prefix)

    def _below_next(self, prefix: tuple[int, ...], stage: int) -> int:
        return self.below((*prefix, stage))

    def below(self, stages: Sequence[int]) -> int:
        return sum(part.below(stages) for part in self.parts)

    def completions(self, prefix: Sequence[int]) -> int:
        return sum(part.completions(prefix) for part in self.parts)

    def check(self, pooling: Pooling | str) -> Pooling:
        if isinstance(pooling, str):
            pooling = Pooling.parse(pooling)
        if pooling not in self:
            raise RequestError(
                f"pooling {abbreviated(str(pooling))} is not in the space of {self.layers} layers and"
                f" {' or '.join(map(str, self.counts))} downsamplings: use stage lengths that add up to {self.layers}, for"
                f" example {self[self.size // 2]}"
            )
        return pooling

    def neighbours(self, pooling: Pooling | str) -> list[Pooling]:
        """Return the members that differ by moving one pooling by one layer.

        Neighbors with the next smaller or larger number of poolings differ by the last poolings, at the latest
        possible positions: these are removed or added.
        """
        return super().neighbours(pooling)

    def _around(self, pooling: Pooling) -> Iterator[Pooling]:
        yield from super()._around(pooling)
        place = self.counts.index(pooling.poolings)
        if place:
            tail = self._latest(pooling.poolings - self.counts[place - 1])
            if pooling.stages[-len(tail) :] == tail:
                stages = pooling.stages[: -len(tail)]
                yield Pooling((*stages[:-1], stages[-1] + sum(tail)))
        if place + 1 < len(self.counts):
            tail = self._latest(self.counts[place + 1] - pooling.poolings)
            last = pooling.stages[-1] - sum(tail)
            if last >= (1 if pooling.poolings == 0 else 0):
                yield Pooling((*pooling.stages[:-1], last, *tail))

    def _latest(self, count: int) -> tuple[int, ...]:
        """Return the stages after each of ``count`` poolings that are placed as late as possible."""
        return (*[0 if self.shared_slots else self.min_stage] * (count - 1), self.min_stage)

    def next_stages(self, prefix: Sequence[int]) -> Sequence[int]:
        parts = [part for part in self.parts if len(prefix) <= part.poolings and part.completions(prefix)]
        return sorted({stage for part in parts for stage in part.next_stages(prefix)})

    def depths_at(self, layer: int) -> list[int]:
        return sorted({depth for part in self.parts for depth in part.depths_at(layer)})

    def to_json(self) -> dict[str, Any]:
        also = [str(pooling) for part in self.parts if isinstance(part, Subspace) for pooling in part.members]
        counts = [part.poolings for part in self.parts if not isinstance(part, Subspace)]
        return {**super().to_json(), "poolings": counts, **({"also": also} if also else {})}


def space_of(
    layers: int,
    counts: Iterable[int],
    min_stage: int = 1,
    shared_slots: bool = False,
    also: Iterable[Pooling | str] = (),
) -> PoolingSpace:
    """Return the space of all configurations with the given numbers of downsamplings.

    Args:
        layers, min_stage, shared_slots: as for ``PoolingSpace``.
        counts: numbers of downsamplings.
        also: single configurations to add, with numbers of downsamplings outside ``counts``.

    Raises:
        RequestError: there are too few layers for a number, or a configuration in ``also`` violates the constraints.
    """
    parts = {count: PoolingSpace(layers, count, min_stage, shared_slots) for count in sorted(set(counts))}
    if not parts:
        raise RequestError("no number of downsamplings is requested: use at least one")
    named = [Pooling.parse(p) if isinstance(p, str) else p for p in also]
    for count in sorted({pooling.poolings for pooling in named} - set(parts)):
        members = dict.fromkeys(pooling for pooling in named if pooling.poolings == count)
        parts[count] = Subspace.of(PoolingSpace(layers, count, min_stage, shared_slots), members)
    every = tuple(part for _, part in sorted(parts.items()))
    if len(every) == 1:
        return every[0]
    return UnionSpace(layers, max(parts), min_stage, shared_slots, every)


def read(value: Mapping[str, Any]) -> PoolingSpace:
    """Return the space that ``to_json`` described.

    Raises:
        KeyError, TypeError: fields are missing, unknown or of the wrong type.
        RequestError: the fields do not describe a valid space.
    """
    fields = dict(value)
    members, also, poolings = fields.pop("members", None), fields.pop("also", ()), fields.pop("poolings")
    counts = [poolings] if isinstance(poolings, int) else poolings
    space = space_of(fields.pop("layers"), counts, also=also, **fields)
    return space if members is None else Subspace.of(space, members)
