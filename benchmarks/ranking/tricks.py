"""Measure what one SuperNet gains from known tricks at equal compute: averaged weights, early stopping, sandwich, distillation.

Each is the search of a study's entry with one change:

- ``plain``: no change; also ranked at a quarter, a half and three quarters of its length (is there a peak before the end?), and
  with exponential averages of its weights (decay 0.99 and 0.998 per step).
- ``sandwich``: every step also trains the configurations with most and fewest MACs (Yu and Huang, ICCV 2019); mean of the losses.
- ``distilled``: configurations learn from the labels and from the output of the one with most MACs (mean of both losses), which
  itself learns from labels.

A step that trains more is done less often. Existing results in ``--out`` are reused; writes a CSV under ``benchmarks/results``.

    python benchmarks/ranking/tricks.py benchmarks/results/samplers-own-table/runs/fairnas_norm_affine-1560-0 --out runs/tricks
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import record

from poolwise import tables
from poolwise.config import Config
from poolwise.experiment import Experiment, resolve
from poolwise.models.supernet import SwitchableNet
from poolwise.rankings.smoothing import smooth
from poolwise.spaces import Pooling
from poolwise.statistics import kendall_tau_b, regret
from poolwise.storage import write_atomically
from poolwise.supernets.mixture import Job, StepResult
from poolwise.supernets.state import SearchState
from poolwise.supernets.trainer import train_block
from poolwise.training import correct, count_correct

TABLE = "resnet20w8-cifar10-10k"
DECAYS = (0.99, 0.998)


class Trick:
    """The loss of a step, and its MACs per image."""

    def __init__(self, experiment: Experiment):
        members = sorted(experiment.space, key=lambda pooling: experiment.cost(pooling).macs)
        self.smallest, self.largest = members[0], members[-1]
        self.mean_macs, self.min_macs, self.max_macs = (
            float(np.mean([experiment.cost(pooling).macs for pooling in members])),
            experiment.cost(self.smallest).macs,
            experiment.cost(self.largest).macs,
        )

    def macs(self) -> float:
        """Return the MACs per training image: three passes for training, and one for scoring."""
        return 4 * self.mean_macs

    def loss(self, network: SwitchableNet, pooling: Pooling, images: Tensor, labels_B: Tensor) -> Tensor:
        return F.cross_entropy(network(images, pooling).float(), labels_B)


class Sandwich(Trick):
    def macs(self) -> float:
        return 4 * self.mean_macs + 3 * (self.min_macs + self.max_macs)

    def loss(self, network: SwitchableNet, pooling: Pooling, images: Tensor, labels_B: Tensor) -> Tensor:
        members = (self.largest, pooling, self.smallest)
        return torch.stack([F.cross_entropy(network(images, member).float(), labels_B) for member in members]).mean()


class Distilled(Trick):
    def macs(self) -> float:
        return 4 * self.mean_macs + self.max_macs

    def loss(self, network: SwitchableNet, pooling: Pooling, images: Tensor, labels_B: Tensor) -> Tensor:
        logits_BK = network(images, pooling).float()
        label_loss = F.cross_entropy(logits_BK, labels_B)
        if pooling == self.largest:
            return label_loss
        with torch.no_grad():
            target_BK = network(images, self.largest).float().softmax(1)
        return (label_loss + F.cross_entropy(logits_BK, target_BK)) / 2


TRICKS: dict[str, type[Trick]] = {"plain": Trick, "sandwich": Sandwich, "distilled": Distilled}


def runner(state: SearchState, trick: Trick) -> Callable[[Sequence[Job], Any], list[StepResult]]:
    """Return the step function for ``train_block``: every job with the loss of the trick."""
    nets, precision, device = state.mixture, state.mixture.precision, state.experiment.device

    def run(jobs: Sequence[Job], _watch: Any) -> list[StepResult]:
        results: list[StepResult] = []
        for job in jobs:
            network, optimizer = nets.networks[job.supernet], nets.optimizers[job.supernet]
            for group in optimizer.param_groups:
                group["lr"] = job.lr
            images_BCHW, labels_B = nets.training.load(job.training)
            with precision.active(device):
                loss = trick.loss(network, job.poolings[0], precision.images(images_BCHW), labels_B)
            with precision.kernels(device):
                loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            assert job.scoring is not None
            images_BCHW, labels_B = nets.scoring.load(job.scoring)
            right = correct(lambda images: network(images, job.poolings[0]), images_BCHW, labels_B, precision)  # noqa: B023
            results.append(StepResult(float(loss.detach()), (float(right) / len(labels_B),)))
        return results

    return run


def scored(experiment: Experiment, state: SearchState, weights: list[Tensor] | None = None) -> np.ndarray:
    """Return score_P in percent on the full scoring half, with the network's weights or with the given ones."""
    network, poolings = state.mixture.networks[0], list(experiment.space)
    saved = [parameter.detach().clone() for parameter in network.parameters()]
    with torch.no_grad():
        for parameter, other in zip(network.parameters(), weights or saved, strict=True):
            parameter.copy_(other)
        batches = experiment.ranking_batches()
        right = np.sum(
            [count_correct(network, poolings, *batch, state.mixture.precision) for batch in batches.ordered()], axis=0
        )
        for parameter, other in zip(network.parameters(), saved, strict=True):
            parameter.copy_(other)
    return 100 * right / len(batches)


