"""How the long-running parts tell what they do, and how they are asked to stop. The command line draws it."""

from __future__ import annotations

from typing import Any


class Interrupted(Exception):
    """Stopped on request, with everything saved that is needed to go on."""


class Listener:
    """Receives progress; this one ignores it. Set ``stopping`` to end the work at the next safe point."""

    stopping = False

    def expect(self, seconds: dict[str, float]) -> None:
        """Seconds that each stage should take, from the plan."""

    def start(self, stage: str, total: int, done: int = 0) -> None:
        """A stage of ``total`` units begins, ``done`` of them already behind it."""

    def advance(self, units: int = 1, **info: Any) -> None:
        """``units`` more are done; ``info`` holds what is worth showing."""

    def note(self, text: str) -> None:
        """One line for the user."""

    def finish(self) -> None:
        """The stage is done."""

    def close(self) -> None:
        """Nothing more will come, whether a stage is done or not."""

    def check(self) -> None:
        """Raise Interrupted where a stop was asked for. Called only at points that can be resumed from."""
        if self.stopping:
            raise Interrupted


def time_words(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
