"""One root seed, many named generators. Nothing in poolwise draws from the global ones.

A stream depends on the root seed and on its name alone, so adding a stream never changes another.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


class Streams:
    """Named generators of one root seed: ``streams["draw"]`` is always the same numpy generator object."""

    def __init__(self, seed: int, scope: str = ""):
        self.seed = seed
        self.scope = scope
        self._generators: dict[str, np.random.Generator] = {}

    def child(self, scope: str) -> Streams:
        """Streams of the same root seed that share nothing with these."""
        return Streams(self.seed, f"{self.scope}/{scope}")

    def _entropy(self, name: str) -> list[int]:
        digest = hashlib.sha256(f"{self.scope}/{name}".encode()).digest()
        return [self.seed, *np.frombuffer(digest, dtype="<u4").tolist()]

    def __getitem__(self, name: str) -> np.random.Generator:
        if name not in self._generators:
            self._generators[name] = np.random.Generator(np.random.PCG64(self._entropy(name)))
        return self._generators[name]

    def torch(self, name: str) -> torch.Generator:
        """A fresh CPU torch generator for one-off uses (initial weights); its state is not kept."""
        import torch

        seed = np.random.SeedSequence(self._entropy(name)).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(seed >> np.uint64(1)))

    def state(self) -> dict[str, Any]:
        """State of every generator used so far, ready for JSON."""
        return {name: generator.bit_generator.state for name, generator in self._generators.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Put every generator back to a ``state()``, in place: whoever holds one of them goes on with it."""
        for name in {*self._generators, *state}:
            fresh = np.random.PCG64(self._entropy(name)).state
            self[name].bit_generator.state = state.get(name, fresh)
