"""BatchNorm recalibration: recompute the running averages of every configuration of a SuperNet before scoring it.

Source: Yu and Huang, "Universally Slimmable Networks and Improved Training Techniques" (ICCV 2019), post-statistics.
The averages are those of ``nn.BatchNorm2d(momentum=None)`` in training mode: the mean over batches of the batch's mean
and unbiased variance. While they are collected, features are normalized by batch statistics. The input of a layer then
depends only on the layers before it, so configurations with the same prefix share its averages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from poolwise.models.supernet import SwitchableNet

Averages = tuple[Tensor, Tensor]  # mean_C, var_C
Prefix = tuple[int, ...]


class Recalibrated(SwitchableNet):
    """A view of a SuperNet with separate running averages for each prefix of depths seen while ``collecting``.

    It shares the SuperNet's weights and does not change its norms. Each prefix stores two numbers per channel.
    """

    def __init__(self, network: SwitchableNet):
        super().__init__(network.chain, network.operator)
        self._averages: dict[Prefix, list[Averages]] = {}
        self._batches = 0
        self._collecting = False

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Collect averages from one more batch. Run each prefix exactly once inside, and the same ones every time."""
        self._batches += 1
        self._collecting = True
        try:
            yield
        finally:
            self._collecting = False

    def layer(self, prefix: Sequence[int], features_BCHW: Tensor) -> Tensor:
        """Run a layer with batch statistics while ``collecting``, otherwise with the prefix's averages."""
        key = tuple(prefix)
        norms = self._norms(key)
        if self._collecting and key not in self._averages:
            self._averages[key] = [_fresh(norm, features_BCHW.device) for norm in norms]
        assert key in self._averages, f"no averages were collected for layers of depths {key}"
        share = 1.0 / self._batches if self._collecting else None
        with _using(norms, self._averages[key], share):
            return super().layer(prefix, features_BCHW)

    def _norms(self, prefix: Prefix) -> list[nn.BatchNorm2d]:
        layer = self.chain.at(len(prefix) - 1, prefix[-1])
        return [module for module in layer.modules() if isinstance(module, nn.BatchNorm2d)]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle all averages as one tensor, since each tensor sent to another process takes a file descriptor."""
        averages = [
            value_C for layer_averages in self._averages.values() for pair in layer_averages for value_C in pair
        ]
        self._flat_averages = torch.cat(averages) if averages else torch.empty(0)  # kept alive until it is opened there
        network = SwitchableNet(self.chain, self.operator)
        return _unpacked, (network, list(self._averages), self._flat_averages, self._batches)


def _unpacked(network: SwitchableNet, prefixes: Sequence[Prefix], flat: Tensor, batches: int) -> Recalibrated:
    view, start = Recalibrated(network), 0
    for prefix in prefixes:
        view._averages[prefix] = layer_averages = []
        for norm in view._norms(prefix):
            mean_C, var_C = flat[start : (start := start + 2 * norm.num_features)].split(norm.num_features)
            layer_averages.append((mean_C, var_C))
    view._batches = batches
    return view


def _fresh(norm: nn.BatchNorm2d, device: torch.device) -> Averages:
    return torch.zeros(norm.num_features, device=device), torch.ones(norm.num_features, device=device)


@contextmanager
def _using(norms: Sequence[nn.BatchNorm2d], averages: Sequence[Averages], share: float | None) -> Iterator[None]:
    """Make ``norms`` use ``averages`` inside this context.

    With a ``share``, they normalize by batch statistics and update the averages with momentum ``share``.
    """
    before = [(n.training, n.track_running_stats, n.momentum, n.running_mean, n.running_var) for n in norms]
    for norm, (mean_C, var_C) in zip(norms, averages, strict=True):
        norm.training, norm.track_running_stats = share is not None, True
        norm.running_mean, norm.running_var = mean_C, var_C
        norm.momentum = share
    try:
        yield
    finally:
        for norm, settings in zip(norms, before, strict=True):
            norm.training, norm.track_running_stats, norm.momentum, norm.running_mean, norm.running_var = settings
