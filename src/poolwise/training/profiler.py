"""Where the time goes: seconds in named parts of the work, for ``--profile``."""

from __future__ import annotations

import time
from types import TracebackType

PARTS = ("data", "forward", "backward", "optimizer", "scoring", "assignment", "branching", "logging")


class Stopwatch:
    """``with watch("forward"): ...`` adds to that part. One that is not ``running`` does nothing."""

    def __init__(self, running: bool = False):
        self.running = running
        self.seconds: dict[str, float] = {}
        self._name, self._begin = "", 0.0

    def __call__(self, name: str) -> Stopwatch:
        self._name = name
        return self

    def __enter__(self) -> None:
        if self.running:
            _wait_for_device()
            self._begin = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.running:
            _wait_for_device()
            self.add({self._name: time.perf_counter() - self._begin})

    def add(self, seconds: dict[str, float]) -> None:
        """Take over what another stopwatch measured."""
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value


def _wait_for_device() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


IDLE = Stopwatch()
