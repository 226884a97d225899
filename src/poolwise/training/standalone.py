"""Stand-alone training: one pooling configuration, trained from scratch or from the initial weights of the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from poolwise.datasets.batches import Shuffled
from poolwise.models.chain import learning, running_norm
from poolwise.models.supernet import plain_model
from poolwise.progress import Listener
from poolwise.rng import Streams
from poolwise.spaces import Pooling
from poolwise.training.step import LossNotFinite, accuracy, check_finite, compiled, cosine, sgd, train_step

if TYPE_CHECKING:
    from poolwise.experiment import Experiment

Curve = list[tuple[int, float]]
_CURVE_POINTS = 60


@dataclass(frozen=True)
class Purpose:
    """The purpose of a stand-alone training, which determines its images, random streams and initial weights.

    Attributes:
        stream: Name of the random streams, so that trainings for different purposes draw different numbers.
        halves: Train on the training half and measure accuracy on the scoring half, so that the test set stays unseen.
            Otherwise train on all training images and measure test accuracy.
        weights_for: ``search`` or ``retrain``. The training starts from given weights if the setting ``weights_for`` includes it.
        measured: Whether accuracy is measured, once, at the end of the training.
    """

    stream: str
    halves: bool = True
    weights_for: str = "retrain"
    measured: bool = True

    @property
    def scored_on(self) -> str:
        """Name of the images that accuracy is measured on."""
        return "scoring half" if self.halves else "test set"


RETRAINING = Purpose("standalone", halves=False)


@dataclass(frozen=True)
class Outcome:
    """Result of a stand-alone training: accuracy (0 to 1, or None), curve of (step, mean loss in nats), model."""

    accuracy: float | None
    curve: Curve
    model: torch.nn.Module


def train_standalone(
    experiment: Experiment, pooling: Pooling, seed: int, steps: int, purpose: Purpose, listener: Listener
) -> Outcome:
    """Train one configuration stand-alone.

    The same ``seed`` gives every configuration the same initial weights, batches and augmentations, so that accuracies can
    be compared in pairs.

    Args:
        experiment: Network family, images, device and precision.
        pooling: The configuration.
        seed: Seed of this training, in addition to the seed of the run.
        steps: Optimizer steps, which is also the length of the learning rate schedule.
        purpose: Determines the images, random streams and initial weights.
        listener: Notified of each step.

    Raises:
        LossNotFinite: The loss is NaN or infinite.
        Interrupted: The listener requests a stop.
    """
    config = experiment.config
    streams = Streams(config.seed).child(f"{purpose.stream}{seed}")
    model = plain_model(experiment.build(running_norm, "init", streams, purpose.weights_for), pooling)
    experiment.precision.place(model, experiment.device)
    compiled(model, model.children(), config.hardware.compile)
    training, scoring = experiment.halves if purpose.halves else (None, None)
    images = experiment.batches(experiment.training_images, config.training.batch_size, training)
    batches = Shuffled(images, streams["order"], (experiment.augmentation, streams["augment"]))
    curve = _train(experiment, model, batches, steps, listener, f"stand-alone training of {pooling}, seed {seed},")
    if not purpose.measured:
        return Outcome(None, curve, model)
    scored_on = experiment.training_images if purpose.halves else experiment.source.test
    test = experiment.batches(scored_on, config.ranking.eval_batch_size, scoring)
    return Outcome(accuracy(model, test.ordered(), experiment.precision), curve, model)


def _train(
    experiment: Experiment, model: torch.nn.Module, batches: Shuffled, steps: int, listener: Listener, name: str
) -> Curve:
    """Take all optimizer steps, leave the model in evaluation mode and return the training curve."""
    config = experiment.config
    optimizer = sgd(model, config.training.lr, config.training.momentum, config.training.weight_decay)
    losses: list[torch.Tensor] = []
    curve: Curve = []
    learning(model)
    for step in range(steps):
        listener.check()
        lr = cosine(step, steps, config.training.lr, config.training.lr_end)
        losses.append(train_step(model, optimizer, *batches.next(), lr, experiment.precision))
        if (step + 1) % max(steps // _CURVE_POINTS, 1) == 0 or step + 1 == steps:
            values = torch.stack(losses).tolist()  # the only synchronization with the device
            try:
                check_finite(values)
            except LossNotFinite as error:
                raise LossNotFinite(
                    f"{name} stopped by step {step + 1} of {steps}: {error}, learning rate {lr:.4g}. Finished trainings are"
                    " kept; start again with a smaller --lr"
                ) from None
            curve.append((step + 1, float(np.mean(values))))
            losses = []
        listener.advance(loss=curve[-1][1] if curve else None, lr=lr)
    model.eval()
    return curve
