"""Devices, number formats and memory orders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from poolwise.errors import RequestError
from poolwise.process import cudnn_kernels

PRECISIONS = (
    "auto",
    "float32",
    "bfloat16",
    "tf32",
    "float32+channels_last",
    "bfloat16+channels_last",
    "tf32+channels_last",
)


@dataclass(frozen=True)
class Precision:
    """Number format of convolutions (weights stay float32) and memory order of images and weights.

    ``tf32`` is NVIDIA's: float32 in memory, products rounded to 10 bits. Elsewhere it is float32.
    """

    dtype: str = "float32"
    channels_last: bool = False

    @classmethod
    def parse(cls, text: str) -> Precision:
        """Read one of PRECISIONS other than ``auto``."""
        if text not in PRECISIONS[1:]:
            raise RequestError(f"unknown precision {text!r}: {', '.join(PRECISIONS)} are allowed")
        dtype, _, order = text.partition("+")
        return cls(dtype, order == "channels_last")

    def __str__(self) -> str:
        return self.dtype + ("+channels_last" if self.channels_last else "")

    def place(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Move the network to the device and into this memory order."""
        order = torch.channels_last if self.channels_last else torch.contiguous_format
        return network.to(device).to(memory_format=order)

    def images(self, images_BCHW: Tensor) -> Tensor:
        """Return the images in this memory order."""
        order = torch.channels_last if self.channels_last else torch.contiguous_format
        return images_BCHW.contiguous(memory_format=order)

    @contextmanager
    def active(self, device: torch.device) -> Iterator[None]:
        """Run convolutions inside the block in this number format."""
        with self.kernels(device), torch.autocast(device.type, torch.bfloat16, enabled=self.dtype == "bfloat16"):
            yield

    def kernels(self, device: torch.device) -> AbstractContextManager[Any]:
        """On CUDA, make kernels deterministic and allow TF32 only for the ``tf32`` format."""
        if device.type != "cuda":
            return nullcontext()
        return cudnn_kernels(self.dtype == "tf32")


def choose_device(name: str) -> torch.device:
    """Return the device called ``auto`` (CUDA, then MPS, then CPU), ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        RequestError: this machine has no such device.
    """
    if name == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if device is None or (device.index or 0) >= there.get(device.type, 0):
        have = ", ".join(kind for kind, count in there.items() if count)
        raise RequestError(f"unknown device {name!r}: this machine has {have}; 'auto' takes the fastest")
    return device
