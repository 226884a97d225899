"""List the images of a folder of classes. No file is opened, and no link out of the folder is followed by default."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from poolwise.datasets.picture import ENDINGS
from poolwise.errors import RequestError


@dataclass
class Listing:
    """The files of a data set with their labels and parts, before any pixels are read.

    Attributes:
        root: folder that names are relative to.
        names: file names, in the order of the data set.
        labels, labels_N: class of each file.
        parts, parts_N: part of each file: ``train``, ``val`` or ``test``.
        links: number of links that were not followed.
    """

    root: Path
    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    links: int = 0

    def __len__(self) -> int:
        return len(self.names)

    @property
    def labels_N(self) -> np.ndarray:
        return np.array(self.labels, np.int64)

    @property
    def parts_N(self) -> np.ndarray:
        return np.array(self.parts)


class Walker:
    """Lists folders below ``root``, skipping hidden files and folders.

    Without ``follow``, a link is followed only if its target is within ``root`` and it is a file or a class folder.
    """

    def __init__(self, root: Path, follow: bool):
        self.root, self.follow = root, follow
        self._real = Path(os.path.realpath(root))
        self.passed_over: set[str] = set()  # links

    def folders(self, path: Path) -> list[str]:
        """Return the sorted names of the folders directly in ``path``."""
        with os.scandir(path) as entries:
            return sorted(e.name for e in entries if e.name[0] != "." and e.is_dir() and self._allowed(e))

    def images(self, path: Path) -> list[str]:
        """Return the names, relative to ``root``, of all images below ``path``, sorted by folder and name."""
        inside = os.path.realpath(path)
        return sorted(self._below(path, [inside]), key=lambda name: name.split(os.sep))

    def _below(self, path: Path, above: list[str]) -> Iterator[str]:
        with os.scandir(path) as entries:
            visible = [entry for entry in entries if entry.name[0] != "."]
        for entry in visible:
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if entry.is_symlink() and not self.follow:
                    self.passed_over.add(entry.path)
                elif real not in above:  # a link to a parent folder would recurse forever
                    yield from self._below(Path(entry.path), [*above, real])
            elif os.path.splitext(entry.name)[1].lower() in ENDINGS and entry.is_file() and self._allowed(entry):
                yield os.path.relpath(entry.path, self.root)

    def _allowed(self, entry: os.DirEntry[str]) -> bool:
        if self.follow or not entry.is_symlink():
            return True
        within = Path(os.path.realpath(entry.path)).is_relative_to(self._real)
        if not within:
            self.passed_over.add(entry.path)
        return within


def shown(name: str) -> str:
    """Return a file name as valid text: bytes that are not UTF-8 are escaped with backslashes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def listed(walker: Walker, folders: dict[str, Path], classes: tuple[str, ...]) -> Listing:
    """List all images of ``folders`` (part -> folder). Raises RequestError if a class of a part has no images."""
    listing = Listing(walker.root)
    for part, folder in folders.items():
        there, empty = set(walker.folders(folder)), []
        for label, name in enumerate(classes):
            names = walker.images(folder / name) if name in there else []
            if not names:
                empty.append(folder / name)
            listing.names += names
            listing.labels += [label] * len(names)
            listing.parts += [part] * len(names)
        if empty:
            more = f", and {len(empty) - 1} other class folders contain none either" if len(empty) > 1 else ""
            raise RequestError(
                f"folder {shown(str(empty[0]))!r} contains no images{more}: use files that end with"
                f" {', '.join(sorted(ENDINGS))}{not_followed(walker)}"
            )
    listing.links = len(walker.passed_over)
    return listing


def not_followed(walker: Walker) -> str:
    """Return a phrase for messages on links that were not followed; empty if there are none."""
    count = len(walker.passed_over)
    return f"; links that were not followed: {count} (use --follow-links to follow them)" if count else ""
