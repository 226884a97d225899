"""A data set in shared memory, which worker processes open without copying it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from poolwise.datasets.packed import Packed
from poolwise.datasets.sources import ImageSet, Source
from poolwise.errors import RequestError


@dataclass(frozen=True)
class SharedSource:
    """A data set with images in shared memory (or on disk if streamed), which can be sent to other processes.

    Attributes:
        source: the data set without its images.
        train, test: (images, labels) as tensors in shared memory; streamed images remain a ``Packed``.
    """

    source: Source
    train: tuple[Any, Any]
    test: tuple[Any, Any]

    @classmethod
    def of(cls, source: Source, further_bytes: int = 0) -> SharedSource:
        """Copy the images of a data set into shared memory.

        Args:
            source: the data set.
            further_bytes: bytes of shared memory that are needed for other data.

        Raises:
            RequestError: shared memory is too small.
        """
        sets = (source.train, source.test)
        _check_free_space(sum(images.held_bytes + images.labels.nbytes for images in sets) + further_bytes)
        empty = ImageSet(np.empty(0, np.uint8), np.empty(0, np.int64))
        return cls(replace(source, train=empty, test=empty), _share(source.train), _share(source.test))

    def open(self) -> Source:
        """Return the data set with its images in shared memory, without copying them."""
        return replace(self.source, train=_open(*self.train), test=_open(*self.test))


def _share(images: ImageSet) -> tuple[Any, Any]:
    return _copy(images.images), _copy(images.labels)


def _copy(array: np.ndarray | Packed) -> Any:
    return array if isinstance(array, Packed) else torch.from_numpy(array.copy()).share_memory_()


def _open(images: Any, labels: torch.Tensor) -> ImageSet:
    return ImageSet(images if isinstance(images, Packed) else images.numpy(), labels.numpy())


def _check_free_space(needed: int) -> None:
    """Raise RequestError if /dev/shm, which is small in many containers, has less than ``needed`` bytes free."""
    if not os.path.isdir("/dev/shm"):
        return
    free = shutil.disk_usage("/dev/shm").free
    if needed > free:
        raise RequestError(
            f"worker processes need {needed >> 20} MiB of shared memory, but only {free >> 20} MiB of /dev/shm are free: use"
            " --workers 1, fewer --images, or a container with more shared memory (docker: --shm-size)"
        )
