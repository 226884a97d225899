"""Measure what moving the downsamplings of a pretrained network does to its features, and what fine-tuning recovers.

A narrow ResNet18 for small images is trained with its default configuration on one half of CIFAR-10. ``poolwise.apply`` then
moves its strides, and it is fine-tuned on a few images of the other half; the same configuration is also trained from scratch.
Accuracy is measured on the full test set: after the move, with re-estimated BatchNorm averages, and after training. An
interrupted run continues where it stopped.

    python benchmarks/finetune.py --work runs/finetune
"""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from common import record
from safetensors.torch import load_file, save_file
from torch import nn

import poolwise
from poolwise.datasets import cifar10
from poolwise.datasets.augment import CropFlip, Normalize
from poolwise.datasets.batches import Batches, Shuffled
from poolwise.datasets.sources import ImageSet
from poolwise.datasets.split import stratified_halves, stratified_subset
from poolwise.rng import Streams
from poolwise.training import Precision, accuracy, cosine, sgd, train_step
from poolwise.training.workers import keep_memory

MODEL, WIDTH, DEFAULT = "resnet18", 8, "3-2-2-2"
PLACEMENTS = (
    *(
        DEFAULT,
        "3-3-1-2",
        "3-1-3-2",
        "5-2-1-1",
        "1-2-3-3",
    ),  # default, one stride later, one earlier, all later, all earlier
    *("3-2-4", "3-4-2", "5-2-2"),  # without the last, second or first stride: twice the final resolution
)
IMAGES = 1000
PRECISION = Precision.parse("bfloat16+channels_last")
RATES = {"fine-tuned": 0.02, "scratch": 0.1}  # fixed in advance, not tuned
BATCH, PRETRAIN_STEPS, STEPS = 64, 2000, 200


class Data:
    """CIFAR-10 with disjoint images for pretraining and for fine-tuning."""

    def __init__(self) -> None:
        source = cifar10.load()
        halves = stratified_halves(source.train.labels, 0.5, Streams(0)["split"])
        self.pretrain, self.rest = (source.train.subset(half) for half in halves)
        self.normalize = Normalize.of(self.pretrain.images)
        self.test = self.batches(source.test, 500)

    def batches(self, images: ImageSet, size: int) -> Batches:
        arrays = (torch.from_numpy(np.ascontiguousarray(array)) for array in (images.images, images.labels))
        return Batches(*arrays, None, size, self.normalize)

    def few(self, count: int, seed: int) -> ImageSet:
        """Return ``count`` images of the half that was not used for pretraining."""
        return self.rest.subset(stratified_subset(self.rest.labels, count, Streams(seed)["few"]))


def train(model: nn.Module, data: Data, images: ImageSet, steps: int, lr: float, streams: Streams) -> None:
    """Train as in stand-alone training: SGD with momentum, half a cosine, random crops and flips."""
    optimizer = sgd(model, lr, 0.9, 5e-4)
    batches = Shuffled(data.batches(images, BATCH), streams["order"], (CropFlip(pad=4, flip=True), streams["augment"]))
    model.train()
    for step in range(steps):
        train_step(model, optimizer, *batches.next(), cosine(step, steps, lr, lr / 100), PRECISION)


def test_accuracy(model: nn.Module, data: Data) -> float:
    return round(100 * accuracy(model.eval(), data.test.ordered(), PRECISION), 2)


@torch.no_grad()
def reestimate_averages(model: nn.Module, data: Data, images: ImageSet) -> nn.Module:
    """Return a copy whose BatchNorm averages are those of these images, with the same weights."""
    model = copy.deepcopy(model)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None
    model.train()
    with PRECISION.active(torch.device("cpu")):
        for images_BCHW, _ in data.batches(images, 250).ordered():
            model(PRECISION.images(images_BCHW))
    return model


def untrained(placement: str, seed: int) -> nn.Module:
    return PRECISION.place(poolwise.network(MODEL, placement, width=WIDTH, seed=seed), torch.device("cpu"))


def pretrained(data: Data, seed: int, work: Path) -> nn.Module:
    """Return the network trained with the default configuration, loaded from ``work`` if it exists there."""
    model, path = untrained(DEFAULT, seed), work / f"pretrained-{seed}.safetensors"
    if not path.exists():
        train(model, data, data.pretrain, PRETRAIN_STEPS, 0.1, Streams(seed).child("pretrain"))
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    model.load_state_dict(load_file(path))
    return model


def row(data: Data, placement: str, start: str, lr: float, seed: int, work: Path) -> dict[str, Any]:
    """Return one training: its accuracy before and after."""
    images, started = data.few(IMAGES, seed), time.perf_counter()
    accuracies: dict[str, Any] = {"moved": None, "averaged anew": None}
    if start == "fine-tuned":
        model = poolwise.apply(pretrained(data, seed, work), placement)
        accuracies = {
            "moved": test_accuracy(model, data),
            "averaged anew": test_accuracy(reestimate_averages(model, data, images), data),
        }
    else:
        model = untrained(placement, seed)
    train(model, data, images, STEPS, lr, Streams(seed).child("few"))
    setting = {"placement": placement, "begin": start, "images": IMAGES, "seed": seed, "lr": lr, "steps": STEPS}
    return {
        **setting,
        **accuracies,
        "trained": test_accuracy(model, data),
        "seconds": round(time.perf_counter() - started, 1),
    }


@click.command()
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder for finished trainings; they are not repeated.",
)
@click.option("--seeds", default=3, show_default=True, help="Seeds 1 to N.")
def main(work: Path, seeds: int) -> None:
    torch.set_num_threads(1)
    keep_memory()
    work.mkdir(parents=True, exist_ok=True)
    data, path = Data(), work / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(one["placement"], one["begin"], one["seed"]) for one in rows}
    for seed in range(1, seeds + 1):
        for placement in PLACEMENTS:
            for start, lr in RATES.items():
                if (placement, start, seed) not in done:
                    rows.append(row(data, placement, start, lr, seed, work))
                    with path.open("a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
                    click.echo(rows[-1])
    record("finetune", rows)


if __name__ == "__main__":
    main()
