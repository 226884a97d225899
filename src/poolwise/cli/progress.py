"""Progress display: bars at a terminal, plain lines otherwise."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from poolwise.cli.out import Table, say_line
from poolwise.progress import Listener, time_words

_LINE_SECONDS = 15.0


class Pace:
    """Estimate the seconds left of a stage from its pace in the last WINDOW seconds.

    The planned time is not used because it is soon out of date if the machine is shared or slows down.
    """

    WINDOW = 60.0

    def __init__(self, total: int, done: int):
        self.total, self.done, self.start = total, done, time.monotonic()
        self._marks = deque([(self.start, done)])

    def advance(self, units: int) -> None:
        """Record that ``units`` more are done."""
        now = time.monotonic()
        self.done += units
        if len(self._marks) > 1 and now - self._marks[-2][0] < 0.5:
            self._marks.pop()  # keep at most two marks a second
        self._marks.append((now, self.done))
        while len(self._marks) > 2 and self._marks[1][0] <= now - self.WINDOW:
            self._marks.popleft()

    def seconds(self) -> float | None:
        """Return the seconds left; None if nothing is done yet."""
        (start, first), (end, last) = self._marks[0], self._marks[-1]
        return (end - start) / (last - first) * (self.total - self.done) if last > first else None


class Bars(Listener):
    """Progress bar with the time left, above a table of the five best configurations so far."""

    def __init__(self, console: Console):
        self.console = console
        self._live: Live | None = None
        self._best: list[tuple[str, float]] = []

    def start(self, stage: str, total: int, done: int = 0) -> None:
        self._pace = Pace(total, done)
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
        self._pace.advance(units)
        seconds = self._pace.seconds()
        left = f"{time_words(seconds)} left" if seconds is not None else ""
        self._bar.update(self._task, advance=units, detail=detail, left=left)
        if self._best and info.get("best"):
            table = Table("best so far", "moving average", box=None, padding=(0, 2))
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
    """Print a line at the start and end of a stage and every 15 seconds in between."""

    def __init__(self, console: Console):
        self.console = console

    def _print(self, text: str) -> None:
        say_line(self.console, text)

    def start(self, stage: str, total: int, done: int = 0) -> None:
        self._stage, self._pace = stage, Pace(total, done)
        self._printed = self._pace.start
        self._best: list[tuple[str, float]] = []
        self._print(f"{stage}: {done} of {total}")

    def advance(self, units: int = 1, **info: Any) -> None:
        self._pace.advance(units)
        self._best = info.get("best") or self._best
        now = time.monotonic()
        if now - self._printed < _LINE_SECONDS:
            return
        self._printed = now
        seconds = self._pace.seconds()
        left = f", about {time_words(seconds)} left" if seconds is not None else ""
        loss = f", loss {info['loss']:.3f}" if info.get("loss") is not None else ""
        best = f", best so far {' '.join(pooling for pooling, _ in self._best)}" if self._best else ""
        self._print(f"{self._stage}: {self._pace.done} of {self._pace.total}{left}{loss}{best}")

    def note(self, text: str) -> None:
        self._print(text)

    def finish(self) -> None:
        self._print(f"{self._stage}: done in {time_words(time.monotonic() - self._pace.start)}")


def listener(quiet: bool, console: Console) -> Listener:
    """Return the listener that fits the console: bars for a terminal, lines otherwise, or nothing if ``quiet``."""
    if quiet:
        return Listener()
    return Bars(console) if console.is_terminal else Lines(console)
