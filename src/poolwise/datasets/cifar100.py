"""CIFAR-100 with its 100 fine classes, from torchvision's files; there is no other source."""

from __future__ import annotations

from typing import Any

import numpy as np

from poolwise.datasets import official
from poolwise.datasets.python_batch import class_names, python_batch
from poolwise.datasets.sources import ImageSet, Source
from poolwise.errors import RunFailure

_LABELS = b"fine_labels"


def load() -> Source:
    """Load CIFAR-100. Raises RunFailure if it is not on disk and cannot be downloaded."""
    from torchvision.datasets import CIFAR100

    return source_of(CIFAR100)


def source_of(kind: type[Any]) -> Source:
    """Load the data set of torchvision's CIFAR100 class, or of a class with the same attributes and other checksums."""
    lists = {"train": kind.train_list, "test": kind.test_list}
    sums = {name: md5 for listed in lists.values() for name, md5 in listed}
    sums[kind.meta["filename"]] = kind.meta["md5"]
    try:
        files = official.cifar(kind, list(sums), sums)
        classes = class_names(files[kind.meta["filename"]], kind.meta["key"].encode())
        sets = {}
        for part, listed in lists.items():
            read = [python_batch(files[name], _LABELS, len(classes)) for name, _ in listed]
            images, labels = (np.concatenate(arrays) for arrays in zip(*read, strict=True))
            sets[part] = ImageSet(images, labels.astype(np.int64))
    except (RunFailure, ValueError) as error:
        raise RunFailure(
            f"cannot load cifar100 (torchvision: {error}). Put torchvision's folder {kind.base_folder} into"
            f" {official.root()}, or set POOLWISE_TORCHVISION_DATA to the folder that contains it"
        ) from error
    return Source("cifar100", sets["train"], sets["test"], classes)
