"""A data set in memory or on disk: images_NHWC (uint8) and labels_N (int64) of both sets, with a fingerprint.

``datasets.loading`` loads one by its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from poolwise.datasets.packed import Packed, pieces

HELD_OUT = 0.2  # fraction of the images that is held out if a data set has no test set


@dataclass(frozen=True)
class ImageSet:
    """images_NHWC (uint8), in memory or on disk, and labels_N (int64) of the same length."""

    images: np.ndarray | Packed
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: np.ndarray) -> ImageSet:
        images = self.images.subset(indices) if isinstance(self.images, Packed) else self.images[indices]
        return ImageSet(images, self.labels[indices])

    @property
    def held_bytes(self) -> int:
        """Bytes of memory that the images occupy; 0 if they are on disk."""
        return 0 if isinstance(self.images, Packed) else self.images.nbytes


@dataclass(frozen=True)
class Source:
    """A data set. The test set is used only for stand-alone evaluation, never in a search.

    Attributes:
        flip: whether a mirrored image keeps its class.
        note: how the test set was chosen, if the data set does not define it, and which images were skipped.
        scoring: sorted indices of training images that the data set reserves for scoring (None: half are drawn).
        skipped: names of unreadable files that were skipped.
        augment: a torchvision v2 transform, or another callable on one uint8 image_CHW, that replaces
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
        """Bytes of images that are read from disk during a run."""
        return sum(part.images.nbytes - part.held_bytes for part in (self.train, self.test))

    def fingerprint(self) -> str:
        """Return a SHA-256 of images, labels and scoring indices: equal values mean that two runs used equal data."""
        digest = hashlib.sha256()
        for part in (self.train, self.test):
            digest.update(repr(part.images.shape).encode())
            for piece in pieces(part.images):
                digest.update(np.ascontiguousarray(part.images[piece]).data)
            digest.update(np.ascontiguousarray(part.labels, dtype="<i8").data)
        if self.scoring is not None:
            digest.update(np.ascontiguousarray(self.scoring, dtype="<i8").data)
        return digest.hexdigest()
