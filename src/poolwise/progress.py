"""Progress of long-running work, and requests to stop it. The command line displays the progress."""

from __future__ import annotations

from typing import Any


class Interrupted(Exception):
    """Raised when work stops on request, after everything needed to resume has been saved."""


class Listener:
    """Base class that ignores progress. Override the methods that you need and pass an instance as ``listener=``.

    Methods are called between steps, in the thread that called the API, so slow methods slow down the run. An exception
    in a method ends the run as a failure. Setting ``stopping`` ends it at the next safe point with ``Interrupted``;
    ``poolwise.resume`` continues from there with identical results.

    >>> class Patient(poolwise.Listener):
    ...     def start(self, stage, total, done=0):
    ...         self.stage, self.best, self.since = stage, float("inf"), 0
    ...
    ...     def advance(self, units=1, **info):
    ...         loss = info.get("loss")
    ...         if self.stage != "search" or loss is None:
    ...             return
    ...         self.since = 0 if loss < self.best else self.since + units
    ...         self.best = min(self.best, loss)
    ...         self.stopping = self.since > 5000  # steps without a lower loss
    """

    stopping = False

    def expect(self, stage: str, seconds: float) -> None:
        """Receive the planned seconds of a full stage."""

    def start(self, stage: str, total: int, done: int = 0) -> None:
        """Start a stage of ``total`` units, of which ``done`` are already done.

        Stages and their units: ``search``, ``short`` (proxy training, part of a search), ``retrain``, ``equal cost``,
        ``refine`` and ``exhaustive`` (optimizer steps), ``rank`` (batches), ``compare`` (steps of a single SuperNet),
        ``simulate`` (repetitions).
        """

    def advance(self, units: int = 1, **info: Any) -> None:
        """Report that ``units`` more are done.

        ``info`` may hold: ``loss`` of the last training batch (in stand-alone training, the last point of the curve);
        ``lr``; in a search, ``accuracy`` of the last scoring batch (0 to 1) and occasionally ``best``, the five best
        configurations as (pooling, moving average of accuracy). Work in other processes reports only units.
        """

    def note(self, text: str) -> None:
        """Receive a one-line message for the user."""

    def finish(self) -> None:
        """Finish the stage."""

    def close(self) -> None:
        """Release resources, even if a stage is not finished. Called by the command line, not by the API."""

    def check(self) -> None:
        """Raise Interrupted if a stop was requested. Called only at points that can be resumed from."""
        if self.stopping:
            raise Interrupted


def time_words(seconds: float) -> str:
    """Format seconds as ``45 s``, ``12 min`` or ``3 h 20 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
