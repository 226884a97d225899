"""Write images for the confirmation setting: training images of CIFAR-10 that the table of the package does not use.

Writes a folder of PNG files: the 10,000 images that follow the table's 10,000 in the fixed shuffled order, and the full test set.
What was chosen on the table is then tested against a truth from these images:

    python benchmarks/ranking/other_images.py runs/other-images
    poolwise exhaustive --preset paper --width 8 --data folder:runs/other-images --image-size 32 --retrain-epochs 12 \
        --retrain-seeds 1 --threads 1 --workers 2 --precision bfloat16+channels_last \
        --out runs/other-truth --table runs/resnet20w8-other-10k
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from PIL import Image

from poolwise.datasets.loading import load
from poolwise.datasets.split import stratified_subset
from poolwise.rng import Streams


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--skip", default=10_000, show_default=True, help="Number of images in the table's subset.")
@click.option("--images", "count", default=10_000, show_default=True, help="Number of other images to write.")
def main(folder: Path, skip: int, count: int) -> None:
    source = load("cifar10")
    seen, more = (stratified_subset(source.train.labels, n, Streams(0)["images"]) for n in (skip, skip + count))
    assert set(seen) < set(more)
    for part, images, chosen in (
        ("train", source.train, np.setdiff1d(more, seen)),
        ("test", source.test, np.arange(len(source.test))),
    ):
        for name in source.classes:
            (folder / part / name).mkdir(parents=True, exist_ok=True)
        for index in chosen.tolist():
            Image.fromarray(images.images[index]).save(
                folder / part / source.classes[images.labels[index]] / f"{index:05}.png"
            )
        click.echo(f"{folder / part}: {len(chosen)} images")


if __name__ == "__main__":
    main()
