"""Train a mixture of SuperNets.

The method has six steps (docs/algorithm.md). ``train_block`` runs steps 1 to 5 for one block of configurations, ``train``
repeats it until the search is finished, and ``poolwise.rankings.scoring`` runs step 6:

1. Draw a configuration: in shuffled rounds that visit every configuration once, or independently. With ``group``, draw several
   that share a prefix of layers; they train in one step, on the same batches.
2. Draw a SuperNet from ``p(m | configuration)``, or from its mean over the group.
3. Take one optimizer step of that SuperNet at that configuration on a training batch.
4. Measure its accuracy on a scoring batch and move the score of the pair towards it.
5. Raise the temperature, lower the learning rate.
6. Rank all configurations.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from poolwise.progress import Interrupted, Listener
from poolwise.storage import RunFolder
from poolwise.supernets.branching import check_branching, next_check
from poolwise.supernets.log import SearchLog
from poolwise.supernets.mixture import Job, StepResult, TrainAndScore, backend
from poolwise.supernets.state import SearchState
from poolwise.supernets.surveys import survey_when_due
from poolwise.training import LossNotFinite, check_finite, cosine


def train(state: SearchState, folder: RunFolder, listener: Listener) -> None:
    """Train the SuperNets from the current step of ``state`` to the end of the search.

    Write events and checkpoints to ``folder``. A checkpoint is saved every few minutes, on interruption and at the end.

    Raises:
        Interrupted: If ``listener`` requests a stop.
        LossNotFinite: If a loss is NaN or infinite. The last checkpoint is kept.
    """
    log = SearchLog(state, folder, listener)
    with backend(state.experiment, state.mixture) as train_and_score, _checkpoints(state, folder) as save_when_due:
        while not state.finished:
            listener.check()
            records = train_block(state, train_and_score, listener.check)
            with state.watch("logging"):
                log.add(records)
                save_when_due()
    log.close()


def train_block(
    state: SearchState, train_and_score: TrainAndScore | None = None, check_stop: Callable[[], None] = lambda: None
) -> list[dict[str, Any]]:
    """Run steps 1 to 5 of the method for one block.

    All draws of a block use the scores and the temperature at its start. The scores are then updated in the order of the
    draws.

    Args:
        state: State of the search, modified in place.
        train_and_score: Runs the jobs of the block. By default they run in this process, in order.
        check_stop: Called during a branching check or a survey, which run before the block if they are due. It may raise;
            the state is then unchanged.

    Returns:
        One record per step: loss, accuracy (means over a group), learning rate, temperature and SuperNet.
    """
    check_branching(state, check_stop)
    survey_when_due(state, check_stop)
    sampler, mixture, config = state.sampler, state.mixture, state.experiment.config
    with state.watch("assignment"):
        temperature = sampler.temperature
        rates = [cosine(step, state.steps, config.training.lr, config.training.lr_end) for step in _block(state)]
        jobs = []
        for lr in rates:
            poolings, supernet = sampler.ask_group()  # 1. draw a configuration, 2. draw its SuperNet
            training = mixture.training.draw()
            scoring = mixture.scoring.draw() if config.search.score_on == "held-out" else None
            jobs.append(Job(poolings, supernet, lr, training, scoring))

    # 3. one optimizer step of that SuperNet at that configuration, and its accuracy on a scoring batch
    results = (train_and_score or mixture.train_and_score)(jobs, state.watch)
    _check_losses(state, jobs, results)

    with state.watch("assignment"):
        for job, result in zip(jobs, results, strict=True):
            sampler.tell_group(job.poolings, job.supernet, result.accuracies)  # 4. score <- 0.9 score + 0.1 accuracy
    state.advance(jobs)  # 5. with the steps, the temperature rises linearly and the learning rate falls by cosine
    return [
        {
            "loss": result.loss,
            "accuracy": result.accuracy,
            "lr": job.lr,
            "temperature": temperature,
            "supernet": job.supernet,
        }
        for job, result in zip(jobs, results, strict=True)
    ]


def _block(state: SearchState) -> range:
    """Return the steps of the next block. A block never extends past the end of the warm-up, a branching check or a survey."""
    ends = (state.sampler.warm_up_end, next_check(state), state.sampler.next_survey or 0, state.steps)
    end = min(end for end in ends if end > state.step)
    return range(state.step, min(state.step + state.experiment.block, end))


def _check_losses(state: SearchState, jobs: Sequence[Job], results: Sequence[StepResult]) -> None:
    """Raise LossNotFinite, naming the step and its configuration, if a loss is NaN or infinite."""
    for step, (job, result) in enumerate(zip(jobs, results, strict=True), start=state.step + 1):
        try:
            check_finite([result.loss])
        except LossNotFinite as error:
            raise LossNotFinite(
                f"search stopped at step {step} of {state.steps}: {error}, configuration"
                f" {', '.join(map(str, job.poolings))}, SuperNet {job.supernet + 1}, learning rate {job.lr:.4g}. The last"
                " checkpoint is kept; start a new run with a smaller --lr"
            ) from None


@contextmanager
def _checkpoints(state: SearchState, folder: RunFolder) -> Iterator[Callable[[], None]]:
    """Save the state at the end and on Interrupted. Yield a function that saves it if a checkpoint is due."""
    saved_at = time.monotonic()

    def save_when_due() -> None:
        nonlocal saved_at
        if time.monotonic() - saved_at > 60 * state.experiment.config.search.checkpoint_minutes:
            state.save(folder)
            saved_at = time.monotonic()

    try:
        yield save_when_due
    except Interrupted:
        state.save(folder)
        raise
    state.save(folder)
