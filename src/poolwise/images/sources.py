"""Where images come from: checked, held as uint8 in memory or on disk, fingerprinted.

``load("cifar10")``, ``load("cifar100")``, ``load("food101")`` and ``load("folder:PATH")`` return a Source. Arrays:
images_NHWC uint8, labels_N int64.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from poolwise.errors import RequestError, did_you_mean
from poolwise.images.packed import Packed, pieces

NAMES = ("cifar10", "cifar100", "food101")
HELD_OUT = 0.2  # of the images are the test set where a data set has none of its own
FOLDER_SIZE = 64  # pixels, where none are asked for


@dataclass(frozen=True)
class ImageSet:
    """images_NHWC uint8, in memory or on disk, and labels_N int64 of the same length."""

    images: np.ndarray | Packed
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: np.ndarray) -> ImageSet:
        images = self.images.subset(indices) if isinstance(self.images, Packed) else self.images[indices]
        return ImageSet(images, self.labels[indices])

    @property
    def held_bytes(self) -> int:
        """Bytes of memory that the images take."""
        return 0 if isinstance(self.images, Packed) else self.images.nbytes


@dataclass(frozen=True)
class Source:
    """A data set. The test set is for stand-alone evaluation alone; no search ever sees it.

    Attributes:
        flip: whether a mirrored image keeps its class.
        note: how the test set came about, where that is not a given, and what was left out.
        scoring: indices of the training images that the data set itself sets apart for scoring, sorted (None: half of
            them are drawn).
        skipped: names of files that could not be read and were left out.
        augment: a torchvision v2 transform, or another callable on one uint8 image_CHW, that takes the place of
            ``Settings.augment``.
    """

    name: str
    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    flip: bool = True
    note: str = ""
    scoring: np.ndarray | None = None
    skipped: tuple[str, ...] = ()
    augment: Callable[[Any], Any] | None = None

    @property
    def image_size(self) -> int:
        return int(self.train.images.shape[1])

    @property
    def cached_bytes(self) -> int:
        """Bytes of images that are read from disk while a run goes on."""
        return sum(part.images.nbytes - part.held_bytes for part in (self.train, self.test))

    def fingerprint(self) -> str:
        """SHA-256 over images and labels of both sets: two runs with the same value saw the same data."""
        digest = hashlib.sha256()
        for part in (self.train, self.test):
            digest.update(repr(part.images.shape).encode())
            for piece in pieces(part.images):
                digest.update(np.ascontiguousarray(part.images[piece]).data)
            digest.update(np.ascontiguousarray(part.labels, dtype="<i8").data)
        if self.scoring is not None:
            digest.update(np.ascontiguousarray(self.scoring, dtype="<i8").data)
        return digest.hexdigest()


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
    say: Callable[[str], None] | None = None,
) -> Source:
    """Load the data set that ``spec`` names. RequestError where it is not there, or is not what it should be.

    Args:
        spec: ``cifar10``, ``cifar100``, ``food101``, or ``folder:PATH`` with one subfolder a class.
        image_size: pixels along one side, for folders and food101 (64 where not given); CIFAR has its own, 32.
        seed: decides which images of a folder without a test part are held out.
        stream, cache_images, skip_broken, room, say: how files are read (``decoding.Reading``); CIFAR is held in memory.
        follow_links: whether links out of a folder are followed.
    """
    from poolwise.images import cifar10, cifar100, folder, food101
    from poolwise.images.decoding import Reading

    if spec in ("cifar10", "cifar100"):
        if image_size not in (None, 32):
            raise RequestError(f"image size {image_size}: {spec} images are 32 pixels; leave --image-size out")
        return cifar10.load() if spec == "cifar10" else cifar100.load()
    reading = Reading(image_size or FOLDER_SIZE, stream, cache_images, skip_broken, room, say)
    if spec == "food101":
        return food101.load(reading)
    if spec.startswith("folder:"):
        return folder.load(Path(spec.removeprefix("folder:")).expanduser(), reading, seed, follow_links)
    raise RequestError(
        f"unknown data {spec!r}{did_you_mean(spec, [*NAMES, 'folder:PATH'])}."
        f" Allowed are {', '.join(NAMES)} and folder:PATH with one subfolder a class"
    )
