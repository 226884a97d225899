"""The M SuperNets with their optimizers and batches: steps 3 and 4 of the method, in this process or in workers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poolwise.experiment import Experiment
from poolwise.images.batches import Draw, Shuffled
from poolwise.networks.switch import SwitchableNet
from poolwise.progress import Listener
from poolwise.rng import Streams
from poolwise.space import Pooling
from poolwise.stopwatch import IDLE, Stopwatch
from poolwise.training import Precision, compiled, correct, count_correct, sgd, train_step
from poolwise.training.workers import WorkerPool

Told = tuple[float, float]  # loss (nats) and scoring accuracy (0 to 1) of a step
TRIED_BLOCKS = 7  # with and without streams each, before the faster way is kept


@dataclass(frozen=True)
class Job:
    """One step: which configuration on which SuperNet, at which learning rate, with which images."""

    pooling: Pooling
    supernet: int
    lr: float
    training: Draw
    scoring: Draw


class Lanes:
    """CUDA streams, one a SuperNet, for the steps of a block, where they make it faster; elsewhere nothing.

    Steps of one SuperNet stay in order and no two SuperNets share a tensor that is written, so results do not depend on
    it. Whether it pays depends on the GPU and the size of the network: the first blocks are run in turn with and
    without, and the faster way is kept.
    """

    def __init__(self, device: torch.device, supernets: int, compile: str):
        # replayed CUDA graphs share their memory, so they must not run at the same time
        useful = device.type == "cuda" and supernets > 1 and compile != "cuda-graphs"
        self.streams = [torch.cuda.Stream(device) for _ in range(supernets if useful else 0)]
        self._seconds: list[list[float]] = [[], []]  # a step, without and with

    @property
    def active(self) -> bool:
        """Whether the next block is to be run on the streams."""
        if not self.streams:
            return False
        plain, streamed = self._seconds
        if len(streamed) < TRIED_BLOCKS:  # in turn, first without
            return len(streamed) < len(plain)
        return statistics.median(streamed) < statistics.median(plain)

    def run(self, supernets: Sequence[int], launch: Callable[[int], Any], wait: Callable[[list[Any]], Any]) -> Any:
        """``wait`` of the list of ``launch(i)``, the i-th on its SuperNet's stream where ``active``."""
        if not self.streams or len(supernets) < 2:
            return wait([launch(i) for i in range(len(supernets))])
        begin, active = time.perf_counter(), self.active
        if active:
            here = torch.cuda.current_stream(self.streams[0].device)
            for stream in self.streams:
                stream.wait_stream(here)
        results = []
        for i, supernet in enumerate(supernets):
            with torch.cuda.stream(self.streams[supernet]) if active else nullcontext():
                results.append(launch(i))
        if active:
            for stream in self.streams:
                here.wait_stream(stream)
        value = wait(results)
        if len(self._seconds[active]) < TRIED_BLOCKS:
            self._seconds[active].append((time.perf_counter() - begin) / len(supernets))
        return value


