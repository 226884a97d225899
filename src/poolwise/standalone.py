"""Stand-alone training: one configuration from scratch, or many, with their trials kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from poolwise import workers
from poolwise.errors import PoolwiseError, RunFailure, WorkerDied
from poolwise.experiment import Experiment
from poolwise.images.batches import Shuffled
from poolwise.networks.chain import learning, running_norm
from poolwise.networks.switch import export
from poolwise.progress import Listener
from poolwise.rng import Streams
from poolwise.space import Pooling
from poolwise.storage import RunFolder, checkpoint_name
from poolwise.training import LossNotFinite, accuracy, check_finite, compiled, cosine, sgd, train_step

_CURVE = 60  # points of a training curve


@dataclass(frozen=True)
class Outcome:
    """One stand-alone training: accuracy (0 to 1), curve of [step, loss], the plain trained model."""

    accuracy: float
    curve: list[tuple[int, float]]
    model: torch.nn.Module


@dataclass(frozen=True)
class Part:
    """What a training has in place of all training images, the test set and the length of a retraining.

    Attributes:
        training, scoring: indices into the training images: what is trained on, and what accuracy is measured on.
        steps: optimizer steps, with a whole learning rate schedule of that length.
        stream: name of the random streams, so that nothing is drawn as in trainings of another purpose.
        begins: ``search`` or ``retrain``: given weights are for it (``Settings.weights_for``).
    """

    training: np.ndarray
    scoring: np.ndarray
    steps: int
    stream: str
    begins: str = "retrain"


def on_halves(problem: Experiment, steps: int, stream: str) -> Part:
    """A training on the training half that is judged by the scoring half: the test set stays unseen."""
    training, scoring = problem.halves
    return Part(training, scoring, steps, stream)


def train(problem: Experiment, pooling: Pooling, seed: int, listener: Listener, part: Part | None = None) -> Outcome:
    """Train one configuration on the full training set and test it on the test set, or on a ``part`` of the images.

    It begins with random weights, or with those that the settings give (``Settings.weights``).

    The same ``seed`` gives every configuration the same initial weights, batches and augmentations, so that accuracies
    can be compared in pairs. The test set is used once, at the end; with a ``part`` it is not used at all.
    """
    curve, model = trained(problem, pooling, seed, listener, part)
    judged = problem.source.test if part is None else problem.training_images
    test = problem.batches(judged, problem.settings.eval_batch_size, None if part is None else part.scoring)
    return Outcome(accuracy(model, test.ordered(), problem.precision), curve, model)


def trained(
    problem: Experiment, pooling: Pooling, seed: int, listener: Listener, part: Part | None = None
) -> tuple[list[tuple[int, float]], torch.nn.Module]:
    """The curve and the model of ``train``, which is tested on nothing."""
    settings, steps = problem.settings, problem.retrain_steps if part is None else part.steps
    streams = Streams(settings.seed).child(f"{'standalone' if part is None else part.stream}{seed}")
    model = export(problem.build(running_norm, "init", streams, part.begins if part else "retrain"), pooling)
    problem.precision.place(model, problem.device)
    compiled(model, model.children(), settings.compile)
    optimizer = sgd(model, settings.lr, settings.momentum, settings.weight_decay)
    images = problem.batches(problem.training_images, settings.batch_size, None if part is None else part.training)
    batches = Shuffled(images, streams["order"], (problem.augmentation, streams["augment"]))
    losses: list[torch.Tensor] = []
    curve: list[tuple[int, float]] = []
    learning(model)
    for step in range(steps):
        listener.check()
        lr = cosine(step, steps, settings.lr, settings.lr_end)
        losses.append(train_step(model, optimizer, *batches.next(), lr, problem.precision))
        if (step + 1) % max(steps // _CURVE, 1) == 0 or step + 1 == steps:
            values = torch.stack(losses).tolist()  # the only wait for the device
            try:
                check_finite(values)
            except LossNotFinite as error:
                raise LossNotFinite(
                    f"stand-alone training of {pooling}, seed {seed}, stopped by step {step + 1} of {steps}: {error},"
                    f" learning rate {lr:.4g}. Finished trainings are kept; start anew with a smaller --lr"
                ) from None
            curve.append((step + 1, float(np.mean(values))))
            losses = []
        listener.advance(loss=curve[-1][1] if curve else None, lr=lr)
    model.eval()
    return curve, model


def train_all(
    problem: Experiment,
    folder: RunFolder,
    asked: Sequence[tuple[str, int]],
    listener: Listener,
    *,
    stage: str,
    keep: bool = False,
    retry: bool = True,
    file: str = "trials.sqlite",
) -> None:
    """Train every (pooling, seed) that ``file`` does not hold yet, several at once where workers are allowed.

    With ``keep`` the weights are kept as well, and a training that fails ends the stage; without, it is noted as failed.
    """
    trials, steps = folder.trials(file), problem.retrain_steps
    known = trials.states(steps)
    again = () if retry else ("failed",)
    todo = [pair for pair in asked if known.get(pair) not in ("done", *again)]
    if keep:  # weights that were lost are trained again
        todo = [p for p in asked if p in todo or not folder.has(checkpoint_name(weights_name(*p, steps)))]
    listener.start(stage, len(asked) * steps, (len(asked) - len(todo)) * steps)
    jobs = [(pooling, seed, str(folder.path) if keep else None) for pooling, seed in todo]
    parallel = workers.for_trainings(problem)
    died: PoolwiseError | None = None
    for (pooling, seed, _), result in workers.each(
        problem, run_one, jobs, listener, parallel.workers, parallel.threads
    ):
        if isinstance(result, PoolwiseError):
            if keep and not isinstance(result, WorkerDied):
                raise result
            trials.record_failure(pooling, seed, steps, str(result))
            listener.note(f"failed: {result}")
            died = result if keep else died
            continue
        value, curve, seconds = result
        trials.record(pooling, seed, steps, value, curve, seconds)
        listener.note(f"trained {pooling}, seed {seed}: test accuracy {100 * value:.2f} %")
    listener.finish()
    if died:
        raise RunFailure(f"{died}; all others are finished and kept: poolwise resume {folder.path} tries it again")


def run_one(
    problem: Experiment, listener: Listener, _hold: None, pooling: str, seed: int, folder: str | None
) -> tuple[float, list[tuple[int, float]], float]:
    """Accuracy, curve and seconds of one training; its weights go to ``folder`` where that is given."""
    begin = time.perf_counter()
    outcome = train(problem, Pooling.parse(pooling), seed, listener)
    if folder is not None:
        RunFolder(Path(folder)).save_checkpoint(
            weights_name(pooling, seed, problem.retrain_steps),
            dict(outcome.model.state_dict()),
            {"pooling": pooling, "seed": seed, "steps": problem.retrain_steps},
        )
    return outcome.accuracy, outcome.curve, time.perf_counter() - begin


def weights_name(pooling: str, seed: int, steps: int) -> str:
    """Checkpoint of a retrained model."""
    return f"{pooling}-seed{seed}-{steps}steps"
