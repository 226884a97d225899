"""Measure whether two SuperNets reach a lower loss than one at equal compute, and double the SuperNets if they do.

A trial trains a SuperNet three times in place: on all its configurations, and on each half of them. Weights and momenta are
restored after each time, so a trial does not affect the search. The two halves together take the same steps on the same
batches as all configurations, so compute is equal. The learning rate decays to its final value within a trial, because
rankings use final weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from poolwise.datasets.batches import Draw, Shuffled
from poolwise.experiment import Experiment
from poolwise.models.prefixes import walk
from poolwise.models.supernet import SwitchableNet
from poolwise.rng import Streams
from poolwise.spaces import LISTED, Pooling, uniform_below
from poolwise.supernets.budget import CHECKS, SCORED, TRIALS, tried_steps
from poolwise.supernets.mixture import Mixture
from poolwise.supernets.samplers.draws import Rounds
from poolwise.supernets.state import SearchState
from poolwise.training import cosine, train_step

SIGNIFICANCE = 0.05  # probability that noise alone counts as a gain
_SAMPLED = 1000  # configurations sampled from a space that is too large to list
Step = tuple[Pooling, Draw, float]  # configuration, training batch, learning rate


@dataclass(frozen=True)
class BranchingResult:
    """Measured gain of two SuperNets, one for each half of the configurations, over one.

    Attributes:
        gain: Loss of one SuperNet on scoring images minus that of two, in nats, mean over trials.
        noise: Upper 95 % bound of ``gain`` under the null hypothesis that two SuperNets make no difference.
        steps: Optimizer steps of each half in a trial.
        diverged: Whether a loss was not finite, so that the other values are meaningless.
    """

    gain: float
    noise: float
    steps: int
    diverged: bool = False

    @property
    def pays(self) -> bool:
        """Whether two SuperNets are significantly better than one."""
        return self.gain > self.noise and not self.diverged

    def to_json(self) -> dict[str, Any]:
        """Return all attributes and ``pays``."""
        return {**asdict(self), "pays": self.pays}

    def __str__(self) -> str:
        if self.diverged:
            return "the branching trial diverged"
        direction = "lower" if self.gain > 0 else "higher"
        return (
            f"two SuperNets reach a loss {abs(self.gain):.3f} nats {direction} than one at equal compute"
            f" (noise: up to {self.noise:.3f})"
        )


def next_check(state: SearchState) -> int:
    """Return the step before which the next check is due; 0 if none is left, or if a check did not pay."""
    done = len(state.checks)
    possible = state.sampler.can_double and state.experiment.space.size > state.sampler.supernets
    left = possible and done < len(CHECKS) and all(check["pays"] for check in state.checks)
    return math.ceil(CHECKS[done] * state.steps) if left else 0


def check_branching(state: SearchState, check_stop: Callable[[], None] = lambda: None) -> None:
    """Double the SuperNets if a check is due and it shows a significant gain.

    Args:
        state: State of the search. The result is appended to its ``checks``.
        check_stop: Called before every step of a trial. It may raise; the state is then unchanged.
    """
    if not 0 < next_check(state) <= state.step:
        return
    with state.watch("branching"):
        count, config = state.sampler.supernets, state.experiment.config
        streams = state.streams.child(f"branching{len(state.checks)}")
        members = _members_of_each(state, streams)
        lr = cosine(state.step, state.steps, config.training.lr, config.training.lr_end)
        steps = tried_steps(state.steps)
        result, macs = measure_gain(state.experiment, state.mixture, members, streams, steps, lr, check_stop)
        state.macs += macs
        if result.pays:
            state.sampler.double()
            state.mixture.copy_first(count, 2 * count)
        count = state.sampler.supernets
        plural = "" if count == 1 else "s"
        state.checks.append(
            {
                "step": state.step,
                **result.to_json(),
                "macs": macs,
                "supernets": count,
                "said": f"after {state.step:,} steps: {result}; the search continues with {count} SuperNet{plural}",
            }
        )


def _members_of_each(state: SearchState, streams: Streams) -> list[list[Pooling]]:
    """Return the configurations of each SuperNet in the order of the space; of a large space, those in a sample."""
    space = state.experiment.space
    if space.size > LISTED:
        poolings = sorted({space[uniform_below(streams["members"], space.size)] for _ in range(_SAMPLED)})
    else:
        poolings = list(space)
    supernet_P = state.sampler.supernet_of(poolings)
    return [
        [pooling for pooling, supernet in zip(poolings, supernet_P, strict=True) if supernet == m]
        for m in range(state.sampler.supernets)
    ]


def measure_gain(
    experiment: Experiment,
    mixture: Mixture,
    members: Sequence[Sequence[Pooling]],
    streams: Streams,
    steps: int,
    lr: float,
    check_stop: Callable[[], None] = lambda: None,
) -> tuple[BranchingResult, int]:
    """Measure the gain of doubling the SuperNets in TRIALS trials, for which the SuperNets take turns.

    Weights, momenta and the random streams of the search are unchanged afterwards.

    Args:
        experiment: Images, augmentation, precision and config.
        mixture: The SuperNets.
        members: Configurations of each SuperNet in the order of the space, which sorts by the first pooling position.
            SuperNets with fewer than two configurations are skipped.
        streams: Random streams for this measurement only.
        steps: Steps of each half in a trial.
        lr: Initial learning rate, which decays to ``config.training.lr_end``.
        check_stop: Called before every step. It may raise.

    Returns:
        The result, and the MACs of all trials.
    """
    divisible = [(m, poolings) for m, poolings in enumerate(members) if len(poolings) > 1]
    gains, macs = [], 0
    for i in range(TRIALS):
        trial = _Trial(experiment, mixture, *divisible[i % len(divisible)], streams.child(f"trial{i}"), check_stop)
        gains.append(trial.gain(steps, lr, experiment.config.training.lr_end))
        macs += trial.macs
    if not np.isfinite(gains).all():
        return BranchingResult(0.0, 0.0, steps, diverged=True), macs
    error = float(np.std(gains, ddof=1) / np.sqrt(TRIALS))
    noise = float(stats.t.ppf(1 - SIGNIFICANCE, TRIALS - 1)) * error
    return BranchingResult(float(np.mean(gains)), noise, steps), macs


class _Trial:
    """One trial of one SuperNet, whose weights and momenta are restored at the end."""

    def __init__(
        self,
        experiment: Experiment,
        mixture: Mixture,
        m: int,
        poolings: Sequence[Pooling],
        streams: Streams,
        check_stop: Callable[[], None],
    ):
        self.experiment, self.mixture, self.m, self.check_stop = experiment, mixture, m, check_stop
        batch_size = experiment.config.training.batch_size
        training, scoring = (
            experiment.batches(experiment.training_images, batch_size, half) for half in experiment.halves
        )
        self.training = Shuffled(training, streams["order"], (experiment.augmentation, streams["augment"]))
        self.scoring_batch = Shuffled(scoring, streams["score_order"]).next()
        self.halves = (poolings[: len(poolings) // 2], poolings[len(poolings) // 2 :])
        self.rounds = [Rounds(len(half), streams["draw"]) for half in self.halves]
        self.scored = [
            [half[int(i)] for i in streams["scored"].permutation(len(half))[: SCORED // 2]] for half in self.halves
        ]
        self.macs = 0

    def gain(self, steps: int, lr: float, lr_end: float) -> float:
        """Return the loss of one SuperNet minus the loss of two, averaged over both halves of the configurations."""
        plan = [self._draw(i % 2, cosine(i, 2 * steps, lr, lr_end)) for i in range(2 * steps)]
        loss_of_one = self._losses(plan, (0, 1))
        loss_of_two = [self._losses(plan[half::2], (half,))[0] for half in (0, 1)]
        return float(np.mean(loss_of_one) - np.mean(loss_of_two))

    def _draw(self, half: int, lr: float) -> Step:
        return self.halves[half][self.rounds[half].next()], self.training.draw(), lr

    def _losses(self, plan: Sequence[Step], halves: Sequence[int]) -> list[float]:
        """Train for the steps of ``plan``, return the losses of ``halves`` afterwards, and restore the SuperNet."""
        network, optimizer = self.mixture.networks[self.m], self.mixture.optimizers[self.m]
        tensors = [*network.parameters(), *self.mixture.momenta()[self.m]]
        before = [tensor.detach().clone() for tensor in tensors]
        try:
            for pooling, draw, lr in plan:
                self.check_stop()
                images_BCHW, labels_B = self.training.load(draw)
                forward = partial(network.__call__, pooling=pooling)
                train_step(forward, optimizer, images_BCHW, labels_B, lr, self.experiment.precision)
                self.macs += 3 * len(labels_B) * self.experiment.cost(pooling).macs
            losses = [_loss(self.experiment, network, self.scored[half], self.scoring_batch) for half in halves]
        finally:
            with torch.no_grad():
                for tensor, saved in zip(tensors, before, strict=True):
                    tensor.copy_(saved)
        images = len(self.scoring_batch[1])
        self.macs += sum(images * self.experiment.cost.prefix_macs(self.scored[half]) for half in halves)
        return losses


@torch.no_grad()
def _loss(
    experiment: Experiment, network: SwitchableNet, poolings: Sequence[Pooling], batch: tuple[Tensor, Tensor]
) -> float:
    """Return the mean loss of ``poolings`` on one batch, in nats."""
    (images_BCHW, labels_B), total = batch, 0.0
    with experiment.precision.active(images_BCHW.device):
        for members, logits_BK in walk(network, poolings, experiment.precision.images(images_BCHW)):
            total += len(members) * float(F.cross_entropy(logits_BK.float(), labels_B))
    return total / len(poolings)
