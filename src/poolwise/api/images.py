"""Load images for the ``source`` argument of other functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from poolwise.datasets.dataset import dataset
from poolwise.datasets.loading import load
from poolwise.datasets.sources import Source

__all__ = ["dataset", "source"]


def source(spec: str, *, augment: Callable[[Any], Any] | None = None, **reading: Any) -> Source:
    """Load a data set by name, with a custom transform.

    Args:
        spec: ``cifar10``, ``cifar100``, ``food101`` or ``folder:PATH``.
        augment: A torchvision v2 transform, or another callable that maps one uint8 image_CHW to the same shape and
            dtype. It replaces the ``augment`` setting and runs each time a training image is used. It may draw from the
            global generators of torch, NumPy or Python, whose states are restored afterwards. For use in worker
            processes, define it at the top level of a module.
        reading: Other arguments of ``poolwise.datasets.loading.load``: ``image_size``, ``seed``, ``stream``,
            ``cache_images``, ``skip_broken``, ``follow_links``.
    """
    return replace(load(spec, **reading), augment=augment)
