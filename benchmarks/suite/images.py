"""Write the image folders of the suite: 10,000 training images and the full test set of each data set.

Fashion-MNIST is read from Debian's package ``dataset-fashion-mnist``, CIFAR-10 from poolwise's cache. Every image is a PNG
in ``FOLDER/NAME/{train,test}/CLASS``:

    python benchmarks/suite/images.py runs/suite-images
"""

from __future__ import annotations

import gzip
from pathlib import Path

import click
import numpy as np
from PIL import Image

import poolwise
from poolwise.rng import Streams

IMAGES = 10_000
FASHION = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = ("top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")


def idx(name: str, header: int) -> np.ndarray:
    """Return the uint8 values of an IDX file after its header (bytes)."""
    path = FASHION / name
    if not path.exists():
        raise click.ClickException(f"{path} is missing: install it with apt-get install dataset-fashion-mnist")
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def fashion(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images_NHW and labels_N of one part, ``train`` or ``t10k``."""
    return idx(f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28), idx(f"{part}-labels-idx1-ubyte.gz", 8)


def balanced(labels_N: np.ndarray, count: int) -> np.ndarray:
    """Return sorted indices of ``count`` images, equally many of each class, drawn with a fixed seed."""
    generator, each = Streams(0)["suite"], count // len(np.unique(labels_N))
    chosen = [generator.permutation(np.flatnonzero(labels_N == label))[:each] for label in np.unique(labels_N)]
    return np.sort(np.concatenate(chosen))


def save(folder: Path, images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> None:
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        Image.fromarray(image).save(folder / classes[label] / f"{index:05}.png")
    click.echo(f"{folder}: {len(images)} images")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    images, labels = fashion("train")
    chosen = balanced(labels, IMAGES)
    save(folder / "fashion" / "train", images[chosen], labels[chosen], FASHION_CLASSES)
    save(folder / "fashion" / "test", *fashion("t10k"), FASHION_CLASSES)
    cifar = poolwise.source("cifar10")
    chosen = balanced(cifar.train.labels, IMAGES)
    parts = {"train": (cifar.train.images[chosen], cifar.train.labels[chosen])}
    parts["test"] = (cifar.test.images, cifar.test.labels)
    for part, (rgb, part_labels) in parts.items():
        gray = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in rgb])
        save(folder / "cifar10" / part, rgb, part_labels, cifar.classes)
        save(folder / "cifar10-gray" / part, gray, part_labels, cifar.classes)


if __name__ == "__main__":
    main()
