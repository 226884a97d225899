"""Load a data set by its name: ``cifar10``, ``cifar100``, ``food101`` or ``folder:PATH``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from poolwise.config import Config
from poolwise.datasets import cifar10, cifar100, folder, food101
from poolwise.datasets.decoding import Reading
from poolwise.datasets.sources import Source
from poolwise.errors import RequestError, did_you_mean
from poolwise.progress import Listener

NAMES = ("cifar10", "cifar100", "food101")
FOLDER_SIZE = 64  # default image size of folders and food101, in pixels along one side


def load(
    spec: str,
    *,
    image_size: int | None = None,
    seed: int = 0,
    stream: str = "auto",
    cache_images: bool | None = None,
    skip_broken: bool = False,
    follow_links: bool = False,
    room: int | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> Source:
    """Load the data set that ``spec`` names.

    Args:
        spec: ``cifar10``, ``cifar100``, ``food101``, or ``folder:PATH`` with one subfolder per class.
        image_size: pixels along one side, for folders and food101 (default 64); CIFAR images are 32 pixels.
        seed: determines which images of a folder without a test part are held out.
        stream, cache_images, skip_broken, room, on_progress: how files are read, see ``decoding.Reading``; CIFAR is in memory.
        follow_links: whether to follow links that lead out of a folder.

    Raises:
        RequestError: the data set is unknown, missing or damaged.
        RunFailure: CIFAR-10 or CIFAR-100 is not on disk and cannot be downloaded.
    """
    if spec in ("cifar10", "cifar100"):
        if image_size not in (None, 32):
            raise RequestError(f"image size {image_size}: {spec} images are 32 pixels; omit --image-size")
        return cifar10.load(on_progress or (lambda _: None)) if spec == "cifar10" else cifar100.load()
    reading = Reading(image_size or FOLDER_SIZE, stream, cache_images, skip_broken, room, on_progress)
    if spec == "food101":
        return food101.load(reading)
    if spec.startswith("folder:"):
        return folder.load(Path(spec.removeprefix("folder:")).expanduser(), reading, seed, follow_links)
    raise RequestError(
        f"unknown data {spec!r}{did_you_mean(spec, [*NAMES, 'folder:PATH'], '.')}"
        f" Use {', '.join(NAMES)} or folder:PATH with one subfolder per class"
    )


def load_requested(config: Config, room: int | None, listener: Listener) -> Source:
    """Load the data set that the config names, and report before and after.

    Args:
        config: the request.
        room: bytes of memory for images (None: a quarter of the free memory).
        listener: receives the messages.
    """
    listener.note(f"loading {config.data.source}")
    source = load(
        config.data.source,
        image_size=config.data.image_size,
        seed=config.seed,
        stream=config.data.stream,
        cache_images=config.data.cache_images,
        skip_broken=config.data.skip_broken,
        follow_links=config.data.follow_links,
        room=room,
        on_progress=listener.note,
    )
    sizes = f"{len(source.train)} training and {len(source.test)} test images of {source.image_size} pixels"
    listener.note(f"loaded {source.name}: {sizes}, {len(source.classes)} classes")
    return source
