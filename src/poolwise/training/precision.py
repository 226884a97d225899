"""Devices, number formats and memory orders."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from poolwise.errors import RequestError
from poolwise.process import cudnn_kernels

_BFLOAT16_UNITS = {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}  # names in Linux: x86, then ARM
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

    ``tf32`` is the NVIDIA format: float32 in memory, with inputs of products rounded to 10 mantissa bits. On other
    devices it means float32.
    """

    dtype: str = "float32"
    channels_last: bool = False

    @classmethod
    def parse(cls, text: str) -> Precision:
        """Parse one of PRECISIONS other than ``auto``. Raises RequestError for other text."""
        if text not in PRECISIONS[1:]:
            raise RequestError(f"unknown precision {text!r}: use {', '.join(PRECISIONS)}")
        dtype, _, order = text.partition("+")
        return cls(dtype, order == "channels_last")

    def __str__(self) -> str:
        return self.dtype + ("+channels_last" if self.channels_last else "")

    def place(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Move the network to the device, in this memory order."""
        order = torch.channels_last if self.channels_last else torch.contiguous_format
        return network.to(device).to(memory_format=order)

    def images(self, images_BCHW: Tensor) -> Tensor:
        """Return the images in this memory order."""
        order = torch.channels_last if self.channels_last else torch.contiguous_format
        return images_BCHW.contiguous(memory_format=order)

    @contextmanager
    def active(self, device: torch.device) -> Iterator[None]:
        """Context manager: run convolutions in this number format."""
        with self.kernels(device), torch.autocast(device.type, torch.bfloat16, enabled=self.dtype == "bfloat16"):
            yield

    def kernels(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return a context manager: deterministic kernels on CUDA, with TF32 for every format but ``float32``."""
        if device.type != "cuda":
            return nullcontext()
        return cudnn_kernels(self.dtype != "float32")


def choose_device(name: str) -> torch.device:
    """Return the device called ``auto`` (CUDA, then MPS, then CPU), ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        RequestError: This machine has no such device.
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
        raise RequestError(f"unknown device {name!r}: this machine has {have}; 'auto' selects the fastest")
    return device


def device_precision(device: torch.device) -> Precision:
    """Return the default number format and memory order of a device, without timing.

    CPUs use channels last, with bfloat16 if they have native instructions for it and float32 otherwise. CUDA devices
    from Ampere (compute capability 8.0) on use bfloat16, with TF32 for float32 operations. Others use float32.
    """
    if device.type == "cpu":
        return Precision("bfloat16" if cpu_has_bfloat16() else "float32", channels_last=True)
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return Precision("bfloat16")
    return Precision()


def cpu_has_bfloat16() -> bool:
    """Return whether PyTorch can use bfloat16 instructions of the CPU; False if the system does not list any.

    The environment variable ``ATEN_CPU_CAPABILITY`` can disable instructions in PyTorch.
    """
    arm = platform.machine().lower() in ("arm64", "aarch64")
    allowed = arm or torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")
    return allowed and bool(_BFLOAT16_UNITS & _cpu_features())


def _cpu_features() -> set[str]:
    """Return the instruction sets that the system lists for the first CPU."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        listed = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
        return set(listed.partition(":")[2].split())
    return set()
