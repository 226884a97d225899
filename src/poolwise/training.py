"""One training step, one evaluation, schedules, devices and precision: the training room both wings share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolwise.errors import RequestError, RunFailure
from poolwise.networks.switch import SwitchableNet
from poolwise.networks.walk import walk
from poolwise.process import cudnn_kernels
from poolwise.space import Pooling
from poolwise.stopwatch import IDLE, Stopwatch

Forward = Callable[[Tensor], Tensor]
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
        """The network on the device in this memory order."""
        order = torch.channels_last if self.channels_last else torch.contiguous_format
        return network.to(device).to(memory_format=order)

    def images(self, images_BCHW: Tensor) -> Tensor:
        """Images in this memory order."""
        order = torch.channels_last if self.channels_last else torch.contiguous_format
        return images_BCHW.contiguous(memory_format=order)

    @contextmanager
    def active(self, device: torch.device) -> Iterator[None]:
        """Convolutions inside run in this number format."""
        with self.kernels(device), torch.autocast(device.type, torch.bfloat16, enabled=self.dtype == "bfloat16"):
            yield

    def kernels(self, device: torch.device) -> AbstractContextManager[Any]:
        """On CUDA: the same kernels each time, and TF32 only where it was asked for."""
        if device.type != "cuda":
            return nullcontext()
        return cudnn_kernels(self.dtype == "tf32")


def choose_device(name: str) -> torch.device:
    """``auto`` (CUDA, then MPS, then CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``. RequestError where it is not there."""
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


def compiled(network: nn.Module, layers: Iterable[nn.Module], how: str) -> nn.Module:
    """The network with torch.compile applied in place to each of its ``layers``, ``how`` as ``Settings.compile`` says.

    Layers, not the whole: every configuration runs the same layers at a few resolutions, so a handful of compilations
    serve all of them. Parameters and their names stay.
    """
    if how != "off":
        # layers of one class count together, and each has its own shapes
        torch._dynamo.config.recompile_limit = 256
        for layer in layers:
            layer.compile(mode="reduce-overhead" if how == "cuda-graphs" else None, dynamic=False)
    return network


def sgd(network: nn.Module, lr: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """The optimizer of search and stand-alone training."""
    return torch.optim.SGD(network.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)


def cosine(step: int, steps: int, start: float, end: float) -> float:
    """Learning rate at ``step`` of ``steps``: half a cosine from ``start`` down to ``end``."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1.0)))


class LossNotFinite(RunFailure):
    """The loss became NaN or infinite."""


def check_finite(losses: Sequence[float]) -> None:
    """Raise LossNotFinite where a loss is NaN or infinite."""
    for value in losses:
        if not math.isfinite(value):
            raise LossNotFinite(f"the loss is {value}")


def train_step(
    forward: Forward,
    optimizer: torch.optim.Optimizer,
    images_BCHW: Tensor,
    labels_B: Tensor,
    lr: float,
    precision: Precision,
    watch: Stopwatch = IDLE,
) -> Tensor:
    """One optimizer step on one batch; returns the loss in nats as a scalar on the device, which nothing waits for."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    with watch("forward"):
        with precision.active(images_BCHW.device):
            logits_BK = forward(precision.images(images_BCHW))
        loss = F.cross_entropy(logits_BK.float(), labels_B)
    with watch("backward"), precision.kernels(images_BCHW.device):
        loss.backward()
    with watch("optimizer"):
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)  # of M SuperNets, one at a time has gradients in memory
    return loss.detach()


@torch.no_grad()
def correct(forward: Forward, images_BCHW: Tensor, labels_B: Tensor, precision: Precision) -> Tensor:
    """How many images of the batch are classified rightly, as a scalar on the device, which nothing waits for."""
    with precision.active(images_BCHW.device):
        logits_BK = forward(precision.images(images_BCHW))
    return (logits_BK.argmax(dim=1) == labels_B).sum()


@torch.no_grad()
def count_correct(
    network: SwitchableNet, poolings: Sequence[Pooling], images_BCHW: Tensor, labels_B: Tensor, precision: Precision
) -> list[int]:
    """Rightly classified images of one batch under each configuration, each prefix computed once."""
    right, found = [0] * len(poolings), []
    with precision.active(images_BCHW.device):
        for members, logits_BK in walk(network, poolings, precision.images(images_BCHW)):
            found.append((members, (logits_BK.argmax(dim=1) == labels_B).sum()))
    hits = torch.stack([count for _, count in found]).tolist()  # the only wait for the device
    for (members, _), count in zip(found, hits, strict=True):
        for a in members:
            right[a] = count
    return right


def accuracy(forward: Forward, batches: Iterable[tuple[Tensor, Tensor]], precision: Precision) -> float:
    """Share of all images that are classified rightly, 0 to 1."""
    right, total = [], 0
    for images_BCHW, labels_B in batches:
        right.append(correct(forward, images_BCHW, labels_B, precision))
        total += len(labels_B)
    return int(torch.stack(right).sum()) / total
