"""One pooling configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from poolwise.errors import RequestError, abbreviated

_MAX_TEXT = 4096


@dataclass(frozen=True, order=True)
class Pooling:
    """Where a network halves its resolution: the number of layers at each resolution, first to last.

    The first and last stages have at least one layer. A stage of 0 layers between them means that two poolings share
    a slot. Iteration, ``len`` and indexing operate on the stages.
    """

    stages: tuple[int, ...]

    def __post_init__(self) -> None:
        stages = tuple(self.stages)
        object.__setattr__(self, "stages", stages)
        valid = all(isinstance(stage, int) and not isinstance(stage, bool) and stage >= 0 for stage in stages)
        if not stages or not valid or stages[0] < 1 or stages[-1] < 1:
            raise RequestError(
                f"pooling {abbreviated(stages)}: use integers of at least 0, the first and last at least 1, like 5-3-2"
            )

    @classmethod
    def parse(cls, text: str) -> Pooling:
        """Parse ``5-3-2`` or ``[5,3,2]`` (spaces allowed). Raises RequestError for anything else."""
        inner = text.strip()
        bracketed = inner.startswith("[") and inner.endswith("]")
        pattern = r"\s*\d{1,9}(\s*,\s*\d{1,9})*\s*" if bracketed else r"\d{1,9}(-\d{1,9})*"
        inner = inner[1:-1] if bracketed else inner
        if len(text) > _MAX_TEXT or not re.fullmatch(pattern, inner, flags=re.ASCII):
            raise RequestError(f"pooling {abbreviated(text)}: write stage lengths like 5-3-2 or [5,3,2]")
        return cls(tuple(int(part) for part in re.split(r"[-,]", inner)))

    @classmethod
    def from_positions(cls, positions: Sequence[int], layers: int) -> Pooling:
        """Return the configuration with a pooling before each layer in ``positions`` (0-based, sorted)."""
        edges = [0, *positions, layers]
        return cls(tuple(b - a for a, b in pairwise(edges)))

    @property
    def layers(self) -> int:
        """Number of layers of the network."""
        return sum(self.stages)

    @property
    def poolings(self) -> int:
        """Number of downsamplings."""
        return len(self.stages) - 1

    @property
    def positions(self) -> tuple[int, ...]:
        """Index (0-based) of the layer after each downsampling, in order."""
        return tuple(accumulate(self.stages[:-1]))

    def depths(self) -> list[int]:
        """Return the number of downsamplings before each layer, one entry per layer."""
        return [depth for depth, length in enumerate(self.stages) for _ in range(length)]

    def __str__(self) -> str:
        return "-".join(map(str, self.stages))

    def __iter__(self) -> Iterator[int]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    def __getitem__(self, i: int) -> int:
        return self.stages[i]
