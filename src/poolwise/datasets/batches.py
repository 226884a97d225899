"""Infinite shuffled batches for training, ordered ones for evaluation. Images stay uint8 on the device, or on disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor

from poolwise.datasets.augment import Augmentation, Drawn, Normalize, to_device
from poolwise.datasets.packed import Packed

Draw = tuple[np.ndarray, Drawn | None]  # indices_B, and the random numbers of the augmentation, if any


class Batches:
    """Batches of an image set, or of a subset of it.

    Args:
        images_NHWC, labels_N: uint8 (on the device, or ``Packed`` on disk) and int64 (on the device); may be shared.
        indices: sorted indices of the subset, or None for all images.
        batch_size: images per batch, reduced to ``len(self)`` if larger.
        normalize: normalization by the training images.
    """

    def __init__(
        self,
        images_NHWC: Tensor | Packed,
        labels_N: Tensor,
        indices: np.ndarray | None,
        batch_size: int,
        normalize: Normalize,
    ):
        self.images_NHWC, self.labels_N, self.normalize = images_NHWC, labels_N, normalize
        self.indices = np.arange(len(labels_N)) if indices is None else indices
        self.batch_size = min(batch_size, len(self))

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def parts(self) -> int:
        """Number of batches in one ordered pass."""
        return min(-(-len(self) // self.batch_size), max(len(self) // 2, 1))  # never a batch of one image

    def ordered(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every image once in order, as (images_BCHW float32, labels_B), in batches of nearly equal size.

        With a small last batch, batch statistics would be noisy.
        """
        return (self.part(i) for i in range(self.parts))

    def part(self, i: int) -> tuple[Tensor, Tensor]:
        """Return the i-th batch of ``ordered``."""
        start, stop = len(self) * i // self.parts, len(self) * (i + 1) // self.parts
        images_BHWC, labels_B = self.take(np.arange(start, stop))
        return self.normalize(images_BHWC), labels_B

    def take(self, places_B: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the raw images at these positions in the set: (images_BHWC uint8, labels_B)."""
        places_B, device = self.indices[places_B], self.labels_N.device
        indices_B = to_device(places_B, device)
        if isinstance(self.images_NHWC, Packed):
            return to_device(self.images_NHWC[places_B], device), self.labels_N[indices_B]
        return self.images_NHWC[indices_B], self.labels_N[indices_B]


class Shuffled:
    """Infinite full batches, reshuffled each epoch, with a state that can be saved and restored.

    Args:
        batches: the image set.
        order: generator of the permutations.
        augment: augmentation and its generator, or None for no augmentation.
    """

    def __init__(
        self,
        batches: Batches,
        order: np.random.Generator,
        augment: tuple[Augmentation, np.random.Generator] | None = None,
    ):
        self.batches, self.order, self.augment = batches, order, augment
        self._permutation = np.empty(0, np.int64)
        self._cursor = 0

    def draw(self) -> Draw:
        """Draw the indices of the next batch and the random numbers of its augmentation; any process can load them."""
        size = self.batches.batch_size
        if self._cursor + size > len(self._permutation):
            self._permutation = self.order.permutation(len(self.batches))
            self._cursor = 0
        indices = self._permutation[self._cursor : self._cursor + size]
        self._cursor += size
        if self.augment is None:
            return indices, None
        augmentation, generator = self.augment
        return indices, augmentation.draw(size, generator)

    def load(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return (images_BCHW float32, labels_B) for a draw."""
        indices, drawn = draw
        images_BHWC, labels_B = self.batches.take(indices)
        if self.augment is not None and drawn is not None:
            images_BHWC = self.augment[0].apply(images_BHWC, *drawn)
        return self.batches.normalize(images_BHWC), labels_B

    def next(self) -> tuple[Tensor, Tensor]:
        """Draw and return the next batch: (images_BCHW float32, labels_B)."""
        return self.load(self.draw())

    def state(self) -> dict[str, Any]:
        return {"permutation": self._permutation.tolist(), "cursor": self._cursor}

    def restore(self, state: dict[str, Any]) -> None:
        self._permutation = np.array(state["permutation"], np.int64)
        self._cursor = int(state["cursor"])
