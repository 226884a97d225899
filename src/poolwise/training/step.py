"""One training step, one evaluation, the optimizer and its learning rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolwise.errors import RunFailure
from poolwise.models.prefixes import walk
from poolwise.models.supernet import SwitchableNet
from poolwise.spaces import Pooling
from poolwise.training.precision import Precision
from poolwise.training.profiler import IDLE, Stopwatch

Forward = Callable[[Tensor], Tensor]


def compiled(network: nn.Module, layers: Iterable[nn.Module], how: str) -> nn.Module:
    """Apply torch.compile in place to each of the ``layers``. Return the network.

    Layers are compiled separately because all configurations run the same layers at a few resolutions, so that a few
    compilations serve all configurations. Parameters and their names do not change.

    Args:
        network: The network.
        layers: The layers to compile.
        how: Value of the ``compile`` setting: ``off``, ``default`` or ``cuda-graphs``.
    """
    if how != "off":
        # the limit is shared by all layers of a class, which have different shapes
        torch._dynamo.config.recompile_limit = 256
        for layer in layers:
            layer.compile(mode="reduce-overhead" if how == "cuda-graphs" else None, dynamic=False)
    return network


def sgd(network: nn.Module, lr: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """Return the optimizer of search and stand-alone training."""
    return torch.optim.SGD(network.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)


def cosine(step: int, steps: int, start: float, end: float) -> float:
    """Return the learning rate at ``step`` of ``steps``: half a cosine from ``start`` down to ``end``."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1.0)))


class LossNotFinite(RunFailure):
    """The loss became NaN or infinite."""


def check_finite(losses: Sequence[float]) -> None:
    """Raise LossNotFinite if a loss is NaN or infinite."""
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
    """Take one optimizer step on one batch. Return the loss in nats as a scalar on the device, without synchronizing."""
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
        optimizer.zero_grad(set_to_none=True)  # only one of the M SuperNets holds gradients at a time
    return loss.detach()


@torch.no_grad()
def correct(forward: Forward, images_BCHW: Tensor, labels_B: Tensor, precision: Precision) -> Tensor:
    """Return the number of correctly classified images as a scalar on the device, without synchronizing."""
    with precision.active(images_BCHW.device):
        logits_BK = forward(precision.images(images_BCHW))
    return (logits_BK.argmax(dim=1) == labels_B).sum()


@torch.no_grad()
def count_correct(
    network: SwitchableNet,
    poolings: Sequence[Pooling],
    images_BCHW: Tensor,
    labels_B: Tensor,
    precision: Precision,
    keep: Callable[[list[int], Tensor], None] | None = None,
) -> list[int]:
    """Count the correctly classified images of one batch for each configuration, computing each shared prefix once.

    ``keep`` is called with the logits_BK of each group of equal configurations and their indices in ``poolings``.
    """
    counts, results = [0] * len(poolings), []
    with precision.active(images_BCHW.device):
        for members, logits_BK in walk(network, poolings, precision.images(images_BCHW)):
            results.append((members, (logits_BK.argmax(dim=1) == labels_B).sum()))
            if keep is not None:
                keep(members, logits_BK)
    values = torch.stack([count for _, count in results]).tolist()  # the only synchronization
    for (members, _), count in zip(results, values, strict=True):
        for a in members:
            counts[a] = count
    return counts


def accuracy(forward: Forward, batches: Iterable[tuple[Tensor, Tensor]], precision: Precision) -> float:
    """Return the share of correctly classified images, 0 to 1."""
    counts, total = [], 0
    for images_BCHW, labels_B in batches:
        counts.append(correct(forward, images_BCHW, labels_B, precision))
        total += len(labels_B)
    return int(torch.stack(counts).sum()) / total
