"""The search: SuperNets, sampler and batches in one state, and the loop over the six steps of the method."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from poolwise.experiment import Experiment
from poolwise.parallelism import for_search
from poolwise.process import threads_here
from poolwise.progress import Interrupted, Listener
from poolwise.rng import Streams
from poolwise.sanitize import reading
from poolwise.space import LISTED, uniform_below
from poolwise.stopwatch import PARTS, Stopwatch
from poolwise.storage import FORMAT, RunFolder
from poolwise.supernets import branching, samplers
from poolwise.supernets.budget import CHECKS, measured_macs, search_steps, short_macs, step_macs, tried_steps
from poolwise.supernets.mixture import Job, SuperNets, Told, crew, run_parallel
from poolwise.training import LossNotFinite, check_finite, cosine

Run = Callable[[Sequence[Job], Stopwatch], list[Told]]
CHECKPOINT = "search"
_LOGS, _SNAPSHOTS = 200, 40  # events in a whole search
_PACE = 100  # steps that tell what those to come will cost
_SNAPSHOT_CONFIGURATIONS = 1000  # larger spaces have no snapshots of the assignment
_MEMBERS = 1000  # of spaces that are too large to be listed, configurations that branching is measured on


class SearchState:
    """Everything that a search is at one moment; ``save`` and ``restore`` make it last."""

    def __init__(self, problem: Experiment):
        settings, self.problem, self.step = problem.settings, problem, 0
        self.macs = 0  # of the training steps and scoring passes so far
        self.window = _Window()
        self.steps = search_steps(problem)
        apart = short_macs(problem) + measured_macs(problem)
        self.pace = Pace(max(settings.search_macs - apart, 1), self.steps) if settings.search_macs else None
        self.streams = Streams(settings.seed).child("search")
        self.sampler = samplers.sampler(settings.method)(
            samplers.Task(
                problem.space,
                settings.nets,
                self.steps,
                (settings.temperature_start, settings.temperature),
                settings.draw,
                self.streams["draw"],
                self.streams["assign"],
                settings.warm_up,
                grows=settings.branching == "measured",
            )
        )
        self.checks: list[dict[str, Any]] = []  # what was measured of branching
        self.nets = SuperNets(problem, self.streams)
        self.watch = Stopwatch(settings.profile)

    def save(self, folder: RunFolder) -> None:
        """Write everything into one atomic file."""
        meta = {
            "step": self.step,
            "macs": self.macs,
            "sampler": self.sampler.state(),
            "streams": self.streams.state(),
            "training": self.nets.training.state(),
            "scoring": self.nets.scoring.state(),
            "window": self.window.items,
            "pace": list(self.pace.last) if self.pace else [],
            "checks": self.checks,
            "profile": self.watch.seconds,
        }
        folder.save_checkpoint(CHECKPOINT, self._tensors(), meta, keep=True)

    def _tensors(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for m, (network, momenta) in enumerate(zip(self.nets.networks, self.nets.momenta(), strict=True)):
            for (name, parameter), momentum in zip(network.named_parameters(), momenta, strict=True):
                tensors[f"{m}.weight.{name}"] = parameter
                tensors[f"{m}.momentum.{name}"] = momentum
        return tensors

    @torch.no_grad()
    def restore(self, folder: RunFolder) -> bool:
        """Go back to what ``save`` wrote; False where there is nothing yet."""
        loaded = folder.load_checkpoint(CHECKPOINT)
        if loaded is None:
            return False
        with reading(f"the checkpoint of the search in {folder.path}", "remove it to begin the search anew"):
            self._take(*loaded)
        return True

    def _take(self, saved: dict[str, Tensor], meta: dict[str, Any]) -> None:
        for name, tensor in self._tensors().items():
            if saved[name].shape != tensor.shape:
                raise ValueError(f"{name} has another shape")
            tensor.copy_(saved[name])
        self.step, self.macs, self.checks = int(meta["step"]), int(meta["macs"]), list(meta.get("checks", []))
        self.sampler.restore(meta["sampler"])
        self.streams.restore(meta["streams"])
        self.nets.training.restore(meta["training"])
        self.nets.scoring.restore(meta["scoring"])
        self.window.items = list(meta["window"])
        if self.pace and self.step:
            self._keep_pace(meta["pace"])
        self.watch.seconds = dict(meta["profile"])

    def advance(self, run: Run | None = None, stop: Callable[[], None] = lambda: None) -> list[dict[str, Any]]:
        """Steps 1 to 5 of the method for one block; what happened at each step.

        Draws within a block see the scores as they were at its start; results are told in the order of the draws.
        ``run`` trains and scores (by default here, one after the other). Before the first block after a check that is due it is
        tried whether SuperNets branch; ``stop`` is called on the way and may raise, and nothing has changed then.
        """
        if 0 < self._check_at <= self.step:
            with self.watch("branching"):
                self._check(stop)
        with self.watch("assignment"):
            temperature = self.sampler.temperature
            # no block reaches over a branch
            end = min(stop for stop in (self.sampler.branch, self._check_at, self.steps) if stop > self.step)
            jobs = [self._job(self.step + i) for i in range(min(self.problem.block, end - self.step))]
        results = (run or self.nets.run_all)(jobs, self.watch)
        for i, (job, (loss, _)) in enumerate(zip(jobs, results, strict=True)):
            try:
                check_finite([loss])
            except LossNotFinite as error:
                raise self._not_finite(error, self.step + i, job) from None
        with self.watch("assignment"):
            for job, (_, accuracy) in zip(jobs, results, strict=True):
                self.sampler.tell(job.pooling, job.supernet, accuracy)
        self.step += len(jobs)
        if self.step == self.sampler.branch:
            self.nets.branch(1, self.sampler.supernets)
        taken = [step_macs(self.problem, self.problem.cost(job.pooling).macs) for job in jobs]
        self.macs += sum(taken)
        if self.pace:
            self._keep_pace(taken)
        return [
            {"loss": loss, "accuracy": accuracy, "lr": job.lr, "temperature": temperature, "supernet": job.supernet}
            for job, (loss, accuracy) in zip(jobs, results, strict=True)
        ]

    @property
    def _check_at(self) -> int:
        """Number of steps after which it is tried whether SuperNets branch; 0 for never again, as once it did not pay."""
        done = len(self.checks)
        some = self.sampler.can_double and self.problem.space.size > self.sampler.supernets  # one of them has two
        left = some and done < len(CHECKS) and all(check["pays"] for check in self.checks)
        return math.ceil(CHECKS[done] * self.steps) if left else 0

    def _check(self, stop: Callable[[], None]) -> None:
        """Every SuperNet becomes two where its configurations are better off apart by more than noise."""
        count, space, settings = self.sampler.supernets, self.problem.space, self.problem.settings
        streams = self.streams.child(f"branching{len(self.checks)}")
        if space.size > LISTED:
            members = sorted({space[uniform_below(streams["members"], space.size)] for _ in range(_MEMBERS)})
        else:
            members = list(space)
        owner = self.sampler.supernet_of(members)
        sharing = [[a for a, own in zip(members, owner, strict=True) if own == m] for m in range(count)]
        lr = cosine(self.step, self.steps, settings.lr, settings.lr_end)
        found, macs = branching.tried(self.problem, self.nets, sharing, streams, tried_steps(self.steps), lr, stop)
        self.macs += macs
        if found.pays:
            self.sampler.double()
            self.nets.branch(count, 2 * count)
        many = f"{self.sampler.supernets} SuperNet{'' if self.sampler.supernets == 1 else 's'}"
        self.checks.append(
            {
                "step": self.step,
                **found.to_json(),
                "macs": macs,
                "supernets": self.sampler.supernets,
                "said": f"after {self.step:,} steps: {found}; {many} from here on",
            }
        )

    def _keep_pace(self, taken: Sequence[int]) -> None:
        """As many steps in all as the multiply-adds that are left pay for."""
        assert self.pace
        measured = sum(check["macs"] for check in self.checks)
        self.steps = self.step + self.pace.left(self.macs - measured, taken)
        self.sampler.lengthen(self.steps)

    def _job(self, step: int) -> Job:
        settings = self.problem.settings
        lr = cosine(step, self.steps, settings.lr, settings.lr_end)
        return Job(*self.sampler.ask(), lr, self.nets.training.draw(), self.nets.scoring.draw())

    def _not_finite(self, error: LossNotFinite, step: int, job: Job) -> LossNotFinite:
        return LossNotFinite(
            f"search stopped at step {step + 1} of {self.steps}: {error}, configuration {job.pooling}, SuperNet"
            f" {job.supernet + 1}, learning rate {job.lr:.4g}. The last checkpoint is kept; start anew with a smaller --lr"
        )


class Pace:
    """How many steps a search has left that may take so many multiply-adds, and may prefer dear or cheap configurations.

    Steps to come are taken to cost what the last did, at first the mean.
    """

    def __init__(self, macs: int, steps: int):
        self.macs = macs
        self.last: deque[int] = deque([macs // steps] * _PACE, maxlen=_PACE)

    def left(self, spent: int, taken: Sequence[int]) -> int:
        """Steps that are left after ``spent`` multiply-adds, of which the last steps took ``taken`` each."""
        self.last.extend(taken)
        return max(self.macs - spent, 0) * len(self.last) // sum(self.last)


def search(problem: Experiment, folder: RunFolder, listener: Listener) -> SearchState:
    """Train the mixture from the last checkpoint (or from scratch) to the end.

    Raises Interrupted when asked to stop.
    """
    state, parallel = SearchState(problem), for_search(problem)
    if not state.restore(folder):
        state.save(folder)
    for kind, step in (("search", state.step + 1), ("assignment", state.step + 1), ("branching", state.step)):
        folder.forget_events(kind, step)
    listener.start("search", state.steps, state.step)
    if parallel.workers > 1:
        with crew(problem, state.nets, parallel.workers, parallel.threads) as workers:
            _train(state, folder, listener, partial(run_parallel, workers))
    else:
        with threads_here(parallel.threads):
            _train(state, folder, listener, None)
    if state.watch.running:
        seconds = {part: round(state.watch.seconds.get(part, 0.0), 3) for part in PARTS}
        folder.write_json(
            "profile.json", {"format": FORMAT, "stage": "search", "steps": state.steps, "seconds": seconds}
        )
    listener.finish()
    return state


def _train(state: SearchState, folder: RunFolder, listener: Listener, run: Run | None) -> None:
    saved, window, watch = time.monotonic(), state.window, state.watch
    try:
        while state.step < state.steps:
            listener.check()
            before, told = state.step, len(state.checks)
            happened = state.advance(run, listener.check)
            with watch("logging"):
                window.add(happened)
                _log(folder, state, window, before)
                best = _leaders(state) if _crossed(before, state.step, 20) else None
                listener.advance(len(happened), best=best, **window.last)
                for check in state.checks[told:]:
                    folder.log({"event": "branching", **check})
                    listener.note(check["said"])
                if time.monotonic() - saved > 60 * state.problem.settings.checkpoint_minutes:
                    state.save(folder)
                    saved = time.monotonic()
    except Interrupted:
        state.save(folder)
        raise
    state.save(folder)


def _crossed(before: int, after: int, every: int) -> bool:
    """Whether a multiple of ``every`` lies in (before, after]."""
    return after // every > before // every


class _Window:
    """Means since the last event."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.last: dict[str, Any] = {}

    def add(self, items: list[dict[str, Any]]) -> None:
        self.items += items
        for item in items:
            self.last |= {name: value for name, value in item.items() if value is not None}

    def means(self) -> dict[str, float]:
        """Loss and accuracy."""
        means = {name: sum(item[name] for item in self.items) / len(self.items) for name in ("loss", "accuracy")}
        self.items = []
        return means


def _log(folder: RunFolder, state: SearchState, window: _Window, before: int) -> None:
    step, steps = state.step, state.steps
    curves = step == steps or _crossed(before, step, max(steps // _LOGS, 1))
    snapshot = step == steps or _crossed(before, step, max(steps // _SNAPSHOTS, 1))
    if not curves and not snapshot:
        return
    if curves:
        event = {**window.means(), "lr": window.last["lr"], **state.sampler.summary()}
        folder.log({"event": "search", "step": step, **event})
    space = state.problem.space
    if snapshot and space.size <= _SNAPSHOT_CONFIGURATIONS:
        assignment_PM = state.sampler.assignment_of(list(space))
        folder.log({"event": "assignment", "step": step, "assignment": assignment_PM.round(4).tolist()})


def _leaders(state: SearchState) -> list[tuple[str, float]]:
    """Five configurations with the highest moving average on their most probable SuperNet, told as they stand now."""
    return [(str(pooling), score) for pooling, score in state.sampler.leaders(5)]
