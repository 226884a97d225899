"""Measure whether two SuperNets would reach a lower loss than one, at equal compute, and double them where they do.

In a trial one copy of a SuperNet is trained on all its configurations, and two more copies on half of them each. Together the
two take the same steps as the one, on the same batches, so the compute is equal. The learning rate falls to its end on the way,
because the final weights are what is ranked. All copies are dropped: a trial changes nothing in the search.
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
_SAMPLED = 1000  # configurations that stand for a space which is too large to be listed
Step = tuple[Pooling, Draw, float]  # configuration, training batch, learning rate


@dataclass(frozen=True)
class BranchingResult:
    """What a SuperNet for each half of the configurations gains.

    Attributes:
        gain: loss on scoring images of one SuperNet minus that of two, in nats; mean over trials.
        noise: upper 95 % bound of ``gain`` where two SuperNets make no difference.
        steps: optimizer steps of each half in a trial.
        diverged: a loss was not finite, so nothing is known.
    """

    gain: float
    noise: float
    steps: int
    diverged: bool = False

    @property
    def pays(self) -> bool:
        """Whether two SuperNets are better beyond noise."""
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
            f" (noise {self.noise:.3f})"
        )


def next_check(state: SearchState) -> int:
    """Return the step before which the next check is due; 0 where none is left, as after one that did not pay."""
    done = len(state.checks)
    possible = state.sampler.can_double and state.experiment.space.size > state.sampler.supernets
    left = possible and done < len(CHECKS) and all(check["pays"] for check in state.checks)
    return math.ceil(CHECKS[done] * state.steps) if left else 0


def check_branching(state: SearchState, stop: Callable[[], None] = lambda: None) -> None:
    """Double the SuperNets where a check is due and it pays.

    Args:
        state: of the search; gets the result of the check in ``checks``.
        stop: called before every step of a trial; may raise, and nothing has changed then.
    """
    if not 0 < next_check(state) <= state.step:
        return
    with state.watch("branching"):
        count, config = state.sampler.supernets, state.experiment.config
        streams = state.streams.child(f"branching{len(state.checks)}")
        members = _members_of_each(state, streams)
        lr = cosine(state.step, state.steps, config.training.lr, config.training.lr_end)
        steps = tried_steps(state.steps)
        result, macs = measure_gain(state.experiment, state.mixture, members, streams, steps, lr, stop)
        state.macs += macs
        if result.pays:
            state.sampler.double()
            state.mixture.branch(count, 2 * count)
        count = state.sampler.supernets
        plural = "" if count == 1 else "s"
        state.checks.append(
            {
                "step": state.step,
                **result.to_json(),
                "macs": macs,
                "supernets": count,
                "said": f"after {state.step:,} steps: {result}; {count} SuperNet{plural} from here on",
            }
        )


def _members_of_each(state: SearchState, streams: Streams) -> list[list[Pooling]]:
    """Return the configurations of each SuperNet in use, in the order of the space; a sample where it is too large."""
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
    stop: Callable[[], None] = lambda: None,
) -> tuple[BranchingResult, int]:
    """Measure what doubling the SuperNets would gain, in TRIALS trials that they take in turn.

    Weights, momenta and the streams of the search stay as they are.

    Args:
        experiment: images, augmentation, precision.
        mixture: the SuperNets.
        members: configurations of each SuperNet in use, in the order of the space, which is that of the first pooling.
            SuperNets of fewer than two are left out.
        streams: of this measurement only.
        steps: of each half in a trial.
        lr: learning rate at the start, which falls to the end that the settings name.
        stop: called before every step; may raise.

    Returns:
        The result, and the multiply-adds of all trials.
    """
    divisible = [(m, poolings) for m, poolings in enumerate(members) if len(poolings) > 1]
    gains, macs = [], 0
    for i in range(TRIALS):
        trial = _Trial(experiment, mixture, *divisible[i % len(divisible)], streams.child(f"trial{i}"), stop)
        gains.append(trial.gain(steps, lr, experiment.config.training.lr_end))
        macs += trial.macs
    if not np.isfinite(gains).all():
        return BranchingResult(0.0, 0.0, steps, diverged=True), macs
    error = float(np.std(gains, ddof=1) / np.sqrt(TRIALS))
    noise = float(stats.t.ppf(1 - SIGNIFICANCE, TRIALS - 1)) * error
    return BranchingResult(float(np.mean(gains)), noise, steps), macs


class _Trial:
    """One trial of one SuperNet; its weights and momenta are put back at the end."""

    def __init__(
        self,
        experiment: Experiment,
        mixture: Mixture,
        m: int,
        poolings: Sequence[Pooling],
        streams: Streams,
        stop: Callable[[], None],
    ):
        self.experiment, self.mixture, self.m, self.stop = experiment, mixture, m, stop
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
        """Return the loss of one SuperNet minus the loss of two, mean over both halves of the configurations."""
        plan = [self._draw(i % 2, cosine(i, 2 * steps, lr, lr_end)) for i in range(2 * steps)]
        loss_of_one = self._losses(plan, (0, 1))
        loss_of_two = [self._losses(plan[half::2], (half,))[0] for half in (0, 1)]
        return float(np.mean(loss_of_one) - np.mean(loss_of_two))

    def _draw(self, half: int, lr: float) -> Step:
        return self.halves[half][self.rounds[half].next()], self.training.draw(), lr

    def _losses(self, plan: Sequence[Step], halves: Sequence[int]) -> list[float]:
        """Take these steps, return the losses of these halves after them, and put the SuperNet back."""
        network, optimizer = self.mixture.networks[self.m], self.mixture.optimizers[self.m]
        tensors = [*network.parameters(), *self.mixture.momenta()[self.m]]
        before = [tensor.detach().clone() for tensor in tensors]
        try:
            for pooling, draw, lr in plan:
                self.stop()
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
    """Return the mean loss of configurations on one batch, in nats."""
    (images_BCHW, labels_B), total = batch, 0.0
    with experiment.precision.active(images_BCHW.device):
        for members, logits_BK in walk(network, poolings, experiment.precision.images(images_BCHW)):
            total += len(members) * float(F.cross_entropy(logits_BK.float(), labels_B))
    return total / len(poolings)