def search(config: Config, name: str) -> dict[str, list[float]]:
    """Return the scores after one search with a trick, by the weights that were ranked."""
    experiment = resolve(config)
    trick = TRICKS[name](experiment)
    assert config.search.steps
    assert experiment.config.search.max_supernets == 1
    steps = int(config.search.steps * Trick(experiment).macs() / trick.macs())
    experiment = resolve(config.replace(steps=steps), experiment.source)
    state = SearchState(experiment)
    run, scores = runner(state, trick), {}
    averages = {decay: [p.detach().clone() for p in state.mixture.networks[0].parameters()] for decay in DECAYS}
    while state.step < state.steps:
        train_block(state, run)
        for decay, weights in averages.items():
            torch._foreach_lerp_(weights, [p.detach() for p in state.mixture.networks[0].parameters()], 1 - decay)
        if name == "plain" and state.step in {steps // 4, steps // 2, 3 * steps // 4}:
            scores[f"at {state.step} of {steps} steps"] = scored(experiment, state).tolist()
    scores["last weights"] = scored(experiment, state).tolist()
    for decay, weights in averages.items():
        scores[f"averaged by {decay}"] = scored(experiment, state, weights).tolist()
    return scores


def judged(table: tables.Table, scores_P: list[float]) -> dict[str, float]:
    """Return agreement with the truth, regrets in points, and the mean of the scores."""
    truth_P = np.array(table.column(table.truth))
    return {
        "tau-b": round(float(kendall_tau_b(scores_P, truth_P)), 3),
        "smoothed tau-b": round(float(kendall_tau_b(smooth(table.space, scores_P).scores, truth_P)), 3),
        "regret@1": round(float(regret(scores_P, truth_P, 1)), 2),
        "regret@3": round(float(regret(scores_P, truth_P, 3)), 2),
        "mean accuracy": round(float(np.mean(scores_P)), 2),
    }


@click.command()
@click.argument("entry", type=click.Path(exists=True, path_type=Path))
@click.option("--out", default="runs/tricks", show_default=True, type=click.Path(path_type=Path))
@click.option("--seeds", default=3, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(entry: Path, out: Path, seeds: int, threads: int) -> None:
    torch.set_num_threads(threads)
    table = tables.load(TABLE)
    config = Config.from_flat(json.loads((entry / "run.json").read_text(encoding="utf-8"))["settings"])
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in range(seeds):
        for name in TRICKS:
            file = out / f"{name}-{config.search.steps}-{seed}.json"
            if not file.exists():
                write_atomically(file, json.dumps(search(config.replace(seed=seed), name)) + "\n")
            for what, scores_P in json.loads(file.read_text(encoding="utf-8")).items():
                rows.append({"trick": name, "ranked": what, "seed": seed, **judged(table, scores_P)})
                click.echo(rows[-1])
    record(f"tricks-{config.search.steps}-{TABLE}", rows)


if __name__ == "__main__":
    main()
