"""Running averages of BatchNorm for every configuration of a SuperNet, made anew before it is scored.

Source: Yu and Huang, "Universally Slimmable Networks and Improved Training Techniques" (ICCV 2019), post-statistics. The
averages are those of ``nn.BatchNorm2d(momentum=None)`` in training mode: the mean over batches of the batch's mean and
unbiased variance. While they are taken, features are normalised by their batch, so what a prefix of layers sees does
not depend on what follows it, and configurations with one prefix share its averages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from poolwise.networks.switch import SwitchableNet

Averages = tuple[Tensor, Tensor]  # mean_C, var_C


class Recalibrated(SwitchableNet):
    """The weights of a SuperNet with averages of their own for each prefix of depths that was seen while ``collecting``.

    A view: the weights are the SuperNet's, whose norms are left as they were. Each prefix costs two numbers a channel.
    """

    def __init__(self, network: SwitchableNet):
        super().__init__(network.chain, network.operator)
        self._averages: dict[tuple[int, ...], list[Averages]] = {}
        self._batches = 0
        self._collecting = False

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """One batch more: each prefix that runs inside must run once, and those of all batches must be the same."""
        self._batches += 1
        self._collecting = True
        try:
            yield
        finally:
            self._collecting = False

    def layer(self, prefix: Sequence[int], features_BCHW: Tensor) -> Tensor:
        """As in ``SwitchableNet``, with batch statistics while ``collecting``, with the prefix's averages otherwise."""
        key = tuple(prefix)
        norms = [m for m in self.chain.at(len(key) - 1, key[-1]).modules() if isinstance(m, nn.BatchNorm2d)]
        if self._collecting and key not in self._averages:
            self._averages[key] = [_fresh(norm, features_BCHW.device) for norm in norms]
        assert key in self._averages, f"no averages were collected for layers of depths {key}"
        share = 1.0 / self._batches if self._collecting else None
        with _using(norms, self._averages[key], share):
            return super().layer(prefix, features_BCHW)


def _fresh(norm: nn.BatchNorm2d, device: torch.device) -> Averages:
    return torch.zeros(norm.num_features, device=device), torch.ones(norm.num_features, device=device)


@contextmanager
def _using(norms: Sequence[nn.BatchNorm2d], averages: Sequence[Averages], share: float | None) -> Iterator[None]:
    """Norms that normalise by these averages or, with a ``share``, by the batch, which moves the averages by it."""
    before = [(n.training, n.track_running_stats, n.momentum, n.running_mean, n.running_var) for n in norms]
    for norm, (mean_C, var_C) in zip(norms, averages, strict=True):
        norm.training, norm.track_running_stats = share is not None, True
        norm.running_mean, norm.running_var = mean_C, var_C
        norm.momentum = share
    try:
        yield
    finally:
        for norm, kept in zip(norms, before, strict=True):
            norm.training, norm.track_running_stats, norm.momentum, norm.running_mean, norm.running_var = kept
