"""A fixed random partition of the configurations into M SuperNets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from poolwise.supernets.samplers.base import Sampler
from poolwise.supernets.samplers.draws import DRAWS
from poolwise.supernets.samplers.registry import register
from poolwise.supernets.samplers.task import Task

_ROUNDS = 8


class Partition(Sampler):
    """Base class: ``group`` assigns every configuration to one SuperNet for the entire search after the warm-up.

    A group of configurations that train in one step (``Task.group``) is split at the parts of the partition.
    """

    warms_up = True

    def __init__(self, task: Task):
        super().__init__(task)
        self._draw = DRAWS[task.draw](self.space.size, task.draws)
        self._waiting: list[list[int]] = []  # the other parts of a group that was split

    @property
    def in_rounds(self) -> bool:
        return self.task.draw == "rounds"

    def group(self, a: int) -> int:
        """Return the SuperNet of configuration ``a``."""
        raise NotImplementedError

    def _draw_configuration(self) -> int:
        return self._draw.next()

    def _draw_group(self) -> list[int]:
        if not self._waiting:
            drawn = super()._draw_group()
            parts = [[a for a in drawn if self.group(a) == m] for m in range(self.supernets)]
            self._waiting = [part for part in parts if part]
        return self._waiting.pop(0)

    def _draw_supernet(self, a: int) -> int:
        return self.group(a)

    def _draw_group_supernet(self, indices: Sequence[int]) -> int:
        return self.group(indices[0])

    def _assignment(self, indices: Sequence[int]) -> np.ndarray:
        return np.eye(self.supernets)[[self.group(a) for a in indices]]

    def _extra_state(self) -> dict[str, Any]:
        return {"draw": self._draw.state(), **({"waiting": self._waiting} if self.task.group > 1 else {})}

    def _restore_extra(self, state: dict[str, Any]) -> None:
        self._draw.restore(state["draw"])
        self._waiting = [[int(a) for a in part] for part in state.get("waiting", [])]


@register("partition-random", summary="configurations are divided among SuperNets at random, in equal numbers")
class RandomPartition(Partition):
    """Assign configuration a to SuperNet ``shuffle(a) mod M``, so group sizes differ by at most 1.

    ``shuffle`` permutes 0 .. P-1 without a table. It is a Feistel network over a power of 4 that is at least P, keyed by
    the ``assigns`` generator and reapplied until the result is below P (cycle walking: Black and Rogaway, *Ciphers with
    Arbitrary Finite Domains*, CT-RSA 2002). This is the control for partitions with a meaning.
    """

    def __init__(self, task: Task):
        super().__init__(task)
        self._key = int(task.assigns.integers(2**63))

    def group(self, a: int) -> int:
        return self._shuffle(a) % self.supernets

    def _shuffle(self, a: int) -> int:
        size = self.space.size
        half = max((size - 1).bit_length() + 1, 2) // 2
        while True:
            left, right = a >> half, a & ((1 << half) - 1)
            for i in range(_ROUNDS):
                left, right = right, left ^ self._digest(i, right, half)
            a = left << half | right
            if a < size:
                return a

    def _digest(self, i: int, value: int, bits: int) -> int:
        digest = hashlib.blake2b(f"{self._key}/{i}/{value}".encode(), digest_size=(bits + 7) // 8).digest()
        return int.from_bytes(digest, "little") & ((1 << bits) - 1)

    def _extra_state(self) -> dict[str, Any]:
        return {**super()._extra_state(), "key": self._key}

    def _restore_extra(self, state: dict[str, Any]) -> None:
        super()._restore_extra(state)
        self._key = int(state["key"])
