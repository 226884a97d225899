"""Images for all the others: what ``source`` they take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from poolwise.datasets.dataset import dataset
from poolwise.datasets.loading import load
from poolwise.datasets.sources import Source

__all__ = ["dataset", "source"]


def source(spec: str, *, augment: Callable[[Any], Any] | None = None, **reading: Any) -> Source:
    """The data set that ``Config.data`` would name, with a transform of your own.

    Args:
        spec: ``cifar10``, ``cifar100``, ``food101`` or ``folder:PATH``.
        augment: a torchvision v2 transform, or another callable on one uint8 image_CHW that gives the same shape and
            dtype. It takes the place of ``Config.augment``, sees every training image anew, and draws from torch's,
            numpy's or Python's global generators, which are put back. Worker processes need it at the top of a module.
        reading: ``image_size``, ``seed``, ``stream``, ``cache_images``, ``skip_broken``, ``follow_links`` as of
            ``images.loading.load``.
    """
    return replace(load(spec, **reading), augment=augment)
