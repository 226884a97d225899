"""``folder:PATH``: one subfolder a class, or ``train`` beside ``test`` or ``val`` folders of such subfolders.

Images are turned upright, resized so that the shorter side fits and cropped to the centre. With ``train``, ``val`` and
``test``, the images of ``val`` are the scoring half of a search; they are trained on only in the retraining that follows it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from poolwise.datasets.decoding import Broken, Reading, decoded
from poolwise.datasets.sources import HELD_OUT, ImageSet, Source
from poolwise.datasets.split import check_counts, stratified_halves
from poolwise.datasets.tree import Listing, Walker, listed, not_followed, shown
from poolwise.errors import RequestError
from poolwise.rng import Streams

_VAL = ("val", "valid", "validation")
_TOLD = 10


def load(path: Path, reading: Reading, seed: int, follow_links: bool = False) -> Source:
    """Read the folder. Raises RequestError where it is missing, empty, of one class, or holds broken images."""
    if not path.is_dir():
        raise RequestError(
            f"folder {shown(str(path))!r} does not exist: give one with a subfolder of images for each class"
        )
    if shown(str(path)) != str(path):
        raise RequestError(
            f"folder {shown(str(path))!r} has a name that is not UTF-8, which no file of a run can hold: rename it"
        )
    walker = Walker(path, follow_links)
    parts = _parts(path, walker)
    classes = _classes(parts["train"], walker)
    if len(parts) == 1 and "train" in {name.lower() for name in classes}:
        raise RequestError(
            f"folder {shown(str(path))!r} holds {', '.join(map(repr, map(shown, classes)))}: with a 'train' part a 'test' or"
            " 'val' part is needed beside it, spelt so; otherwise one subfolder a class"
        )
    for part, folder in parts.items():
        unknown = sorted(set(walker.folders(folder)) - set(classes))
        if unknown:
            raise RequestError(
                f"part {part!r} of folder {shown(str(path))!r} holds a class {shown(unknown[0])!r} that its training part"
                " lacks: the classes of all parts must be the same"
            )
    listing = listed(walker, parts, classes)
    return read(
        f"folder:{shown(str(path))}", listing, classes, reading, seed, parts["test"].name if "test" in parts else ""
    )


def _parts(path: Path, walker: Walker) -> dict[str, Path]:
    """Folders of classes by their use: ``train`` and, where they are set apart, ``val`` and ``test``."""
    there = walker.folders(path)
    val = [name for name in _VAL if name in there]
    if "train" not in there or not (val or "test" in there):
        return {"train": path}
    if len(val) > 1:
        raise RequestError(
            f"folder {shown(str(path))!r} holds {' and '.join(map(repr, val))}: one part of that kind is used; rename the others"
        )
    parts = {"train": path / "train"}
    if "test" in there:
        return parts | ({"val": path / val[0]} if val else {}) | {"test": path / "test"}
    return parts | {"test": path / val[0]}


def _classes(path: Path, walker: Walker) -> tuple[str, ...]:
    names = tuple(walker.folders(path))
    if not names:
        raise RequestError(
            f"folder {shown(str(path))!r} has no subfolders: one for each class is needed, with images in"
            f" it{not_followed(walker)}"
        )
    if len(names) == 1:
        raise RequestError(
            f"folder {shown(str(path))!r} holds the one class {shown(names[0])!r}: at least two are"
            f" needed{not_followed(walker)}"
        )
    return names


def read(name: str, listing: Listing, classes: tuple[str, ...], reading: Reading, seed: int, test: str) -> Source:
    """A data set from the files of a listing.

    Args:
        classes: names of the classes, in the order of the labels.
        seed: decides which images are held out where no part is the test set.
        test: what the data set calls its test part; empty where it has none.
    """
    images, broken = decoded(listing, reading)
    kept = np.delete(np.arange(len(listing)), [one.place for one in broken])
    labels, parts = listing.labels_N[kept], listing.parts_N[kept]
    everything = ImageSet(images, labels)
    scoring, told = None, tuple(map(shown, classes))
    if test:
        training, testing = np.flatnonzero(parts != "test"), np.flatnonzero(parts == "test")
        if not len(testing):
            raise RequestError(f"part {test!r} of {name} holds no image that can be read: repair it or leave it out")
        note = f"the folder's own {test} part is the test set"
        check_counts(labels[training], told, 2)
        if "val" in parts:
            scoring = np.flatnonzero(parts[training] == "val")
            note += ", its val part the scoring half"
    else:
        check_counts(labels, told, 3)
        testing, training = stratified_halves(labels, HELD_OUT, Streams(seed)["test"])
        note = f"{len(testing)} of {len(everything)} images, drawn by class, are held out as the test set"
    train = everything.subset(training)
    note += _left_out(broken, listing.links)
    skipped = tuple(one.name for one in broken)
    return Source(name, train, everything.subset(testing), told, note=note, scoring=scoring, skipped=skipped)


def _left_out(broken: list[Broken], links: int) -> str:
    text = ""
    if broken:
        names = ", ".join(repr(one.name) for one in broken[:_TOLD])
        more = f" and {len(broken) - _TOLD} more" if len(broken) > _TOLD else ""
        text += f"; images that cannot be read and were skipped: {len(broken)} ({names}{more})"
    if links:
        text += f"; links that were not followed: {links}"
    return text
