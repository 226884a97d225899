"""Compare poolwise with the published implementation of the same search, end to end: search, then all 36 ranked.

The published way is restated here in plain PyTorch from the paper's description: images through PIL transforms in a
DataLoader with workers, float32 in contiguous order, assignment by plain Sinkhorn iteration, scoring with an autograd graph,
configurations ranked one after the other. Network, images, batch, M and steps are the same. In its favor, the images that it
ranks with are decoded only once; a loader in that loop would decode them for each configuration. The two run in turns, never at
the same time. Times include the start of processes and everything else, except loading CIFAR-10 from disk.

    python benchmarks/published_way.py
"""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from common import record, spread
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

import poolwise
from poolwise.config import Config
from poolwise.datasets import loading
from poolwise.experiment import Experiment, resolve
from poolwise.models.chain import batch_norm
from poolwise.models.supernet import SwitchableNet
from poolwise.rng import Streams
from poolwise.training.workers import keep_memory


class Pictures(Dataset):
    """Images as PIL images through a transform."""

    def __init__(self, images_NHWC: np.ndarray, labels_N: np.ndarray, transform: transforms.Compose):
        self.images_NHWC, self.labels_N, self.transform = images_NHWC, labels_N, transform

    def __len__(self) -> int:
        return len(self.labels_N)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images_NHWC[i])), int(self.labels_N[i])


def endless(loader: DataLoader):
    """Yield batches without end."""
    while True:
        yield from loader


def sinkhorn(scores_PM: torch.Tensor, temperature: float) -> torch.Tensor:
    """Normalize rows and columns in turn until the columns are even, at most 1,000 times."""
    chances_PM = torch.softmax(temperature * scores_PM, dim=1)
    for _ in range(1000):
        columns_M = chances_PM.mean(dim=0) * scores_PM.shape[1]
        if (columns_M - 1).abs().max() < 1e-3:
            break
        chances_PM = chances_PM / columns_M
        chances_PM = chances_PM / chances_PM.sum(dim=1, keepdim=True)
    return chances_PM


def published(experiment: Experiment) -> np.ndarray:
    """Search and rank; return accuracy_P of every configuration."""
    s, source = experiment.config, experiment.training_images
    normal = transforms.Normalize((experiment.normalize.mean / 255).tolist(), (experiment.normalize.std / 255).tolist())
    augmentations = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    training = transforms.Compose([*augmentations, transforms.ToTensor(), normal])
    plain = transforms.Compose([transforms.ToTensor(), normal])
    first, second = (source.subset(half) for half in experiment.halves)
    loaders = [
        DataLoader(Pictures(part.images, part.labels, t), size, shuffle=shuffle, num_workers=2, drop_last=shuffle)
        for part, t, size, shuffle in (
            (first, training, s.training.batch_size, True),
            (second, plain, s.training.batch_size, True),
            (second, plain, s.ranking.eval_batch_size, False),
        )
    ]
    train, score = endless(loaders[0]), endless(loaders[1])
    networks = [
        SwitchableNet(experiment.build(batch_norm, f"published{m}", Streams(0))) for m in range(s.search.supernets)
    ]
    optimizers = [torch.optim.SGD(n.parameters(), lr=s.training.lr, momentum=s.training.momentum) for n in networks]
    poolings = list(experiment.space)
    scores_PM = torch.ones(len(poolings), s.search.supernets)
    low, high = s.training.lr_end, s.training.lr
    for step in range(s.search.steps):
        a = int(torch.randint(len(poolings), ()))
        share = step / max(s.search.steps - 1, 1)
        temperature = s.search.temperature_start + (s.search.temperature - s.search.temperature_start) * share
        m = int(torch.multinomial(sinkhorn(scores_PM, temperature)[a], 1))
        images_BCHW, labels_B = next(train)
        for group in optimizers[m].param_groups:
            group["lr"] = low + (high - low) * (1 + math.cos(math.pi * step / s.search.steps)) / 2
        optimizers[m].zero_grad()
        loss = F.cross_entropy(networks[m](images_BCHW, poolings[a]), labels_B)
        loss.backward()
        optimizers[m].step()
        images_BCHW, labels_B = next(score)
        logits_BK = networks[m](images_BCHW, poolings[a])  # the graph is built and thrown away
        accuracy = (logits_BK.argmax(dim=1) == labels_B).float().mean().item()
        scores_PM[a, m] = 0.9 * scores_PM[a, m] + 0.1 * accuracy
    owner_P = sinkhorn(scores_PM, s.search.temperature).argmax(dim=1)
    accuracies, kept = [], list(loaders[2])
    for a, pooling in enumerate(poolings):
        right = 0
        for images_BCHW, labels_B in kept:
            right += int((networks[int(owner_P[a])](images_BCHW, pooling).argmax(dim=1) == labels_B).sum())
        accuracies.append(right / len(second))
    return np.array(accuracies)


@click.command()
@click.option("--repeats", default=3, show_default=True)
@click.option("--steps", default=120, show_default=True)
@click.option("--images", default=4_000, show_default=True)
@click.option(
    "--precision",
    default=None,
    help="Precision of poolwise (default: the fastest for the device); use float32+channels_last for CPUs without bfloat16.",
)
def main(repeats: int, steps: int, images: int, precision: str | None) -> None:
    keep_memory()
    config = Config.from_flat(steps=steps, images=images, supernets=4, precision=precision, block=8)
    source = loading.load("cifar10")
    experiment = resolve(config, source)
    poolwise.plan(config, ["search", "rank"], source=source)  # calibrates: once a machine, not once a run
    ratios, ours, theirs = [], [], []
    for repeat in range(repeats):
        started = time.perf_counter()
        published(experiment)
        theirs.append(time.perf_counter() - started)
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            poolwise.search(config.replace(seed=repeat), Path(folder) / "run", source=source)
            poolwise.rank(Path(folder) / "run", source=source)
            ours.append(time.perf_counter() - started)
        ratios.append(theirs[-1] / ours[-1])
        click.echo(f"published {theirs[-1]:.1f} s, ours {ours[-1]:.1f} s, {ratios[-1]:.2f} times")
    setting = {"width": 16, "batch": config.training.batch_size, "supernets": 4, "steps": steps, "images": images}
    setting |= {"precision": str(experiment.precision), "repeats": repeats}
    rows = [
        {**setting, "what": what, **spread(values)}
        for what, values in (("published / ours, time", ratios), ("published, s", theirs), ("ours, s", ours))
    ]
    record(f"published-way-{experiment.precision}".replace("+", "-"), rows)


if __name__ == "__main__":
    main()
