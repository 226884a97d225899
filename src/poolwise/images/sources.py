"""Where images come from: checked, held as uint8, fingerprinted.

``load("cifar10")`` and ``load("folder:PATH")`` return a Source. Arrays: images_NHWC uint8, labels_N int64.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from poolwise.errors import RequestError, did_you_mean


@dataclass(frozen=True)
class ImageSet:
    """images_NHWC uint8 and labels_N int64 of the same length."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: np.ndarray) -> ImageSet:
        return ImageSet(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Source:
    """A data set. The test set is for stand-alone evaluation alone; no search ever sees it.

    Attributes:
        flip: whether a mirrored image keeps its class.
        note: how the test set came about, where that is not a given.
    """

    name: str
    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    flip: bool = True
    note: str = ""

    @property
    def image_size(self) -> int:
        return int(self.train.images.shape[1])

    def fingerprint(self) -> str:
        """SHA-256 over images and labels of both sets: two runs with the same value saw the same data."""
        digest = hashlib.sha256()
        for part in (self.train, self.test):
            digest.update(repr(part.images.shape).encode())
            digest.update(np.ascontiguousarray(part.images).data)
            digest.update(np.ascontiguousarray(part.labels, dtype="<i8").data)
        return digest.hexdigest()


def load(spec: str, *, image_size: int | None = None, seed: int = 0) -> Source:
    """Load the data set that ``spec`` names.

    Args:
        spec: ``cifar10``, or ``folder:PATH`` with one subfolder a class.
        image_size: pixels along one side, for folders (64 where not given); CIFAR-10 has its own, 32.
        seed: decides which images of a folder without a test part are held out.
    """
    from poolwise.images import cifar10, folder

    if spec == "cifar10":
        if image_size not in (None, 32):
            raise RequestError(f"image size {image_size}: cifar10 images are 32 pixels; leave --image-size out")
        return cifar10.load()
    if spec.startswith("folder:"):
        return folder.load(Path(spec.removeprefix("folder:")).expanduser(), image_size or 64, seed)
    raise RequestError(
        f"unknown data {spec!r}{did_you_mean(spec, ['cifar10', 'folder:PATH'])}."
        " Allowed are cifar10 and folder:PATH with one subfolder a class"
    )
