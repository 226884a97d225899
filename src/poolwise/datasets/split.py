"""Seeded, stratified, disjoint splits. Everything is an array of indices_N (int64, sorted)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from poolwise.errors import RequestError


def stratified_halves(
    labels_N: np.ndarray, share: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Split into a part of ``share`` (0 to 1) and the rest, class by class.

    Every class has at least one image in both, and is within one image of its share: what rounding leaves goes on to the next
    class, what the least of one image takes does not.
    """
    first, second = [], []
    carried = 0.0
    for label in np.unique(labels_N):
        members = generator.permutation(np.flatnonzero(labels_N == label))
        if len(members) < 2:
            raise RequestError(f"class {int(label)} has one image: at least two a class are needed to split them")
        wanted = share * len(members) + carried
        count = min(max(round(wanted), 1), len(members) - 1)
        carried = min(max(wanted - count, -0.5), 0.5)
        first.append(members[:count])
        second.append(members[count:])
    return np.sort(np.concatenate(first)), np.sort(np.concatenate(second))


def mixed(labels_N: np.ndarray, indices: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """``indices`` in an order in which a batch holds all classes: as they are, or shuffled where classes come one by one.

    Folders are listed class by class, and BatchNorm with batch statistics is blind to a class that fills a batch. Shuffled
    where neighbours are of one class more often than chance has it, by three standard deviations.
    """
    labels = labels_N[indices]
    pairs = max(len(labels) - 1, 1)
    chance = float(np.sum((np.bincount(labels) / max(len(labels), 1)) ** 2))
    alike = np.count_nonzero(labels[1:] == labels[:-1]) / pairs
    if alike <= chance + 3 * np.sqrt(chance * (1 - chance) / pairs):
        return indices
    return generator.permutation(indices)


def check_counts(labels_N: np.ndarray, classes: Sequence[str], least: int) -> None:
    """RequestError where a class has fewer than ``least`` images, which its splits need."""
    for label, count in enumerate(np.bincount(labels_N, minlength=len(classes))):
        if count < least:
            raise RequestError(
                f"class {classes[label]!r} has {count} images that can be used: at least {least} are needed to split them"
            )


def stratified_subset(labels_N: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """``count`` indices with the class shares of the whole. Raises RequestError where that leaves a class under two."""
    classes, sizes = np.unique(labels_N, return_counts=True)
    if not 2 * len(classes) <= count <= len(labels_N):
        raise RequestError(
            f"{count} images: between {2 * len(classes)} (two a class) and {len(labels_N)} (all there are) can be used"
        )
    exact = sizes * (count / len(labels_N))
    wanted = np.maximum(np.floor(exact).astype(int), 2)
    while wanted.sum() != count:  # largest remainder first; classes at their least are never taken from
        step = 1 if wanted.sum() < count else -1
        room = (wanted < sizes) if step > 0 else (wanted > 2)
        wanted[np.argmax(np.where(room, step * (exact - wanted), -np.inf))] += step
    chosen = [
        generator.permutation(np.flatnonzero(labels_N == label))[:size]
        for label, size in zip(classes, wanted, strict=True)
    ]
    return np.sort(np.concatenate(chosen))
