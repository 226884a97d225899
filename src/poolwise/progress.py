"""How the long-running parts tell what they do, and how they are asked to stop. The command line draws it."""

from __future__ import annotations

from typing import Any


class Interrupted(Exception):
    """Stopped on request, with everything saved that is needed to go on."""


class Listener:
    """Receives progress; this one ignores it. Give ``listener=`` your own, with the methods that you need.

    All are called in the thread that called the API, between two steps, so what takes long in them makes the run longer.
    What they raise ends the run as a failure would; setting ``stopping`` ends it at the next safe point with ``Interrupted``,
    and ``poolwise.resume`` goes on from there to the same bytes.

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
        """Seconds that a whole stage should take, from the plan."""

    def start(self, stage: str, total: int, done: int = 0) -> None:
        """A stage of ``total`` units begins, ``done`` of them already behind it.

        ``stage`` and its unit: ``search``, ``short`` (trainings of every configuration, part of a search), ``retrain``,
        ``equal cost``, ``refine`` and ``exhaustive`` (optimizer steps), ``rank`` (batches, or levels of a beam), ``compare``
        (steps of a single SuperNet), ``simulate`` (repetitions).
        """

    def advance(self, units: int = 1, **info: Any) -> None:
        """``units`` more are done.

        ``info`` holds what is known, where it is: ``loss`` of the last training batch, in a stand-alone training the mean of
        the last piece of its curve; ``lr``; in a search ``accuracy`` of the last scoring batch (0 to 1) and, now and then,
        ``best``: the five leading configurations as (pooling, moving average of their accuracy). Work in other processes
        tells units alone.
        """

    def note(self, text: str) -> None:
        """One line for the user."""

    def finish(self) -> None:
        """The stage is done."""

    def close(self) -> None:
        """Nothing more will come, whether a stage is done or not. The command line calls it; the API does not."""

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
