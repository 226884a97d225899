"""Steps 3 and 4 of the method: train and score M SuperNets, in this process or in worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from poolwise.datasets.batches import Draw, Shuffled
from poolwise.experiment import Experiment
from poolwise.models.supernet import SwitchableNet
from poolwise.parallelism import for_search
from poolwise.process import threads_here
from poolwise.progress import Listener
from poolwise.rng import Streams
from poolwise.spaces import Pooling
from poolwise.training import Precision, compiled, correct_each, count_correct, forward_all, right_of, sgd, train_group
from poolwise.training.profiler import IDLE, Stopwatch
from poolwise.training.workers import WorkerPool


@dataclass(frozen=True)
class Job:
    """One optimizer step of one SuperNet.

    Attributes:
        poolings: The G configurations that train in the step, with one configuration unless ``group`` is set.
        supernet: Index of the SuperNet.
        lr: Learning rate.
        training: Training images.
        scoring: Scoring images. None scores on the training images, by the logits of the training step.
    """

    poolings: tuple[Pooling, ...]
    supernet: int
    lr: float
    training: Draw
    scoring: Draw | None


class StepResult(NamedTuple):
    """Result of one step: a mean loss and G accuracies.

    Attributes:
        loss: Loss on the training batch before the step in nats, mean over the configurations.
        accuracies: Accuracy (0 to 1) of each configuration on the scoring batch after the step, or on the training batch
            before it.
    """

    loss: float
    accuracies: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """Mean accuracy."""
        return sum(self.accuracies) / len(self.accuracies)


TrainAndScore = Callable[[Sequence[Job], Stopwatch], list[StepResult]]


class Mixture:
    """M SuperNets with their optimizers and batches.

    Args:
        experiment: Network, images, device, precision and config.
        streams: Random streams that determine initial weights and batches.
        networks: SuperNets to train in place. By default new ones are built.
        momenta: Momentum buffers of ``networks``: one list per SuperNet, in the order of its parameters.
    """

    def __init__(
        self,
        experiment: Experiment,
        streams: Streams,
        networks: list[SwitchableNet] | None = None,
        momenta: list[list[Tensor]] | None = None,
    ):
        config, self.precision = experiment.config, experiment.precision
        self.networks = networks or [
            _placed(experiment, f"init{m}", streams) for m in range(config.search.max_supernets)
        ]
        for network in self.networks:
            compiled(network, network.chain.every_layer(), config.hardware.compile)
        recipe = config.training
        self.optimizers = [sgd(n, recipe.lr, recipe.momentum, recipe.weight_decay) for n in self.networks]
        for m, (network, optimizer) in enumerate(zip(self.networks, self.optimizers, strict=True)):
            for i, parameter in enumerate(network.parameters()):
                # zeros give the same first step as no buffer, and can be shared and saved at any time
                buffer = momenta[m][i] if momenta else torch.zeros_like(parameter)
                optimizer.state[parameter]["momentum_buffer"] = buffer
        training, scoring = (
            experiment.batches(experiment.training_images, config.training.batch_size, half)
            for half in experiment.halves
        )
        self.training = Shuffled(training, streams["order"], (experiment.augmentation, streams["augment"]))
        self.scoring = Shuffled(scoring, streams["score_order"])

    def momenta(self) -> list[list[Tensor]]:
        """Return the momentum buffers: one list per SuperNet, in the order of its parameters."""
        return [
            [optimizer.state[parameter]["momentum_buffer"] for parameter in network.parameters()]
            for network, optimizer in zip(self.networks, self.optimizers, strict=True)
        ]

    @torch.no_grad()
    def copy_first(self, before: int, after: int) -> None:
        """Copy weights and momenta of SuperNet ``m % before`` to SuperNet m, for m from ``before`` to ``after - 1``."""
        tensors = [[*n.parameters(), *m] for n, m in zip(self.networks, self.momenta(), strict=True)]
        for m in range(before, after):
            for tensor, source in zip(tensors[m], tensors[m % before], strict=True):
                tensor.copy_(source)

    def train_and_score(self, jobs: Sequence[Job], watch: Stopwatch = IDLE) -> list[StepResult]:
        """Run one optimizer step per job, in order, each followed by its scoring batch, if it has one (steps 3 and 4).

        All configurations of a job see the same batches, and their common prefixes run once. The device is synchronized only
        once, at the end.
        """
        losses, right = [], []
        for job in jobs:
            network, optimizer = self.networks[job.supernet], self.optimizers[job.supernet]
            with watch("data"):
                images_BCHW, labels_B = self.training.load(job.training)
            forward = forward_all(network, job.poolings)
            loss, logits = train_group(forward, optimizer, images_BCHW, labels_B, job.lr, self.precision, watch)
            losses.append(loss)
            if job.scoring is None:
                with watch("scoring"):
                    right.append(right_of(logits, labels_B))
                continue
            with watch("data"):
                images_BCHW, labels_B = self.scoring.load(job.scoring)
            with watch("scoring"):
                right.append(correct_each(network, job.poolings, images_BCHW, labels_B, self.precision))
        with watch("scoring"):
            loss_J, counts = torch.stack(losses).tolist(), iter(torch.cat(right).tolist())
        return [
            StepResult(loss, tuple(next(counts) / self._scored_images(job) for _ in job.poolings))
            for loss, job in zip(loss_J, jobs, strict=True)
        ]

    def _scored_images(self, job: Job) -> int:
        return (self.training if job.scoring is None else self.scoring).batches.batch_size


def _placed(experiment: Experiment, name: str, streams: Streams) -> SwitchableNet:
    network = experiment.supernet(name, streams)
    experiment.precision.place(network, experiment.device)
    return network


def count_all(
    networks: Sequence[SwitchableNet],
    poolings: Sequence[Pooling],
    supernet_P: Sequence[int],
    images_BCHW: Tensor,
    labels_B: Tensor,
    precision: Precision,
) -> np.ndarray:
    """Return right_P, the correctly classified images of a batch at each configuration on SuperNet ``supernet_P``."""
    right_P = np.zeros(len(poolings), np.int64)
    for m, network in enumerate(networks):
        members = [a for a in range(len(poolings)) if supernet_P[a] == m]
        if members:
            right_P[members] = count_correct(network, [poolings[a] for a in members], images_BCHW, labels_B, precision)
    return right_P


@contextmanager
def backend(experiment: Experiment, mixture: Mixture) -> Iterator[TrainAndScore]:
    """Yield a function that runs the jobs of a block, in this process or in workers that share the weights."""
    parallel = for_search(experiment)
    if parallel.workers > 1:
        with crew(experiment, mixture, parallel.workers, parallel.threads) as workers:
            yield partial(train_and_score_in_workers, workers)
    else:
        with threads_here(parallel.threads):
            yield mixture.train_and_score


def crew(experiment: Experiment, mixture: Mixture, workers: int, threads: int) -> WorkerPool:
    """Move weights and momenta to shared memory and return worker processes that train them in place."""
    momenta = mixture.momenta()
    for network, buffers in zip(mixture.networks, momenta, strict=True):
        network.share_memory()
        for buffer in buffers:
            buffer.share_memory_()
    return WorkerPool(experiment, workers, threads, (mixture.networks, momenta))


_worker_mixture: list[Mixture] = []  # in a worker process: created at its first job


def _run_chain(
    experiment: Experiment, _listener: Listener, shared: Any, jobs: Sequence[Job], profile: bool
) -> tuple[list[StepResult], dict[str, float]]:
    """Run the jobs of one SuperNet in order, in a worker. Return results and, if profiling, seconds of each part."""
    if not _worker_mixture:
        _worker_mixture.append(Mixture(experiment, Streams(0), *shared))
    watch = Stopwatch(profile)
    return _worker_mixture[0].train_and_score(jobs, watch), watch.seconds


def train_and_score_in_workers(crew: WorkerPool, jobs: Sequence[Job], watch: Stopwatch = IDLE) -> list[StepResult]:
    """Run ``Mixture.train_and_score`` for several SuperNets in parallel. Jobs of one SuperNet stay in order.

    The longest chain is submitted first, so that all workers finish at about the same time.
    """
    chains: dict[int, list[int]] = {}
    for i, job in enumerate(jobs):
        chains.setdefault(job.supernet, []).append(i)
    submitted = [
        (chain, crew.submit(_run_chain, [jobs[i] for i in chain], watch.running))
        for chain in sorted(chains.values(), key=len, reverse=True)
    ]
    results: dict[int, StepResult] = {}
    for chain, future in submitted:
        values, seconds = future.result()
        watch.add(seconds)
        results.update(zip(chain, values, strict=True))
    return [results[i] for i in range(len(jobs))]
