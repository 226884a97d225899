"""A data set in memory or on disk: images_NHWC uint8 and labels_N int64 of both parts, with a fingerprint.

``images.loading`` makes one from its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from poolwise.datasets.packed import Packed, pieces

HELD_OUT = 0.2  # of the images are the test set where a data set has none of its own


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
            ``Config.augment``.
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
