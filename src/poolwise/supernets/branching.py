"""Whether configurations that share a SuperNet would be better off apart: tried out, for a moment, at equal compute.

From where a SuperNet stands, one copy is trained on all its configurations in turn, and another one on half of them, with the
very same steps less those of the other half. What else a half of the SuperNets would cost and gain is in that: fewer steps,
and none that pull the weights elsewhere. Learning rates fall to their end on the way, so that what is compared is what would be
ranked. The copies are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from poolwise.experiment import Experiment
from poolwise.images.batches import Draw, Shuffled
from poolwise.networks.walk import walk
from poolwise.rng import Streams
from poolwise.space import Pooling
from poolwise.supernets.budget import SCORED, TRIALS
from poolwise.supernets.mixture import SuperNets
from poolwise.supernets.samplers.draws import Rounds
from poolwise.training import cosine, train_step

CHANCE = 0.05  # that noise is taken for a gain
Step = tuple[Pooling, Draw, float]  # with the learning rate


@dataclass(frozen=True)
class Parting:
    """What configurations gain by having a SuperNet for each half of them.

    Attributes:
        gain: by how much the loss on scoring images, in nats, is lower apart; mean over trials.
        noise: what ``gain`` stays below with 95 % where it makes no difference.
        steps: of each half in a trial.
        diverged: a loss was not finite, so nothing is known.
    """

    gain: float
    noise: float
    steps: int
    diverged: bool = False

    @property
    def pays(self) -> bool:
        """Apart is better, beyond noise."""
        return self.gain > self.noise and not self.diverged

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "pays": self.pays}

    def __str__(self) -> str:
        if self.diverged:
            return "the trial of parting diverged"
        told = f"apart, early and late poolings have a loss {abs(self.gain):.3f} nats {'lower' if self.gain > 0 else 'higher'}"
        return f"{told} than together at equal compute (noise {self.noise:.3f})"


@torch.no_grad()
def _loss(
    problem: Experiment, nets: SuperNets, m: int, poolings: Sequence[Pooling], batch: tuple[Tensor, Tensor]
) -> float:
    """Mean loss of configurations on one batch, in nats."""
    (images_BCHW, labels_B), total = batch, 0.0
    with problem.precision.active(images_BCHW.device):
        for members, logits_BK in walk(nets.networks[m], poolings, problem.precision.images(images_BCHW)):
            total += len(members) * float(F.cross_entropy(logits_BK.float(), labels_B))
    return total / len(poolings)


class _Trial:
    """One trial of one SuperNet, whose weights and momenta are put back at the end."""

    def __init__(
        self,
        problem: Experiment,
        nets: SuperNets,
        m: int,
        members: Sequence[Pooling],
        streams: Streams,
        stop: Callable[[], None],
    ):
        self.problem, self.nets, self.m, self.stop = problem, nets, m, stop
        training, scoring = (
            problem.batches(problem.training_images, problem.settings.batch_size, i) for i in problem.halves
        )
        self.training = Shuffled(training, streams["order"], (problem.augmentation, streams["augment"]))
        self.held = Shuffled(scoring, streams["score_order"]).next()
        self.halves = (members[: len(members) // 2], members[len(members) // 2 :])
        self.rounds = [Rounds(len(half), streams["draw"]) for half in self.halves]
        self.scored = [
            [half[int(i)] for i in streams["scored"].permutation(len(half))[: SCORED // 2]] for half in self.halves
        ]
        self.macs = 0

    def gain(self, steps: int, lr: float, lr_end: float) -> float:
        """Loss together minus loss apart, mean over both halves."""
        taken = [self._drawn(i % 2, cosine(i, 2 * steps, lr, lr_end)) for i in range(2 * steps)]
        together = self._losses(taken, (0, 1))
        apart = [self._losses(taken[half::2], (half,))[0] for half in (0, 1)]
        return float(np.mean(together) - np.mean(apart))

    def _drawn(self, half: int, lr: float) -> Step:
        return self.halves[half][self.rounds[half].next()], self.training.draw(), lr

    def _losses(self, taken: Sequence[Step], halves: Sequence[int]) -> list[float]:
        """Losses of these halves after these steps; the SuperNet is as before."""
        network, optimizer, momenta = (
            self.nets.networks[self.m],
            self.nets.optimizers[self.m],
            self.nets.momenta()[self.m],
        )
        tensors = [*network.parameters(), *momenta]
        before = [tensor.detach().clone() for tensor in tensors]
        try:
            for pooling, draw, lr in taken:
                self.stop()
                images_BCHW, labels_B = self.training.load(draw)
                forward = partial(network.__call__, pooling=pooling)
                train_step(forward, optimizer, images_BCHW, labels_B, lr, self.problem.precision)
                self.macs += 3 * len(labels_B) * self.problem.cost(pooling).macs
            found = [_loss(self.problem, self.nets, self.m, self.scored[half], self.held) for half in halves]
        finally:
            with torch.no_grad():
                for tensor, held in zip(tensors, before, strict=True):
                    tensor.copy_(held)
        self.macs += sum(len(self.held[1]) * self.problem.cost.prefix_macs(self.scored[half]) for half in halves)
        return found


def tried(
    problem: Experiment,
    nets: SuperNets,
    sharing: Sequence[Sequence[Pooling]],
    streams: Streams,
    steps: int,
    lr: float,
    stop: Callable[[], None] = lambda: None,
) -> tuple[Parting, int]:
    """What parting would gain, mean over TRIALS trials that the SuperNets take turns in; and the multiply-adds that it took.

    Weights, momenta and the streams of the search are left as they are.

    Args:
        problem: images, augmentation, precision.
        nets: the SuperNets.
        sharing: the configurations of each in use, in the order of the space, which is that of the first pooling; those of
            fewer than two are left out.
        streams: of this measurement alone.
        steps: of each half in a trial.
        lr: learning rate at the start, which falls to the settings' end.
        stop: called before every step; may raise.
    """
    shared = [(m, own) for m, own in enumerate(sharing) if len(own) > 1]
    gains, macs = [], 0
    for i in range(TRIALS):
        trial = _Trial(problem, nets, *shared[i % len(shared)], streams.child(f"trial{i}"), stop)
        gains.append(trial.gain(steps, lr, problem.settings.lr_end))
        macs += trial.macs
    if not np.isfinite(gains).all():
        return Parting(0.0, 0.0, steps, diverged=True), macs
    error = float(np.std(gains, ddof=1) / np.sqrt(TRIALS))
    return Parting(float(np.mean(gains)), float(stats.t.ppf(1 - CHANCE, TRIALS - 1)) * error, steps), macs
