"""Augmentation of whole batches, as index arithmetic on raw uint8 pixels.

The border is added before normalisation and is black. Padding after it would frame every image in the mean colour,
which on images with a dark background is a bright frame that ruins BatchNorm's averages.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """Random crop out of a black border of ``pad`` pixels and, where ``flip``, a mirror with probability 1/2."""

    pad: int = 4
    flip: bool = True

    def __call__(self, images_BHWC: Tensor, generator: np.random.Generator) -> Tensor:
        """images_BHWC -> the same shape and dtype, one offset and one coin an image."""
        batch, height, width, _ = images_BHWC.shape
        device = images_BHWC.device
        offsets_2B = generator.integers(0, 2 * self.pad + 1, size=(2, batch))
        mirrored_B = generator.random(batch) < 0.5 if self.flip else np.zeros(batch, bool)
        rows_BH = offsets_2B[0][:, None] + np.arange(height)
        columns_BW = offsets_2B[1][:, None] + np.arange(width)
        columns_BW = np.where(mirrored_B[:, None], columns_BW[:, ::-1], columns_BW)
        padded = images_BHWC.new_zeros((batch, height + 2 * self.pad, width + 2 * self.pad, images_BHWC.shape[3]))
        padded[:, self.pad : self.pad + height, self.pad : self.pad + width] = images_BHWC
        rows = torch.from_numpy(np.ascontiguousarray(rows_BH)).to(device)
        columns = torch.from_numpy(np.ascontiguousarray(columns_BW)).to(device)
        images = torch.arange(batch, device=device)
        return padded[images[:, None, None], rows[:, :, None], columns[:, None, :]]


class Normalise:
    """uint8 images_BHWC -> float32 images_BCHW with the training images' mean 0 and deviation 1 in each channel."""

    def __init__(self, training_images_NHWC: np.ndarray):
        count = training_images_NHWC.size // 3
        sums, squares = np.zeros(3), np.zeros(3)
        for start in range(0, len(training_images_NHWC), 4096):  # in slices: a float copy of everything need not fit
            chunk = training_images_NHWC[start : start + 4096].reshape(-1, 3).astype(np.float64)
            sums += chunk.sum(0)
            squares += (chunk**2).sum(0)
        self.mean = sums / count
        self.std = np.maximum(np.sqrt(np.maximum(squares / count - self.mean**2, 0)), 1.0)
        self._scaling: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __call__(self, images_BHWC: Tensor) -> Tensor:
        device = images_BHWC.device
        if device not in self._scaling:
            mean, std = (torch.tensor(v, dtype=torch.float32, device=device) for v in (self.mean, self.std))
            self._scaling[device] = (1 / std, -mean / std)
        scale, shift = self._scaling[device]
        return torch.addcmul(shift, images_BHWC.float(), scale).permute(0, 3, 1, 2)
