"""One training step, one evaluation, the optimizer and its learning rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

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
# what ``walk`` yields: the places of equal configurations in a list, and their logits_BK
Logits = Iterable[tuple[Sequence[int], Tensor]]


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

    def logits_of(images_BCHW: Tensor) -> Logits:
        return [((0,), forward(images_BCHW))]

    return train_group(logits_of, optimizer, images_BCHW, labels_B, lr, precision, watch)[0]


def forward_all(network: SwitchableNet, poolings: Sequence[Pooling]) -> Callable[[Tensor], Logits]:
    """Return a function of images that yields the logits of every configuration. A shared prefix runs once."""
    if len(poolings) == 1:
        return lambda images_BCHW: [((0,), network(images_BCHW, poolings[0]))]
    return partial(walk, network, poolings)


def train_group(
    forward: Callable[[Tensor], Logits],
    optimizer: torch.optim.Optimizer,
    images_BCHW: Tensor,
    labels_B: Tensor,
    lr: float,
    precision: Precision,
    watch: Stopwatch = IDLE,
) -> tuple[Tensor, Logits]:
    """Take one optimizer step on the mean loss of G configurations on one batch, without synchronizing.

    The gradient is the mean of the gradients of the configurations. All see the same batch, so the activations of a shared
    prefix, batch statistics included, are those of each configuration alone, and the prefix runs forward and backward once.

    Args:
        forward: Yields the logits of the G configurations, as ``forward_all`` does.
        optimizer: Optimizer of the network.
        images_BCHW, labels_B: The batch.
        lr: Learning rate of the step.
        precision: Number format.
        watch: Measures the parts.

    Returns:
        The mean loss in nats, a scalar on the device, and the logits of the batch before the step, detached.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr
    with watch("forward"):
        with precision.active(images_BCHW.device):
            logits = list(forward(precision.images(images_BCHW)))
        losses = [(len(members), F.cross_entropy(logits_BK.float(), labels_B)) for members, logits_BK in logits]
        loss = losses[0][1] if len(losses) == 1 else _mean(losses)
    with watch("backward"), precision.kernels(images_BCHW.device):
        loss.backward()
    with watch("optimizer"):
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)  # only one of the M SuperNets holds gradients at a time
    return loss.detach(), [(members, logits_BK.detach()) for members, logits_BK in logits]


def _mean(losses: Sequence[tuple[int, Tensor]]) -> Tensor:
    """Return the mean of losses that count several times each."""
    return torch.stack([count * loss for count, loss in losses]).sum() / sum(count for count, _ in losses)


@torch.no_grad()
def right_of(logits: Logits, labels_B: Tensor) -> Tensor:
    """Return right_G, the correctly classified images of each configuration, on the device, without synchronizing."""
    right: dict[int, Tensor] = {}
    for members, logits_BK in logits:
        right |= dict.fromkeys(members, (logits_BK.argmax(dim=1) == labels_B).sum())
    return torch.stack([right[a] for a in range(len(right))])


@torch.no_grad()
def correct_each(
    network: SwitchableNet,
    poolings: Sequence[Pooling],
    images_BCHW: Tensor,
    labels_B: Tensor,
    precision: Precision,
    keep: Callable[[Sequence[int], Tensor], None] | None = None,
) -> Tensor:
    """Return right_G, the correctly classified images of one batch for each configuration, without synchronizing.

    A shared prefix runs once. ``keep`` is called with the logits_BK of each group of equal configurations and their
    indices in ``poolings``.
    """
    with precision.active(images_BCHW.device):
        logits = forward_all(network, poolings)(precision.images(images_BCHW))
        return right_of(logits if keep is None else _kept(logits, keep), labels_B)


@torch.no_grad()
def correct(forward: Forward, images_BCHW: Tensor, labels_B: Tensor, precision: Precision) -> Tensor:
    """Return the number of correctly classified images as a scalar on the device, without synchronizing."""
    with precision.active(images_BCHW.device):
        logits_BK = forward(precision.images(images_BCHW))
    return (logits_BK.argmax(dim=1) == labels_B).sum()


def count_correct(
    network: SwitchableNet,
    poolings: Sequence[Pooling],
    images_BCHW: Tensor,
    labels_B: Tensor,
    precision: Precision,
    keep: Callable[[Sequence[int], Tensor], None] | None = None,
) -> list[int]:
    """Return ``correct_each`` as numbers, with a single synchronization."""
    counts: list[int] = correct_each(network, poolings, images_BCHW, labels_B, precision, keep).tolist()
    return counts


def _kept(logits: Logits, keep: Callable[[Sequence[int], Tensor], None]) -> Logits:
    """Yield ``logits`` unchanged and call ``keep`` with each, so that no more than one is alive at a time."""
    for members, logits_BK in logits:
        keep(members, logits_BK)
        yield members, logits_BK


def accuracy(forward: Forward, batches: Iterable[tuple[Tensor, Tensor]], precision: Precision) -> float:
    """Return the share of correctly classified images, 0 to 1."""
    counts, total = [], 0
    for images_BCHW, labels_B in batches:
        counts.append(correct(forward, images_BCHW, labels_B, precision))
        total += len(labels_B)
    return int(torch.stack(counts).sum()) / total