class SuperNets:
    """M weight-sharing networks and what trains and scores them.

    Args:
        problem: family, images, device and precision.
        streams: of the search; decide initial weights and batches.
        networks: SuperNets whose tensors are to be worked on; by default they are made anew.
        momenta: their momentum buffers, one list a SuperNet in the order of its parameters.
    """

    def __init__(
        self,
        problem: Experiment,
        streams: Streams,
        networks: list[SwitchableNet] | None = None,
        momenta: list[list[Tensor]] | None = None,
    ):
        settings, self.precision = problem.settings, problem.precision
        self.networks = networks or [_placed(problem, f"init{m}", streams) for m in range(settings.nets)]
        for network in self.networks:
            compiled(network, network.chain.every_layer(), settings.compile)
        self._lanes = partial(Lanes, problem.device, settings.nets, settings.compile)
        self.lanes = self._lanes()
        self.optimizers = [sgd(n, settings.lr, settings.momentum, settings.weight_decay) for n in self.networks]
        for m, (network, optimizer) in enumerate(zip(self.networks, self.optimizers, strict=True)):
            for i, parameter in enumerate(network.parameters()):
                # zeros from the start are what the first step would leave, and can be shared and saved at any time
                buffer = momenta[m][i] if momenta else torch.zeros_like(parameter)
                optimizer.state[parameter]["momentum_buffer"] = buffer
        training, scoring = (problem.batches(problem.training_images, settings.batch_size, i) for i in problem.halves)
        self.training = Shuffled(training, streams["order"], (problem.augmentation, streams["augment"]))
        self.scoring = Shuffled(scoring, streams["score_order"])

    def momenta(self) -> list[list[Tensor]]:
        """momentum buffers, one list a SuperNet in the order of its parameters."""
        return [
            [optimizer.state[parameter]["momentum_buffer"] for parameter in network.parameters()]
            for network, optimizer in zip(self.networks, self.optimizers, strict=True)
        ]

    @torch.no_grad()
    def branch(self, before: int, after: int) -> None:
        """SuperNets from ``before`` to below ``after`` go on from the weights and momenta of the first ``before`` in turn."""
        self.lanes = self._lanes()  # whether streams pay is to be tried anew
        held = [[*n.parameters(), *m] for n, m in zip(self.networks, self.momenta(), strict=True)]
        for m in range(before, after):
            for tensor, source in zip(held[m], held[m % before], strict=True):
                tensor.copy_(source)

    def run(self, job: Job, watch: Stopwatch = IDLE) -> tuple[Tensor, Tensor]:
        """One optimizer step, then a scoring batch: loss (nats) and rightly classified images, both on the device."""
        network = self.networks[job.supernet]

        def forward(images_BCHW: Tensor) -> Tensor:
            return network(images_BCHW, job.pooling)

        with watch("data"):
            images_BCHW, labels_B = self.training.load(job.training)
        optimizer = self.optimizers[job.supernet]
        loss = train_step(forward, optimizer, images_BCHW, labels_B, job.lr, self.precision, watch)
        with watch("data"):
            images_BCHW, labels_B = self.scoring.load(job.scoring)
        with watch("scoring"):
            return loss, correct(forward, images_BCHW, labels_B, self.precision)

    def run_all(self, jobs: Sequence[Job], watch: Stopwatch = IDLE) -> list[Told]:
        """Run jobs in order. The device is waited for once, at their end."""
        losses, hits = self.lanes.run(
            [job.supernet for job in jobs], lambda i: self.run(jobs[i], watch), lambda results: _told(results, watch)
        )
        size = self.scoring.batches.batch_size
        return [(loss, count / size) for loss, count in zip(losses, hits, strict=True)]


def _told(results: list[tuple[Tensor, Tensor]], watch: Stopwatch) -> list[list[float]]:
    """Losses and rightly classified images as plain numbers; a device that was not waited for is waited for here."""
    with watch("scoring"):
        return [torch.stack(values).tolist() for values in zip(*results, strict=True)]


def _placed(problem: Experiment, name: str, streams: Streams) -> SwitchableNet:
    network = problem.supernet(name, streams)
    problem.precision.place(network, problem.device)
    return network


def count_all(
    networks: Sequence[SwitchableNet],
    poolings: Sequence[Pooling],
    supernet_P: Sequence[int],
    images_BCHW: Tensor,
    labels_B: Tensor,
    precision: Precision,
) -> np.ndarray:
    """right_P: rightly classified images of one batch under each configuration, on the SuperNet that it is scored by."""
    right_P = np.zeros(len(poolings), np.int64)
    for m, network in enumerate(networks):
        own = [a for a in range(len(poolings)) if supernet_P[a] == m]
        if own:
            right_P[own] = count_correct(network, [poolings[a] for a in own], images_BCHW, labels_B, precision)
    return right_P


def crew(problem: Experiment, nets: SuperNets, workers: int, threads: int) -> WorkerPool:
    """Worker processes that work on these very SuperNets, whose weights and momenta move to shared memory."""
    momenta = nets.momenta()
    for network, buffers in zip(nets.networks, momenta, strict=True):
        network.share_memory()
        for buffer in buffers:
            buffer.share_memory_()
    return WorkerPool(problem, workers, threads, (nets.networks, momenta))


_mine: list[SuperNets] = []  # of a worker process: made at its first job


def run_chain(
    problem: Experiment, _listener: Listener, hold: Any, jobs: Sequence[Job], profile: bool
) -> tuple[list[Told], dict[str, float]]:
    """In a worker: the jobs of one SuperNet in order. Their results, and the seconds of each part if asked for."""
    if not _mine:
        _mine.append(SuperNets(problem, Streams(0), *hold))
    watch = Stopwatch(profile)
    return _mine[0].run_all(jobs, watch), watch.seconds


def run_parallel(crew: WorkerPool, jobs: Sequence[Job], watch: Stopwatch = IDLE) -> list[Told]:
    """Like ``SuperNets.run_all`` with the SuperNets at work at once; the order of jobs on each is kept.

    The longest chain is handed out first, so that the crew ends at about the same time.
    """
    chains: dict[int, list[int]] = {}
    for i, job in enumerate(jobs):
        chains.setdefault(job.supernet, []).append(i)
    handed = [
        (own, crew.submit(run_chain, [jobs[i] for i in own], watch.running))
        for own in sorted(chains.values(), key=len, reverse=True)
    ]
    results: dict[int, Told] = {}
    for own, future in handed:
        values, seconds = future.result()
        watch.add(seconds)
        results.update(zip(own, values, strict=True))
    return [results[i] for i in range(len(jobs))]
