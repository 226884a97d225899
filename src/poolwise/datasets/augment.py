"""Augmentations by name, and wrappers for users' transforms. All operate on raw uint8 pixels.

An augmentation has two steps: ``draw`` draws all random numbers from a given generator, as NumPy arrays, and ``apply``
uses them, in any process.

Padding is black and is added before normalization. Padding after normalization would frame every image in the mean
color; on images with a dark background, that bright frame distorts the BatchNorm statistics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from poolwise.datasets.packed import Packed, pieces
from poolwise.errors import RequestError
from poolwise.process import generators_kept, seed_global

Drawn = tuple[np.ndarray, ...]


class Augmentation(Protocol):
    """A random transformation of a training batch."""

    def draw(self, batch: int, generator: np.random.Generator) -> Drawn:
        """Draw the random numbers for a batch of ``batch`` images."""
        ...

    def apply(self, images_BHWC: Tensor, *drawn: np.ndarray) -> Tensor:
        """Return images_BHWC (uint8) transformed with the drawn numbers, in the same shape and dtype."""
        ...


@dataclass(frozen=True)
class CropFlip:
    """Random crop after padding with ``pad`` black pixels and, if ``flip``, a horizontal flip with probability 1/2."""

    pad: int = 4
    flip: bool = True

    def draw(self, batch: int, generator: np.random.Generator) -> Drawn:
        """Draw vertical and horizontal offsets_2B (0 to 2 * pad) and mirrored_B (bool) for one batch."""
        offsets_2B = generator.integers(0, 2 * self.pad + 1, size=(2, batch))
        return offsets_2B, generator.random(batch) < 0.5 if self.flip else np.zeros(batch, bool)

    def apply(self, images_BHWC: Tensor, *drawn: np.ndarray) -> Tensor:
        """Return the cropped and flipped images_BHWC, in the same shape and dtype."""
        offsets_2B, mirrored_B = drawn
        batch, height, width, channels = images_BHWC.shape
        device, pad = images_BHWC.device, self.pad
        padded = F.pad(images_BHWC, (0, 0, pad, pad, pad, pad))
        # each row of a crop window is contiguous in memory, so a crop copies one run of bytes per image row
        runs = padded.view(batch, height + 2 * pad, -1).unfold(2, width * channels, channels)
        rows_BH = to_device(offsets_2B[0][:, None] + np.arange(height), device)
        first_B1 = to_device(offsets_2B[1][:, None], device)
        cut = runs[torch.arange(batch, device=device)[:, None], rows_BH, first_B1]
        images_BHWC = cut.view(batch, height, width, channels)
        mirrored = to_device(np.flatnonzero(mirrored_B), device)
        images_BHWC[mirrored] = images_BHWC[mirrored].flip(2)
        return images_BHWC


@dataclass(frozen=True)
class Cutout:
    """``first``, then a black square of ``side`` pixels around a random pixel; it may extend beyond the image.

    Source: DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout" (2017).
    """

    first: CropFlip
    side: int

    def draw(self, batch: int, generator: np.random.Generator) -> Drawn:
        """Draw for ``first``, and draw the center_2B of the square as fractions of height and width in [0, 1)."""
        return *self.first.draw(batch, generator), generator.random((2, batch))

    def apply(self, images_BHWC: Tensor, *drawn: np.ndarray) -> Tensor:
        images_BHWC = self.first.apply(images_BHWC, *drawn[:-1])
        _, height, width, _ = images_BHWC.shape
        inside = []
        for share_B, length in zip(drawn[-1], (height, width), strict=True):
            first_B1 = np.floor(share_B * length).astype(np.int64)[:, None] - self.side // 2
            places = np.arange(length)
            inside.append((places >= first_B1) & (places < first_B1 + self.side))
        covered_BHW = to_device(inside[0][:, :, None] & inside[1][:, None, :], images_BHWC.device)
        return images_BHWC.masked_fill(covered_BHW[..., None], 0)


@dataclass(frozen=True)
class Nothing:
    """The identity: images are not changed."""

    def draw(self, batch: int, generator: np.random.Generator) -> Drawn:
        return ()

    def apply(self, images_BHWC: Tensor, *drawn: np.ndarray) -> Tensor:
        return images_BHWC


@dataclass(frozen=True)
class PerImage:
    """``first``, then a transform of each uint8 image_CHW to the same shape and dtype, on the CPU.

    A seed is drawn for each image. The global generators of torch, NumPy and Python are seeded with it for the
    transform, and restored afterwards: the same seed gives the same bytes in any process.
    """

    transform: Callable[[Any], Any]
    first: CropFlip | Nothing = Nothing()

    def draw(self, batch: int, generator: np.random.Generator) -> Drawn:
        """Draw for ``first``, and draw seeds_B."""
        return *self.first.draw(batch, generator), generator.integers(0, 2**32, size=batch, dtype=np.int64)

    def apply(self, images_BHWC: Tensor, *drawn: np.ndarray) -> Tensor:
        images_BHWC = self.first.apply(images_BHWC, *drawn[:-1])
        images_BCHW = images_BHWC.cpu().permute(0, 3, 1, 2).contiguous()
        with generators_kept():
            changed = [self._one(image, int(seed)) for image, seed in zip(images_BCHW, drawn[-1], strict=True)]
        return torch.stack(changed).permute(0, 2, 3, 1).contiguous().to(images_BHWC.device)

    def _one(self, image_CHW: Tensor, seed: int) -> Tensor:
        seed_global(seed)
        result = self.transform(image_CHW)
        if not isinstance(result, Tensor) or result.dtype != torch.uint8 or result.shape != image_CHW.shape:
            what = f"{result.dtype} {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
            raise RequestError(
                f"the transform {named(self.transform)} returned {what}: it must return a uint8 tensor"
                f" {tuple(image_CHW.shape)} like its input; remove normalization and resizing, which poolwise does"
            )
        return result


def augmentation(name: str, image_size: int, flip: bool) -> Augmentation:
    """Return the augmentation ``name`` (a value of ``Config.augment``) for images of this size in pixels.

    ``flip`` says whether images may be mirrored.
    """
    first = CropFlip(pad=max(image_size // 8, 1), flip=flip)
    if name == "none":
        return Nothing()
    if name == "cutout":
        return Cutout(first, max(image_size // 2, 1))
    if name == "crop-flip":
        return first
    from torchvision.transforms import v2

    transforms: dict[str, Callable[[], Any]] = {"trivial": v2.TrivialAugmentWide, "randaugment": v2.RandAugment}
    return PerImage(transforms[name](), first)


def named(transform: Callable[[Any], Any]) -> str:
    """Return a description of a transform that is the same in every process."""
    if isinstance(transform, torch.nn.Module):
        return " ".join(repr(transform).split())
    one = transform if hasattr(transform, "__qualname__") else type(transform)
    return f"{one.__module__}.{one.__qualname__}"


def to_tensor(array: np.ndarray) -> Tensor:
    """Return a tensor that shares the array's memory; a read-only array (decoded, memory-mapped) is copied instead.

    Tensors are always writable, so PyTorch warns about sharing read-only memory.
    """
    contiguous = np.ascontiguousarray(array)
    return torch.from_numpy(contiguous if contiguous.flags.writeable else contiguous.copy())


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Copy the array to the device; to CUDA through pinned memory, so that the copy is asynchronous."""
    tensor = to_tensor(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class Normalize:
    """Convert uint8 images_BHWC to float32 images_BCHW, standardized per channel with the given mean and std."""

    def __init__(self, mean: np.ndarray, std: np.ndarray):
        self.mean, self.std = mean, std
        self._scaling: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @classmethod
    def of(cls, training_images_NHWC: np.ndarray | Packed) -> Normalize:
        """Compute mean and standard deviation per channel of the training images (a deviation is at least 1)."""
        count = training_images_NHWC.size // 3
        sums, squares = np.zeros(3), np.zeros(3)
        for piece in pieces(training_images_NHWC, 2**20):  # small: float64 is 8x larger; integer sums are exact
            chunk = training_images_NHWC[piece].reshape(-1, 3).astype(np.float64)
            sums += chunk.sum(0)
            squares += (chunk**2).sum(0)
        mean = sums / count
        return cls(mean, np.maximum(np.sqrt(np.maximum(squares / count - mean**2, 0)), 1.0))

    def __call__(self, images_BHWC: Tensor) -> Tensor:
        device = images_BHWC.device
        if device not in self._scaling:
            mean, std = (torch.tensor(v, dtype=torch.float32, device=device) for v in (self.mean, self.std))
            self._scaling[device] = (1 / std, -mean / std)
        scale, shift = self._scaling[device]
        return torch.addcmul(shift, images_BHWC.float(), scale).permute(0, 3, 1, 2)
