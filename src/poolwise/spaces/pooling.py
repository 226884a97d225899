"""One pooling configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from poolwise.errors import RequestError

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
                f"pooling {short(stages)}: stages are whole numbers, the first and last at least 1; write it like 5-3-2"
            )

    @classmethod
    def parse(cls, text: str) -> Pooling:
        """Read ``5-3-2`` or ``[5,3,2]`` (spaces allowed). Raises RequestError for anything else."""
        inner = text.strip()
        bracketed = inner.startswith("[") and inner.endswith("]")
        pattern = r"\s*\d{1,9}(\s*,\s*\d{1,9})*\s*" if bracketed else r"\d{1,9}(-\d{1,9})*"
        inner = inner[1:-1] if bracketed else inner
        if len(text) > _MAX_TEXT or not re.fullmatch(pattern, inner, flags=re.ASCII):
            raise RequestError(f"pooling {short(text)}: write stage lengths like 5-3-2 or [5,3,2]")
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


def short(value: object) -> str:
    """For a message: what was given, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
