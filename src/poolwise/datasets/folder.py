"""``folder:PATH``: one subfolder per class, or folders ``train`` and ``test`` or ``val`` with such subfolders.

Images are rotated by their EXIF orientation, resized by the shorter side and center-cropped. With ``train``, ``val``
and ``test``, the images of ``val`` are the scoring half of a search; only the later retraining trains on them.
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
_LISTED = 10


def load(path: Path, reading: Reading, seed: int, follow_links: bool = False) -> Source:
    """Load a data set from a folder.

    Args:
        path: the folder.
        reading: how image files are read.
        seed: determines the held-out images if there is no test part.
        follow_links: whether to follow links that lead out of the folder, and links to folders within a class.

    Raises:
        RequestError: the folder is missing or empty, has one class only, or has broken images that are not skipped.
    """
    if not path.is_dir():
        raise RequestError(
            f"folder {shown(str(path))!r} does not exist: use a folder with one subfolder of images per class"
        )
    if shown(str(path)) != str(path):
        raise RequestError(
            f"folder {shown(str(path))!r} has a name that is not valid UTF-8 and cannot be recorded: rename it"
        )
    walker = Walker(path, follow_links)
    parts = _parts(path, walker)
    classes = _classes(parts["train"], walker)
    if len(parts) == 1 and "train" in {name.lower() for name in classes}:
        raise RequestError(
            f"folder {shown(str(path))!r} contains {', '.join(map(repr, map(shown, classes)))}: a 'train' part requires a"
            " part named 'test' or 'val' (lower case); otherwise use one subfolder per class"
        )
    for part, folder in parts.items():
        unknown = sorted(set(walker.folders(folder)) - set(classes))
        if unknown:
            raise RequestError(
                f"part {part!r} of folder {shown(str(path))!r} contains a class {shown(unknown[0])!r} that its training"
                " part lacks: all parts must have the same classes"
            )
    listing = listed(walker, parts, classes)
    return read(
        f"folder:{shown(str(path))}", listing, classes, reading, seed, parts["test"].name if "test" in parts else ""
    )


def _parts(path: Path, walker: Walker) -> dict[str, Path]:
    """Return part -> folder of classes: ``train`` and, if the data set has such parts, ``val`` and ``test``."""
    there = walker.folders(path)
    val = [name for name in _VAL if name in there]
    if "train" not in there or not (val or "test" in there):
        return {"train": path}
    if len(val) > 1:
        raise RequestError(
            f"folder {shown(str(path))!r} contains {' and '.join(map(repr, val))}: keep one validation part and rename the others"
        )
    parts = {"train": path / "train"}
    if "test" in there:
        return parts | ({"val": path / val[0]} if val else {}) | {"test": path / "test"}
    return parts | {"test": path / val[0]}


def _classes(path: Path, walker: Walker) -> tuple[str, ...]:
    names = tuple(walker.folders(path))
    if not names:
        raise RequestError(
            f"folder {shown(str(path))!r} has no subfolders: use one subfolder of images per"
            f" class{not_followed(walker)}"
        )
    if len(names) == 1:
        raise RequestError(
            f"folder {shown(str(path))!r} contains one class, {shown(names[0])!r}: at least two are"
            f" needed{not_followed(walker)}"
        )
    return names


def read(name: str, listing: Listing, classes: tuple[str, ...], reading: Reading, seed: int, test: str) -> Source:
    """Load a data set from the files of a listing.

    Args:
        name: name of the data set.
        listing: files with their labels and parts.
        classes: names of the classes, in the order of the labels.
        reading: how image files are read.
        seed: determines the held-out images if there is no test part.
        test: the data set's name for its test part; empty if it has none.
    """
    images, broken = decoded(listing, reading)
    kept = np.delete(np.arange(len(listing)), [one.place for one in broken])
    labels, parts = listing.labels_N[kept], listing.parts_N[kept]
    everything = ImageSet(images, labels)
    scoring, class_names = None, tuple(map(shown, classes))
    if test:
        training, testing = np.flatnonzero(parts != "test"), np.flatnonzero(parts == "test")
        if not len(testing):
            raise RequestError(f"part {test!r} of {name} contains no readable image: repair or remove it")
        note = f"the test set is the folder's {test} part"
        check_counts(labels[training], class_names, 2)
        if "val" in parts:
            scoring = np.flatnonzero(parts[training] == "val")
            note += ", the scoring half is its val part"
    else:
        check_counts(labels, class_names, 3)
        testing, training = stratified_halves(labels, HELD_OUT, Streams(seed)["test"])
        note = f"{len(testing)} of {len(everything)} images, stratified by class, are held out as the test set"
    train = everything.subset(training)
    note += _left_out(broken, listing.links)
    skipped = tuple(one.name for one in broken)
    return Source(name, train, everything.subset(testing), class_names, note=note, scoring=scoring, skipped=skipped)


def _left_out(broken: list[Broken], links: int) -> str:
    text = ""
    if broken:
        names = ", ".join(repr(one.name) for one in broken[:_LISTED])
        more = f" and {len(broken) - _LISTED} more" if len(broken) > _LISTED else ""
        text += f"; unreadable images that were skipped: {len(broken)} ({names}{more})"
    if links:
        text += f"; links that were not followed: {links}"
    return text
