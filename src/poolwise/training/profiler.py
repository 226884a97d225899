"""Profiler for ``--profile``: seconds in named parts of the work."""

from __future__ import annotations

import time
from types import TracebackType

PARTS = ("data", "forward", "backward", "optimizer", "scoring", "assignment", "branching", "logging")


class Stopwatch:
    """Add the time in ``with watch("forward"): ...`` to that part. Does nothing unless ``running``."""

    def __init__(self, running: bool = False):
        self.running = running
        self.seconds: dict[str, float] = {}
        self._name, self._started = "", 0.0

    def __call__(self, name: str) -> Stopwatch:
        self._name = name
        return self

    def __enter__(self) -> None:
        if self.running:
            _wait_for_device()
            self._started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.running:
            _wait_for_device()
            self.add({self._name: time.perf_counter() - self._started})

    def add(self, seconds: dict[str, float]) -> None:
        """Add the seconds measured by another stopwatch."""
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value


def _wait_for_device() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


IDLE = Stopwatch()
