"""Named random generators from one root seed. poolwise does not draw from the global generators.

A stream depends only on the root seed and its name, so adding a stream never changes another.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


class Streams:
    """Named generators of one root seed. ``streams["draw"]`` always returns the same NumPy generator object."""

    def __init__(self, seed: int, scope: str = ""):
        self.seed = seed
        self.scope = scope
        self._generators: dict[str, np.random.Generator] = {}

    def child(self, scope: str) -> Streams:
        """Return streams of the same root seed that are independent of these."""
        return Streams(self.seed, f"{self.scope}/{scope}")

    def _entropy(self, name: str) -> list[int]:
        digest = hashlib.sha256(f"{self.scope}/{name}".encode()).digest()
        return [self.seed, *np.frombuffer(digest, dtype="<u4").tolist()]

    def __getitem__(self, name: str) -> np.random.Generator:
        if name not in self._generators:
            self._generators[name] = np.random.Generator(np.random.PCG64(self._entropy(name)))
        return self._generators[name]

    def torch(self, name: str) -> torch.Generator:
        """Return a new CPU torch generator for one-time use (initial weights). Its state is not tracked."""
        import torch

        seed = np.random.SeedSequence(self._entropy(name)).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(seed >> np.uint64(1)))

    def state(self) -> dict[str, Any]:
        """Return the state of every generator used so far, serializable as JSON."""
        return {name: generator.bit_generator.state for name, generator in self._generators.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore all generators in place from ``state()``, so that existing references stay valid."""
        for name in {*self._generators, *state}:
            fresh = np.random.PCG64(self._entropy(name)).state
            self[name].bit_generator.state = state.get(name, fresh)
