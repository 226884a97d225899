"""The space of all configurations with a fixed number of downsamplings, in closed form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING, Any

from poolwise.errors import RequestError, abbreviated
from poolwise.spaces.pooling import Pooling

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class PoolingSpace:
    """All placements of ``poolings`` downsamplings before layers 1 .. ``layers`` - 1 (never before the first layer).

    Args:
        layers: number of layers of the network.
        poolings: number of 2x downsamplings.
        min_stage: minimum number of layers at each resolution.
        shared_slots: allow two or more poolings in one slot (then stages between first and last may have 0 layers).

    Members are sorted by their stages, 1-1-8 first. ``len``, ``index`` and ``space[i]`` use closed forms, so a space
    of 10^6 or more members costs nothing until it is iterated.
    """

    layers: int
    poolings: int
    min_stage: int = 1
    shared_slots: bool = False

    def __post_init__(self) -> None:
        for name, least in (("layers", 1), ("poolings", 0), ("min_stage", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise RequestError(f"{name} is {abbreviated(value)}: use an integer of at least {least}")
        if self.shared_slots and self.min_stage > 1:
            raise RequestError("min_stage above 1 and shared_slots contradict each other: choose one")
        if self._free < 0:
            needed = sum(self._least)
            raise RequestError(
                f"{self.poolings} downsamplings with stages of at least {self.min_stage} need {needed} layers, but the network"
                f" has {self.layers}: use fewer downsamplings or shorter stages"
            )

    @property
    def _least(self) -> tuple[int, ...]:
        inner = 0 if self.shared_slots else self.min_stage
        return (self.min_stage, *[inner] * (self.poolings - 1), self.min_stage)[: self.poolings + 1]

    @property
    def _free(self) -> int:
        return self.layers - sum(self._least)

    @property
    def counts(self) -> tuple[int, ...]:
        """Numbers of downsamplings that occur among the members; ``poolings`` is the largest."""
        return (self.poolings,)

    @property
    def full(self) -> PoolingSpace:
        """The full space: the space itself or, for a subspace, the space that it was taken from."""
        return self

    @property
    def size(self) -> int:
        """Number of members, which may be larger than ``len`` can return."""
        return comb(self._free + self.poolings, self.poolings)

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Pooling]:
        return (self[i] for i in range(self.size))

    def __contains__(self, pooling: object) -> bool:
        return (
            isinstance(pooling, Pooling)
            and pooling.layers == self.layers
            and pooling.poolings == self.poolings
            and all(stage >= least for stage, least in zip(pooling.stages, self._least, strict=True))
        )

    def __getitem__(self, i: int) -> Pooling:
        if not -self.size <= i < self.size:
            raise IndexError(f"index {i} is outside a space of {self.size} configurations")
        rest, free, stages = i % self.size, self._free, []
        for later in range(self.poolings, 0, -1):  # number of stages after this one
            extra = 0
            while rest >= (count := comb(free - extra + later - 1, later - 1)):
                rest -= count
                extra += 1
            free -= extra
            stages.append(extra)
        return Pooling(tuple(extra + least for extra, least in zip([*stages, free], self._least, strict=True)))

    def index(self, pooling: Pooling | str) -> int:
        """Return the index of a member in the order of the space. Raises RequestError if it is not a member."""
        return self.below(self.check(pooling).stages)

    def below(self, stages: Sequence[int]) -> int:
        """Return how many members sort before ``stages``, which may be a prefix or the stages of a non-member."""
        free, total = self._free, 0
        for later, least, stage in zip(range(self.poolings, 0, -1), self._least, stages, strict=False):
            # members with a shorter stage here: a sum of binomials in closed form (hockey-stick identity)
            extra = min(stage - least, free + 1)
            if extra < 0:
                break
            total += comb(free + later, later) - comb(free - extra + later, later)
            free -= extra
            if free < 0:
                break
        return total

    def completions(self, prefix: Sequence[int]) -> int:
        """Return how many members have the stages ``prefix`` as a prefix, in closed form.

        These members are contiguous in the order of the space; the first is at index ``below(prefix)``.
        """
        later = self.poolings + 1 - len(prefix)
        if later < 0 or any(stage < least for stage, least in zip(prefix, self._least, strict=False)):
            return 0
        free = self.layers - sum(prefix) - sum(self._least[len(prefix) :])
        if later == 0:
            return int(free == 0)
        return comb(free + later - 1, later - 1) if free >= 0 else 0

    def parse(self, text: str) -> Pooling:
        """Parse ``5-3-2`` or ``[5,3,2]`` and check that it is a member. Raises RequestError otherwise."""
        return self.check(Pooling.parse(text))

    def check(self, pooling: Pooling | str) -> Pooling:
        """Return the configuration if it is a member. Raises RequestError otherwise."""
        if isinstance(pooling, str):
            pooling = Pooling.parse(pooling)
        if pooling not in self:
            raise RequestError(
                f"pooling {abbreviated(str(pooling))} is not in the space of {self.layers} layers, {self.poolings} downsamplings"
                f" and stages of at least {self.min_stage}: use {self.poolings + 1} stage lengths that add up to"
                f" {self.layers}, for example {self[self.size // 2]}"
            )
        return pooling

    def neighbours(self, pooling: Pooling | str) -> list[Pooling]:
        """Return the members that differ by moving one pooling by one layer, in the order of the space."""
        return sorted(other for other in self._around(self.check(pooling)) if other in self)

    def _around(self, pooling: Pooling) -> Iterator[Pooling]:
        """Yield the neighboring configurations, whether or not they are members."""
        for i in range(pooling.poolings):
            for step in (-1, 1):
                stages = list(pooling.stages)
                stages[i] += step
                stages[i + 1] -= step
                if min(stages) >= 0 and stages[0] >= 1 and stages[-1] >= 1:
                    yield Pooling(tuple(stages))

    def next_stages(self, prefix: Sequence[int]) -> Sequence[int]:
        """Return the possible lengths of the next stage of members that have the stages ``prefix`` as a proper prefix.

        This describes the space as a tree with root ``()``: every path whose lengths sum to ``layers`` is one member,
        and every member is one path.
        """
        least, later = self._least, len(prefix)
        used = sum(stage - minimum for stage, minimum in zip(prefix, least, strict=False))
        free = self._free - used
        return range(least[later] + (free if later == self.poolings else 0), least[later] + free + 1)

    def depths_at(self, layer: int) -> list[int]:
        """Return the possible numbers of downsamplings before ``layer``, including those directly before it."""
        least = self._least
        return [
            depth
            for depth in range(self.poolings + 1)
            if sum(least[:depth]) <= layer < self.layers - sum(least[depth + 1 :])
        ]

    def sample(self, generator: np.random.Generator, n: int = 1) -> list[Pooling]:
        """Draw ``n`` members uniformly and independently (with replacement), without enumerating the space."""
        return [self[uniform_below(generator, self.size)] for _ in range(n)]

    def to_json(self) -> dict[str, Any]:
        """Return the space as JSON-compatible values; ``spaces.read`` is the inverse."""
        return {
            "layers": self.layers,
            "poolings": self.poolings,
            "min_stage": self.min_stage,
            "shared_slots": self.shared_slots,
        }


def positions(poolings: Iterable[Pooling]) -> list[tuple[int, ...]]:
    """Return the pooling positions of each configuration, padded to equal length, for distances in layers.

    A configuration with fewer poolings is padded with poolings after its last layer. The L1 distance of two position
    vectors then equals the difference in downsamplings passed, summed over layers: 5-4-1 has distance 1 from 5-5.
    """
    members = list(poolings)
    most = max((pooling.poolings for pooling in members), default=0)
    return [(*pooling.positions, *[pooling.layers] * (most - pooling.poolings)) for pooling in members]


def uniform_below(generator: np.random.Generator, bound: int) -> int:
    """Draw an integer uniformly from [0, bound); ``bound`` may exceed 64 bits."""
    if bound < 2**63:
        return int(generator.integers(bound))
    bits = bound.bit_length()
    while True:
        value = int.from_bytes(generator.bytes((bits + 7) // 8), "little") >> (-bits % 8)
        if value < bound:
            return value
