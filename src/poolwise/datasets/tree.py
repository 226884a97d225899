"""Which images a folder of classes holds: nothing is opened, and no link leads out of it unless that is asked for."""

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
    """Files of a data set and what is known of each; no pixel is read yet.

    Attributes:
        root: folder that names are relative to.
        names: of files, in the order of the data set.
        labels_N, parts_N: class, and part (``train``, ``val`` or ``test``) of each.
        links: links that were not followed.
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
    """Lists folders below ``root``. Hidden files and folders are passed over.

    Without ``follow`` a link is used only where it is to a file, or is itself a class, and ends within ``root``.
    """

    def __init__(self, root: Path, follow: bool):
        self.root, self.follow = root, follow
        self._real = Path(os.path.realpath(root))
        self.passed_over: set[str] = set()  # links

    def folders(self, path: Path) -> list[str]:
        """Names of the folders directly in ``path``, sorted."""
        with os.scandir(path) as entries:
            return sorted(e.name for e in entries if e.name[0] != "." and e.is_dir() and self._allowed(e))

    def images(self, path: Path) -> list[str]:
        """Names, relative to the root, of all images below ``path``, sorted by folder and name."""
        inside = os.path.realpath(path)
        return sorted(self._below(path, [inside]), key=lambda name: name.split(os.sep))

    def _below(self, path: Path, above: list[str]) -> Iterator[str]:
        with os.scandir(path) as entries:
            found = [entry for entry in entries if entry.name[0] != "."]
        for entry in found:
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if entry.is_symlink() and not self.follow:
                    self.passed_over.add(entry.path)
                elif real not in above:  # a link back up would never end
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
    """A file name as valid text: bytes that are not UTF-8 are spelt out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def listed(walker: Walker, folders: dict[str, Path], classes: tuple[str, ...]) -> Listing:
    """All images of ``folders``, one folder a part. RequestError where a class of a part is empty."""
    found = Listing(walker.root)
    for part, folder in folders.items():
        there, empty = set(walker.folders(folder)), []
        for label, name in enumerate(classes):
            names = walker.images(folder / name) if name in there else []
            if not names:
                empty.append(folder / name)
            found.names += names
            found.labels += [label] * len(names)
            found.parts += [part] * len(names)
        if empty:
            more = f", nor do {len(empty) - 1} other classes" if len(empty) > 1 else ""
            raise RequestError(
                f"folder {shown(str(empty[0]))!r} holds no images{more}: {', '.join(sorted(ENDINGS))} are read"
                f"{not_followed(walker)}"
            )
    found.links = len(walker.passed_over)
    return found


def not_followed(walker: Walker) -> str:
    """What to say of links, where there are any."""
    count = len(walker.passed_over)
    return f"; links that were not followed: {count} (--follow-links follows them)" if count else ""
