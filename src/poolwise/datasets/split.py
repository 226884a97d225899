"""Seeded, stratified, disjoint splits, as arrays of indices (int64)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from poolwise.errors import RequestError


def stratified_halves(
    labels_N: np.ndarray, share: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Split the images, class by class, into a part of ``share`` (0 to 1) and the rest; return sorted indices of both.

    Every class has at least one image in each part, and is within one image of its share: the rounding error is carried
    to the next class, but not what the minimum of one image adds. Raises RequestError if a class has one image.
    """
    first, second = [], []
    carried = 0.0
    for label in np.unique(labels_N):
        members = generator.permutation(np.flatnonzero(labels_N == label))
        if len(members) < 2:
            raise RequestError(f"class {int(label)} has one image: at least two per class are needed for the splits")
        wanted = share * len(members) + carried
        count = min(max(round(wanted), 1), len(members) - 1)
        carried = min(max(wanted - count, -0.5), 0.5)
        first.append(members[:count])
        second.append(members[count:])
    return np.sort(np.concatenate(first)), np.sort(np.concatenate(second))


def mixed(labels_N: np.ndarray, indices: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return ``indices`` unchanged or, if they are grouped by class, shuffled, so that a batch contains all classes.

    Folders are listed class by class, and batch statistics are misleading for a batch of a single class. Indices are
    shuffled if neighbors share a class more often than expected by chance, by over three standard deviations.
    """
    labels = labels_N[indices]
    pairs = max(len(labels) - 1, 1)
    chance = float(np.sum((np.bincount(labels) / max(len(labels), 1)) ** 2))
    alike = np.count_nonzero(labels[1:] == labels[:-1]) / pairs
    if alike <= chance + 3 * np.sqrt(chance * (1 - chance) / pairs):
        return indices
    return generator.permutation(indices)


def check_counts(labels_N: np.ndarray, classes: Sequence[str], least: int) -> None:
    """Raise RequestError if a class has fewer than ``least`` images, the minimum for its splits."""
    for label, count in enumerate(np.bincount(labels_N, minlength=len(classes))):
        if count < least:
            raise RequestError(
                f"class {classes[label]!r} has {count} usable images: at least {least} are needed for the splits"
            )


def stratified_subset(labels_N: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Draw ``count`` sorted indices with the class shares of all images, at least two per class.

    Raises RequestError if ``count`` is too small for two images per class or exceeds the number of images.
    """
    classes, sizes = np.unique(labels_N, return_counts=True)
    if not 2 * len(classes) <= count <= len(labels_N):
        raise RequestError(
            f"{count} images are requested: use between {2 * len(classes)} (two per class) and {len(labels_N)} (all images)"
        )
    exact = sizes * (count / len(labels_N))
    wanted = np.maximum(np.floor(exact).astype(int), 2)
    while wanted.sum() != count:  # largest remainder first; no class drops below two
        step = 1 if wanted.sum() < count else -1
        room = (wanted < sizes) if step > 0 else (wanted > 2)
        wanted[np.argmax(np.where(room, step * (exact - wanted), -np.inf))] += step
    chosen = [
        generator.permutation(np.flatnonzero(labels_N == label))[:size]
        for label, size in zip(classes, wanted, strict=True)
    ]
    return np.sort(np.concatenate(chosen))
