"""Bars at a terminal, plain lines otherwise."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from poolwise.cli.out import Table, say_line
from poolwise.progress import Listener, time_words

_LINE_SECONDS = 15.0


class Left:
    """Seconds left of a stage: what the plan expects at first, what is measured as the stage goes on."""

    def __init__(self, total: int, done: int, expected: float | None):
        self.total, self.first, self.done, self.expected = total, done, done, expected
        self.begin = time.monotonic()

    def seconds(self) -> float | None:
        """None where nothing is known yet."""
        todo, made = self.total - self.done, self.done - self.first
        measured = (time.monotonic() - self.begin) / made * todo if made else None
        planned = self.expected * todo / self.total if self.expected and self.total else None
        if measured is None or planned is None:
            return measured if planned is None else planned
        trust = min(10 * made / max(self.total - self.first, 1), 1.0)  # a tenth of the way is a good measurement
        return trust * measured + (1 - trust) * planned


class Bars(Listener):
    """A bar with the time left, and under it the five best so far."""

    def __init__(self, console: Console):
        self.console = console
        self._expected: dict[str, float] = {}
        self._live: Live | None = None
        self._best: list[tuple[str, float]] = []

    def expect(self, stage: str, seconds: float) -> None:
        self._expected[stage] = seconds

    def start(self, stage: str, total: int, done: int = 0) -> None:
        self._left = Left(total, done, self._expected.get(stage))
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description:8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[detail]}"),
            console=self.console,
        )
        self._task = self._bar.add_task(stage, total=total, completed=done, detail="", left="")
        self._best = []
        self._live = Live(self._bar, console=self.console, refresh_per_second=4)
        self._live.start()

    def advance(self, units: int = 1, **info: Any) -> None:
        if info.get("best"):
            self._best = info["best"]
        detail = f"loss {info['loss']:.3f}" if info.get("loss") is not None else ""
        self._left.done += units
        seconds = self._left.seconds()
        left = f"{time_words(seconds)} left" if seconds is not None else ""
        self._bar.update(self._task, advance=units, detail=detail, left=left)
        if self._best and info.get("best"):
            table = Table("best so far", "moving score", box=None, padding=(0, 2))
            for pooling, score in self._best:
                table.add_row(pooling, f"{100 * score:.1f} %")
            assert self._live is not None
            self._live.update(Group(self._bar, table))

    def note(self, text: str) -> None:
        say_line(self.console, text)

    def finish(self) -> None:
        self.close()

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


class Lines(Listener):
    """A line at the start and end of a stage and every 15 seconds in between."""

    def __init__(self, console: Console):
        self.console = console
        self._expected: dict[str, float] = {}

    def expect(self, stage: str, seconds: float) -> None:
        self._expected[stage] = seconds

    def _print(self, text: str) -> None:
        say_line(self.console, text)

    def start(self, stage: str, total: int, done: int = 0) -> None:
        self._stage, self._left = stage, Left(total, done, self._expected.get(stage))
        self._told = self._left.begin
        self._best: list[tuple[str, float]] = []
        self._print(f"{stage}: {done} of {total}")

    def advance(self, units: int = 1, **info: Any) -> None:
        self._left.done += units
        self._best = info.get("best") or self._best
        now = time.monotonic()
        if now - self._told < _LINE_SECONDS:
            return
        self._told = now
        seconds = self._left.seconds()
        left = f", about {time_words(seconds)} left" if seconds is not None else ""
        loss = f", loss {info['loss']:.3f}" if info.get("loss") is not None else ""
        best = f", best so far {' '.join(pooling for pooling, _ in self._best)}" if self._best else ""
        self._print(f"{self._stage}: {self._left.done} of {self._left.total}{left}{loss}{best}")

    def note(self, text: str) -> None:
        self._print(text)

    def finish(self) -> None:
        self._print(f"{self._stage}: done in {time_words(time.monotonic() - self._left.begin)}")


def listener(quiet: bool, console: Console) -> Listener:
    """What suits the place that the output goes to."""
    if quiet:
        return Listener()
    return Bars(console) if console.is_terminal else Lines(console)
