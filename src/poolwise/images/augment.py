"""Augmentation of whole batches, as index arithmetic on raw uint8 pixels.

The border is added before normalisation and is black. Padding after it would frame every image in the mean colour,
which on images with a dark background is a bright frame that ruins BatchNorm's averages.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """Random crop out of a black border of ``pad`` pixels and, where ``flip``, a mirror with probability 1/2."""

    pad: int = 4
    flip: bool = True

    def draw(self, batch: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Vertical and horizontal offsets_2B (0 to 2 pad) and mirrored_B (bool) of one batch."""
        offsets_2B = generator.integers(0, 2 * self.pad + 1, size=(2, batch))
        return offsets_2B, generator.random(batch) < 0.5 if self.flip else np.zeros(batch, bool)

    def apply(self, images_BHWC: Tensor, offsets_2B: np.ndarray, mirrored_B: np.ndarray) -> Tensor:
        """images_BHWC -> the same shape and dtype, cut out and mirrored as drawn."""
        batch, height, width, channels = images_BHWC.shape
        device, pad = images_BHWC.device, self.pad
        padded = F.pad(images_BHWC, (0, 0, pad, pad, pad, pad))
        # every row of every window of this width is a run of bytes, so a crop copies one run an image row
        runs = padded.view(batch, height + 2 * pad, -1).unfold(2, width * channels, channels)
        rows_BH = to_device(offsets_2B[0][:, None] + np.arange(height), device)
        first_B1 = to_device(offsets_2B[1][:, None], device)
        cut = runs[torch.arange(batch, device=device)[:, None], rows_BH, first_B1]
        images_BHWC = cut.view(batch, height, width, channels)
        mirrored = to_device(np.flatnonzero(mirrored_B), device)
        images_BHWC[mirrored] = images_BHWC[mirrored].flip(2)
        return images_BHWC


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """The array on the device; on CUDA through pinned memory, so that the copy never waits for the device."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


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
