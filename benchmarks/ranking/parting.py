"""Measure the gain of branching in the course of a search, as ``--branching measured`` does, and at its end.

One SuperNet is trained in fair rounds; at some shares of the search, trials of several lengths measure what one SuperNet for each
half of the configurations would gain. Then searches of the same length branch at half their length into ``--parts`` parts by the
first pooling. Loss and accuracy are means over all configurations on the scoring half, each on its SuperNet. Writes a CSV under
``benchmarks/results``.

    python benchmarks/ranking/parting.py --width 4 --steps 7800 --batch-size 64 --norm batch
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import record

from poolwise.config import Config
from poolwise.experiment import Experiment, resolve
from poolwise.models.prefixes import walk
from poolwise.supernets import branching
from poolwise.supernets.state import SearchState
from poolwise.supernets.trainer import train_block
from poolwise.training import cosine


@torch.no_grad()
def evaluate(experiment: Experiment, state: SearchState) -> dict[str, float]:
    """Return mean loss in nats and mean accuracy in percent."""
    poolings, batches = list(experiment.space), experiment.ranking_batches(1)
    owner = state.sampler.supernet_of(poolings)
    loss, right = 0.0, 0
    for images_BCHW, labels_B in batches.ordered():
        for m, network in enumerate(state.mixture.networks):
            assigned = [a for a, n in zip(poolings, owner, strict=True) if n == m]
            with experiment.precision.active(experiment.device):
                for members, logits_BK in walk(network, assigned, experiment.precision.images(images_BCHW)):
                    count = len(members)
                    loss += count * float(F.cross_entropy(logits_BK.float(), labels_B, reduction="sum"))
                    right += count * int((logits_BK.argmax(1) == labels_B).sum())
    images = len(batches) * len(poolings)
    return {"loss": round(loss / images, 4), "accuracy": round(100 * right / images, 2)}


def train_single(config: Config, shares: list[float], lengths: list[int]) -> list[dict[str, Any]]:
    """Train one SuperNet; return the trials during the search, and the final loss and accuracy."""
    experiment, rows = resolve(config), []
    state = SearchState(experiment)
    while state.step < state.steps:
        train_block(state)
        for share in shares:
            if state.step == round(share * state.steps):
                lr = cosine(state.step, state.steps, config.training.lr, config.training.lr_end)
                for length in lengths:
                    streams = state.streams.child(f"parting{share}-{length}")
                    gain, _ = branching.measure_gain(
                        experiment, state.mixture, [list(experiment.space)], streams, length, lr
                    )
                    rows.append({"at": share, "steps of a half": length, "gain": gain.gain, "noise": gain.noise})
                    click.echo(rows[-1])
    return [*rows, {"parts": 1, **evaluate(experiment, state)}]


def train_branched(config: Config) -> list[dict[str, Any]]:
    """Train several SuperNets that branch at half of the search; return the final loss and accuracy."""
    experiment = resolve(config)
    state = SearchState(experiment)
    while state.step < state.steps:
        train_block(state)
    return [{"parts": config.search.max_supernets, **evaluate(experiment, state)}]


def numbers(_context: click.Context, _parameter: click.Parameter, text: str) -> list[float]:
    return [float(word) for word in text.split(",") if word]


@click.command()
@click.option("--width", default=8, show_default=True)
@click.option("--steps", default=4680, show_default=True)
@click.option("--batch-size", default=128, show_default=True)
@click.option("--norm", default="affine", show_default=True)
@click.option("--seeds", default="0", show_default=True, callback=numbers)
@click.option("--shares", default="0.25,0.5,0.75", show_default=True, callback=numbers)
@click.option("--lengths", default="10,40", show_default=True, callback=numbers)
@click.option("--parts", default="2", show_default=True, callback=numbers)
def main(
    width: int,
    steps: int,
    batch_size: int,
    norm: str,
    seeds: list[float],
    shares: list[float],
    lengths: list[float],
    parts: list[float],
) -> None:
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for seed in map(int, seeds):
        single = Config.from_flat(
            width=width,
            images=10_000,
            steps=steps,
            batch_size=batch_size,
            norm=norm,
            draw="rounds",
            supernets=1,
            threads=1,
            precision="bfloat16+channels_last",
            seed=seed,
        )
        results = train_single(single, shares, [int(length) for length in lengths])
        for count in map(int, parts):
            branched = {**single.to_json(), "method": "partition-first", "supernets": count, "warm_up": 0.5}
            results += train_branched(Config.from_flat(branched))
        rows += [{"seed": seed, **row} for row in results]
    names = dict.fromkeys(name for row in rows for name in row)
    rounded = [{name: _rounded(row.get(name, "")) for name in names} for row in rows]
    for row in rounded:
        click.echo(row)
    record(f"parting-w{width}-{norm}-{steps}x{batch_size}", rounded)


def _rounded(value: Any) -> Any:
    return round(float(value), 4) if isinstance(value, (float, np.floating)) else value


if __name__ == "__main__":
    main()
