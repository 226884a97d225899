"""Log of a search: events, progress and the profile."""

from __future__ import annotations

from typing import Any

from poolwise.progress import Listener
from poolwise.storage import FORMAT, RunFolder
from poolwise.supernets.state import SearchState
from poolwise.training.profiler import PARTS

CURVE_EVENTS = 200  # events with mean loss and accuracy per search
SNAPSHOT_EVENTS = 40  # snapshots of the assignment per search
SNAPSHOT_CONFIGURATIONS = 1000  # no snapshots in larger spaces
_LEADERS_EVERY = 20  # steps between reports of the best configurations
_LEADERS = 5


class SearchLog:
    """Write the events of a search to its run folder and report its progress.

    When a search resumes from a checkpoint, events logged after that checkpoint are deleted.
    """

    def __init__(self, state: SearchState, folder: RunFolder, listener: Listener):
        self.state, self.folder, self.listener = state, folder, listener
        # numbers of branching checks and surveys already in the log
        self._logged = {kind: len(records) for kind, records in self._measured().items()}
        for kind, step in (("search", state.step + 1), ("assignment", state.step + 1)):
            folder.forget_events(kind, step)
        for kind in self._logged:
            folder.forget_events(kind, state.step)
        listener.start("search", state.steps, state.step)

    def add(self, records: list[dict[str, Any]]) -> None:
        """Log and report the steps of a block, as returned by ``trainer.train_block``."""
        state, before = self.state, self.state.step - len(records)
        state.records += records
        if self._due(CURVE_EVENTS, before):
            self._log_curves()
        if self._due(SNAPSHOT_EVENTS, before) and state.experiment.space.size <= SNAPSHOT_CONFIGURATIONS:
            self._log_assignment()
        best = None
        if _passed(before, state.step, _LEADERS_EVERY):
            best = [(str(pooling), score) for pooling, score in state.sampler.leaders(_LEADERS)]
        self.listener.advance(len(records), best=best, **records[-1])
        for kind, measured in self._measured().items():
            for record in measured[self._logged[kind] :]:
                self.folder.log({"event": kind, **record})
                self.listener.note(record["said"])
            self._logged[kind] = len(measured)

    def _measured(self) -> dict[str, list[dict[str, Any]]]:
        """Return the records of measurements between the steps, by the kind of their events."""
        return {"branching": self.state.checks, "survey": self.state.surveys}

    def close(self) -> None:
        """Write the profile, if requested, and report the end of the search."""
        watch = self.state.watch
        if watch.running:
            seconds = {part: round(watch.seconds.get(part, 0.0), 3) for part in PARTS}
            profile = {"format": FORMAT, "stage": "search", "steps": self.state.steps, "seconds": seconds}
            self.folder.write_json("profile.json", profile)
        self.listener.finish()

    def _due(self, events: int, before: int) -> bool:
        """Return whether one of ``events`` evenly spaced events is due since step ``before``. One is due at the last step."""
        step, steps = self.state.step, self.state.steps
        return step == steps or _passed(before, step, max(steps // events, 1))

    def _log_curves(self) -> None:
        """Log mean loss and accuracy over the steps since the last such event."""
        records, self.state.records = self.state.records, []
        means = {name: sum(record[name] for record in records) / len(records) for name in ("loss", "accuracy")}
        event = {**means, "lr": records[-1]["lr"], **self.state.sampler.summary()}
        self.folder.log({"event": "search", "step": self.state.step, **event})

    def _log_assignment(self) -> None:
        assignment_PM = self.state.sampler.assignment_of(list(self.state.experiment.space))
        event = {"event": "assignment", "step": self.state.step, "assignment": assignment_PM.round(4).tolist()}
        self.folder.log(event)


def _passed(before: int, after: int, every: int) -> bool:
    """Return whether a multiple of ``every`` lies in (before, after]."""
    return after // every > before // every
