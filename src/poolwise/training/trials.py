"""Loop over stand-alone trainings: run those missing in a trials file, in parallel, and record every result."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from poolwise.errors import PoolwiseError, WorkerDied
from poolwise.progress import Listener
from poolwise.spaces import Pooling
from poolwise.storage import RunFolder, Trials, checkpoint_name
from poolwise.training.calibration import Parallel
from poolwise.training.standalone import Curve, Purpose, train_standalone
from poolwise.training.step import LossNotFinite
from poolwise.training.workers import run_jobs

if TYPE_CHECKING:
    from poolwise.experiment import Experiment


class TrainingRequest(NamedTuple):
    """A requested stand-alone training: ``steps`` optimizer steps of ``pooling`` with ``seed``."""

    pooling: str
    seed: int
    steps: int


class Result(NamedTuple):
    """Record of a finished training: accuracy (0 to 1) if measured, curve, seconds."""

    accuracy: float | None
    curve: Curve
    seconds: float


class TrialRunner:
    """Runs stand-alone trainings and records them in a trials file.

    Recorded trainings are skipped, so a stopped run continues with the missing ones.

    Args:
        experiment: The experiment.
        trials: The trials file. Nothing else may write to it at the same time.
        purpose: Determines the images, random streams and initial weights of the trainings.
        listener: Notified of steps, results and failures.
        parallel: The processes, one training in each at a time, and the CPU threads of each.
        save_weights_to: Run folder for the trained weights. A training whose weights are missing is repeated.
        retry_failed: Repeat trainings that are recorded as failed.
        record_errors: Errors that are recorded as the failure of one training while others continue. Any other error
            stops the loop.
        consequence: Text about the consequence of a failure, appended to its message.
    """

    def __init__(
        self,
        experiment: Experiment,
        trials: Trials,
        purpose: Purpose,
        listener: Listener,
        *,
        parallel: Parallel,
        save_weights_to: RunFolder | None = None,
        retry_failed: bool = False,
        record_errors: tuple[type[PoolwiseError], ...] = (LossNotFinite, WorkerDied),
        consequence: str = "",
    ):
        self.experiment, self.trials, self.purpose, self.listener = experiment, trials, purpose, listener
        self.parallel = parallel
        self.save_weights_to, self.retry_failed = save_weights_to, retry_failed
        self.record_errors, self.consequence = record_errors, consequence
        self._rows = {TrainingRequest(row["pooling"], row["seed"], row["budget"]): row for row in trials.all()}

    def run(
        self, requested: Sequence[TrainingRequest], stage: str | None = None
    ) -> dict[TrainingRequest, dict[str, Any]]:
        """Run the requested trainings that are not recorded yet.

        Args:
            requested: The trainings.
            stage: Name of the stage to report to the listener; None if the caller has already started one.

        Returns:
            The recorded row of each requested training (see ``Trials.all``), with ``state`` ``done`` or ``failed``.

        Raises:
            Interrupted: The listener requests a stop. Finished trainings are recorded.
            PoolwiseError: A training raised an error that is not in ``record_errors``.
        """
        missing = [request for request in requested if not self.is_recorded(request)]
        recorded_steps = sum(request.steps for request in requested) - sum(request.steps for request in missing)
        if stage is None:
            self.listener.advance(recorded_steps)
        else:
            self.listener.start(stage, sum(request.steps for request in requested), recorded_steps)
        weights_folder = self.save_weights_to.path if self.save_weights_to else None
        jobs = [(*request, self.purpose, weights_folder) for request in missing]
        for job, result in run_jobs(
            self.experiment, _train, jobs, self.listener, self.parallel.workers, self.parallel.threads
        ):
            self._record_outcome(TrainingRequest(*job[:3]), result)
        if stage is not None:
            self.listener.finish()
        return {request: self._rows[request] for request in requested}

    def is_recorded(self, request: TrainingRequest) -> bool:
        """Return whether ``run`` would skip this training."""
        row = self._rows.get(request)
        if row is None or (row["state"] == "failed" and self.retry_failed):
            return False
        return self.save_weights_to is None or self.save_weights_to.has(checkpoint_name(weights_name(*request)))

    def record(self, request: TrainingRequest, result: Result) -> None:
        """Record a finished training."""
        self.trials.record(*request, *result)
        self._rows[request] = {**_row(request, "done"), **result._asdict()}

    def _record_outcome(self, request: TrainingRequest, result: Result | PoolwiseError) -> None:
        if isinstance(result, Result):
            self.record(request, result)
            if result.accuracy is not None:
                percent = f"{100 * result.accuracy:.2f} % on the {self.purpose.scored_on}"
                self.listener.note(f"trained {request.pooling}, seed {request.seed}, {request.steps} steps: {percent}")
        elif isinstance(result, self.record_errors):
            self.trials.record_failure(*request, str(result))
            self._rows[request] = {**_row(request, "failed"), "error": str(result)}
            self.listener.note(f"failed: {result}{self.consequence}")
        else:
            raise result


def _row(request: TrainingRequest, state: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"accuracy": None, "curve": [], "seconds": None, "error": None}
    return {"pooling": request.pooling, "seed": request.seed, "budget": request.steps, "state": state, **empty}


def _train(
    experiment: Experiment,
    listener: Listener,
    _state: None,
    pooling: str,
    seed: int,
    steps: int,
    purpose: Purpose,
    weights_folder: Path | None,
) -> Result:
    """Run one training, in a worker or in this process. Save its weights if ``weights_folder`` is given."""
    started = time.perf_counter()
    outcome = train_standalone(experiment, Pooling.parse(pooling), seed, steps, purpose, listener)
    if weights_folder is not None:
        meta = {"pooling": pooling, "seed": seed, "steps": steps}
        RunFolder(weights_folder).save_checkpoint(
            weights_name(pooling, seed, steps), dict(outcome.model.state_dict()), meta
        )
    return Result(outcome.accuracy, outcome.curve, time.perf_counter() - started)


def weights_name(pooling: str, seed: int, steps: int) -> str:
    """Return the checkpoint name of a trained model."""
    return f"{pooling}-seed{seed}-{steps}steps"
