"""Endless shuffled batches for training, ordered ones for evaluation. The images stay uint8 on the device."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poolwise.images.augment import Augmentation, Normalise
from poolwise.images.sources import ImageSet


class Batches:
    """Batches of one image set.

    Args:
        data: the images, copied to ``device`` once.
        batch_size: images a batch; at most ``len(data)`` are used.
        normalise: made from the training images.
    """

    def __init__(self, data: ImageSet, batch_size: int, normalise: Normalise, device: torch.device):
        self.images_NHWC = torch.from_numpy(np.ascontiguousarray(data.images)).to(device)
        self.labels_N = torch.from_numpy(np.ascontiguousarray(data.labels)).to(device)
        self.batch_size = min(batch_size, len(data))
        self.normalise = normalise

    @property
    def parts(self) -> int:
        """Batches in one ordered pass."""
        count = len(self.labels_N)
        return min(-(-count // self.batch_size), max(count // 2, 1))  # never a batch of one image

    def ordered(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once in order: images_BCHW float32, labels_B, in batches as even as possible.

        Even, since batch statistics of a last batch of a few images would be noise.
        """
        edges = [len(self.labels_N) * i // self.parts for i in range(self.parts + 1)]
        for start, stop in pairwise(edges):
            yield self.normalise(self.images_NHWC[start:stop]), self.labels_N[start:stop]

    def take(self, indices_B: Tensor) -> tuple[Tensor, Tensor]:
        """The named images, raw: images_BHWC uint8, labels_B."""
        return self.images_NHWC[indices_B], self.labels_N[indices_B]


class Shuffled:
    """Endless full batches in a new order each pass, with a state that can be saved and put back.

    Args:
        order: generator of the orders.
        augment: augmentation and its generator, or None for plain images.
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

    def next(self) -> tuple[Tensor, Tensor]:
        """images_BCHW float32 and labels_B of the next batch."""
        size = self.batches.batch_size
        if self._cursor + size > len(self._permutation):
            self._permutation = self.order.permutation(len(self.batches.labels_N))
            self._cursor = 0
        indices = self._permutation[self._cursor : self._cursor + size]
        self._cursor += size
        images_BHWC, labels_B = self.batches.take(torch.from_numpy(indices).to(self.batches.labels_N.device))
        if self.augment is not None:
            augmentation, generator = self.augment
            images_BHWC = augmentation(images_BHWC, generator)
        return self.batches.normalise(images_BHWC), labels_B

    def state(self) -> dict[str, Any]:
        return {"permutation": self._permutation.tolist(), "cursor": self._cursor}

    def restore(self, state: dict[str, Any]) -> None:
        self._permutation = np.array(state["permutation"], np.int64)
        self._cursor = int(state["cursor"])
