"""Measure memory and speed of images in memory and streamed from disk, on a generated tree of small JPEG files.

Each case runs in its own process: it loads the tree, reads all images once, and draws training batches as a search does,
with crops and flips. Peak memory is what the system reports; that of the same process without images is measured too. The
first streamed case fills the cache, the second reads it.

    python benchmarks/streaming.py --images 20000
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from common import record
from PIL import Image

CASES = ("no images", "in memory", "streamed, cache empty", "streamed, cache full")
BATCH, BATCHES = 128, 300
CLASSES = 10


def generate(root: Path, count: int, side: int) -> None:
    """Write smooth noise images in ``CLASSES`` classes; about 2 KB per file."""
    draws = np.random.default_rng(0)
    for i in range(count):
        folder = root / f"class{i % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        coarse = draws.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((side, side)).save(folder / f"{i:06}.jpg", quality=85)


def measure(case: str, root: Path, size: int) -> dict[str, float]:
    """Return seconds of loading, and images per second of batches, in this process."""
    from poolwise.config import Config
    from poolwise.datasets.batches import Shuffled
    from poolwise.experiment import resolve

    if case == "no images":
        return {"load_seconds": 0.0, "batches_images_per_second": 0.0}
    started = time.perf_counter()
    stream = "off" if case == "in memory" else "on"
    experiment = resolve(
        Config.from_flat(
            data=f"folder:{root}", image_size=size, stream=stream, device="cpu", precision="float32", width=4
        )
    )
    experiment.describe_data()  # fingerprint, mean and standard deviation: reads every image once
    loaded = time.perf_counter() - started
    batches = experiment.batches(experiment.training_images, BATCH, experiment.halves[0])
    training = Shuffled(batches, np.random.default_rng(0), (experiment.augmentation, np.random.default_rng(1)))
    started = time.perf_counter()
    for _ in range(BATCHES):
        training.next()
    speed = BATCH * BATCHES / (time.perf_counter() - started)
    return {"load_seconds": round(loaded, 1), "batches_images_per_second": round(speed)}


@click.command()
@click.option("--images", default=20_000, show_default=True)
@click.option("--image-size", default=64, show_default=True)
@click.option("--only", hidden=True)
@click.option("--root", type=click.Path(path_type=Path), hidden=True)
def main(images: int, image_size: int, only: str | None, root: Path | None) -> None:
    if only and root:
        import poolwise.experiment  # noqa: F401 (imported in every case)

        figures = measure(only, root, image_size)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        return print(json.dumps({**figures, "peak_MiB": peak}))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        generate(tree, images, image_size + 16)
        for case in CASES:
            command = [sys.executable, __file__, "--only", case, "--root", str(tree), "--image-size", str(image_size)]
            environment = {**os.environ, "POOLWISE_CACHE": str(Path(folder) / "cache")}
            completed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
            pixels = images * image_size**2 * 3 >> 20
            rows.append({"case": case, "images": images, "size": image_size, "pixels_MiB": pixels})
            rows[-1] |= json.loads(completed.stdout.splitlines()[-1])
            click.echo(rows[-1])
    record("streaming", rows)


if __name__ == "__main__":
    main()
