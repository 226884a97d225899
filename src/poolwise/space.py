"""Pooling configurations and the space of all of them. No torch in this file.

A configuration is written by stage lengths: 5-3-2 is five layers at full resolution, three at half, two at a quarter.
The space is never held in memory: members are counted, ranked and unranked by binomial coefficients.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import comb
from typing import TYPE_CHECKING, Any, ClassVar

from poolwise.errors import RequestError

if TYPE_CHECKING:
    import numpy as np

_MAX_TEXT = 4096


@dataclass(frozen=True, order=True)
class Pooling:
    """Where a network halves its resolution: the number of layers at each resolution, first to last.

    The first and last stage hold at least one layer; a stage of 0 layers between them means that two poolings share
    a slot. Iterating, ``len`` and indexing see the stages.
    """

    stages: tuple[int, ...]

    def __post_init__(self) -> None:
        stages = tuple(self.stages)
        object.__setattr__(self, "stages", stages)
        whole = all(isinstance(stage, int) and not isinstance(stage, bool) and stage >= 0 for stage in stages)
        if not stages or not whole or stages[0] < 1 or stages[-1] < 1:
            raise RequestError(
                f"pooling {_short(stages)}: stages are whole numbers, the first and last at least 1; write it like 5-3-2"
            )

    @classmethod
    def parse(cls, text: str) -> Pooling:
        """Read ``5-3-2`` or ``[5,3,2]`` (spaces allowed). Raises RequestError for anything else."""
        inner = text.strip()
        bracketed = inner.startswith("[") and inner.endswith("]")
        pattern = r"\s*\d{1,9}(\s*,\s*\d{1,9})*\s*" if bracketed else r"\d{1,9}(-\d{1,9})*"
        inner = inner[1:-1] if bracketed else inner
        if len(text) > _MAX_TEXT or not re.fullmatch(pattern, inner, flags=re.ASCII):
            raise RequestError(f"pooling {_short(text)}: write stage lengths like 5-3-2 or [5,3,2]")
        return cls(tuple(int(part) for part in re.split(r"[-,]", inner)))

    @classmethod
    def from_positions(cls, positions: Sequence[int], layers: int) -> Pooling:
        """The configuration of ``layers`` layers that pools before each layer in ``positions`` (0-based, sorted)."""
        edges = [0, *positions, layers]
        return cls(tuple(b - a for a, b in pairwise(edges)))

    @property
    def layers(self) -> int:
        """How many layers the configuration speaks about."""
        return sum(self.stages)

    @property
    def poolings(self) -> int:
        """How many downsamplings it holds."""
        return len(self.stages) - 1

    @property
    def positions(self) -> tuple[int, ...]:
        """Index (0-based) of the layer that each downsampling stands before, in order."""
        return tuple(accumulate(self.stages[:-1]))

    def depths(self) -> list[int]:
        """Number of downsamplings passed when each layer runs, one entry a layer."""
        return [depth for depth, length in enumerate(self.stages) for _ in range(length)]

    def __str__(self) -> str:
        return "-".join(map(str, self.stages))

    def __iter__(self) -> Iterator[int]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    def __getitem__(self, i: int) -> int:
        return self.stages[i]


@dataclass(frozen=True)
class PoolingSpace:
    """Every way to place ``poolings`` downsamplings before layers 1 .. ``layers`` - 1 (the first layer never has one).

    Args:
        layers: ordered layers of the network.
        poolings: number of 2x downsamplings.
        min_stage: smallest number of layers at one resolution.
        shared_slots: allow two or more poolings on one slot (then stages between first and last may hold 0 layers).

    Members are ordered by their stages, 1-1-8 first. ``len``, ``index`` and ``space[i]`` are closed form, so a space
    of 10^6 members and more costs nothing until it is iterated.
    """

    layers: int
    poolings: int
    min_stage: int = 1
    shared_slots: bool = False

    def __post_init__(self) -> None:
        for name, least in (("layers", 1), ("poolings", 0), ("min_stage", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise RequestError(f"{name} is {_short(value)}: a whole number of at least {least} is allowed")
        if self.shared_slots and self.min_stage > 1:
            raise RequestError("min_stage above 1 and shared_slots contradict each other: choose one")
        if self._free < 0:
            needed = sum(self._least)
            raise RequestError(
                f"{self.poolings} poolings with stages of at least {self.min_stage} need {needed} layers and the network"
                f" has {self.layers}: ask for fewer poolings or shorter stages"
            )

    @property
    def _least(self) -> tuple[int, ...]:
        inner = 0 if self.shared_slots else self.min_stage
        return (self.min_stage, *[inner] * (self.poolings - 1), self.min_stage)[: self.poolings + 1]

    @property
    def _free(self) -> int:
        return self.layers - sum(self._least)

    @property
    def size(self) -> int:
        """Number of members, also where it exceeds what ``len`` can return."""
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
        for later in range(self.poolings, 0, -1):  # stages still to come after this one
            extra = 0
            while rest >= (count := comb(free - extra + later - 1, later - 1)):
                rest -= count
                extra += 1
            free -= extra
            stages.append(extra)
        return Pooling(tuple(extra + least for extra, least in zip([*stages, free], self._least, strict=True)))

    def index(self, pooling: Pooling | str) -> int:
        """Place of a member in the order of the space. Raises RequestError where it is not a member."""
        pooling = self.check(pooling)
        extras = [stage - least for stage, least in zip(pooling.stages, self._least, strict=True)]
        free, total = self._free, 0
        for later, extra in zip(range(self.poolings, 0, -1), extras, strict=False):
            # members whose stage is shorter: a sum of binomials in closed form (hockey stick)
            total += comb(free + later, later) - comb(free - extra + later, later)
            free -= extra
        return total

    def parse(self, text: str) -> Pooling:
        """Read ``5-3-2`` or ``[5,3,2]`` and check that it is a member."""
        return self.check(Pooling.parse(text))

    def check(self, pooling: Pooling | str) -> Pooling:
        """The same configuration if it is a member; RequestError otherwise."""
        if isinstance(pooling, str):
            pooling = Pooling.parse(pooling)
        if pooling not in self:
            raise RequestError(
                f"pooling {_short(str(pooling))} is not in the space of {self.layers} layers, {self.poolings} poolings and"
                f" stages of at least {self.min_stage}: {self.poolings + 1} stage lengths that add up to {self.layers}"
                f" are allowed, for example {self[self.size // 2]}"
            )
        return pooling

    def neighbours(self, pooling: Pooling | str) -> list[Pooling]:
        """Members reached by moving one pooling by one layer, in the order of the space."""
        pooling, found = self.check(pooling), []
        for i in range(self.poolings):
            for step in (-1, 1):
                stages = list(pooling.stages)
                stages[i] += step
                stages[i + 1] -= step
                if min(stages) >= 0 and stages[0] >= 1 and stages[-1] >= 1 and Pooling(tuple(stages)) in self:
                    found.append(Pooling(tuple(stages)))
        return sorted(found)

    def next_stages(self, begun: Sequence[int]) -> Sequence[int]:
        """Lengths that the next stage may have in a member whose first stages are ``begun``, fewer than all.

        The space as a tree: a path of lengths from ``()`` down ends at one member, and every member has one path.
        """
        least, later = self._least, len(begun)
        used = sum(stage - own for stage, own in zip(begun, least, strict=False))
        free = self._free - used
        return range(least[later] + (free if later == self.poolings else 0), least[later] + free + 1)

    def depths_at(self, layer: int) -> list[int]:
        """Numbers of downsamplings that members may have passed when ``layer`` runs, those before it included."""
        least = self._least
        return [
            depth
            for depth in range(self.poolings + 1)
            if sum(least[:depth]) <= layer < self.layers - sum(least[depth + 1 :])
        ]

    def sample(self, generator: np.random.Generator, n: int = 1) -> list[Pooling]:
        """``n`` independent uniform draws (with replacement), without enumerating the space."""
        return [self[uniform_below(generator, self.size)] for _ in range(n)]

    def to_json(self) -> dict[str, Any]:
        """The space as plain values; ``PoolingSpace(**space.to_json())`` is the same space."""
        return {
            "layers": self.layers,
            "poolings": self.poolings,
            "min_stage": self.min_stage,
            "shared_slots": self.shared_slots,
        }


@dataclass(frozen=True)
class Subspace(PoolingSpace):
    """Some members of a space, as what a limit of cost leaves; in the order of the space.

    Args:
        members: at least one, each once, in any order. RequestError for what is not in the space.
    """

    members: tuple[Pooling, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.members:
            raise RequestError("no configuration is left: choose at least one")
        whole = PoolingSpace(self.layers, self.poolings, self.min_stage, self.shared_slots)
        members = tuple(sorted({whole.check(pooling) for pooling in self.members}))
        if len(members) < len(self.members):
            raise RequestError("a configuration is chosen twice: choose each once")
        object.__setattr__(self, "members", members)
        object.__setattr__(self, "_places", {pooling: place for place, pooling in enumerate(members)})

    @classmethod
    def of(cls, space: PoolingSpace, members: Iterable[Pooling | str]) -> Subspace:
        """The members of ``space`` that are named."""
        chosen = tuple(Pooling.parse(p) if isinstance(p, str) else p for p in members)
        return cls(space.layers, space.poolings, space.min_stage, space.shared_slots, chosen)

    _places: ClassVar[dict[Pooling, int]]  # set for each object

    @property
    def size(self) -> int:
        return len(self.members)

    def __contains__(self, pooling: object) -> bool:
        return pooling in self._places

    def __getitem__(self, i: int) -> Pooling:
        if not -self.size <= i < self.size:
            raise IndexError(f"index {i} is outside a space of {self.size} configurations")
        return self.members[i]

    def index(self, pooling: Pooling | str) -> int:
        return self._places[self.check(pooling)]

    def check(self, pooling: Pooling | str) -> Pooling:
        if isinstance(pooling, str):
            pooling = Pooling.parse(pooling)
        if pooling not in self:
            raise RequestError(
                f"pooling {_short(str(pooling))} is not among the {self.size} configurations that were chosen, for example"
                f" {self[self.size // 2]}"
            )
        return pooling

    def next_stages(self, begun: Sequence[int]) -> Sequence[int]:
        count = len(begun)
        return sorted({p.stages[count] for p in self.members if p.stages[:count] == tuple(begun)})

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "members": [str(pooling) for pooling in self.members]}


def uniform_below(generator: np.random.Generator, bound: int) -> int:
    """A uniform whole number in [0, bound), for bounds of any size."""
    if bound < 2**63:
        return int(generator.integers(bound))
    bits = bound.bit_length()
    while True:
        value = int.from_bytes(generator.bytes((bits + 7) // 8), "little") >> (-bits % 8)
        if value < bound:
            return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
