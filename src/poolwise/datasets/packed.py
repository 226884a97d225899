"""Images that stay on disk: one file of raw pixels, from which batches are read by index.

The file is read, not memory-mapped: the process holds only one batch at a time, and a missing or truncated file raises
an error, whereas access to a truncated mapping would kill the process.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from poolwise.errors import RunFailure

CHUNK_BYTES = 16 * 2**20  # bytes per read in a pass over all data


class Packed:
    """images_NHWC (uint8) in a file, or a subset of them; indexed like an array by a slice or an integer array.

    Args:
        path: file with the raw bytes of all images.
        shape: height, width, channels.
        rows: indices of the images in the file, in order.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, shape: tuple[int, int, int], rows: np.ndarray):
        self.path, self._each, self.rows = path, shape, rows
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_each": self._each, "rows": self.rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], state["_each"], state["rows"])  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self), *self._each)

    @property
    def size(self) -> int:
        return len(self) * self.image_bytes

    @property
    def nbytes(self) -> int:
        return self.size

    @property
    def image_bytes(self) -> int:
        height, width, channels = self._each
        return height * width * channels

    def __getitem__(self, wanted: slice | np.ndarray) -> np.ndarray:
        """Read the images at these indices into memory. Raises RunFailure if the file is missing or truncated."""
        rows = self.rows[wanted]
        images_BHWC = np.empty((len(rows), *self._each), np.uint8)
        flat = images_BHWC.reshape(len(rows), self.image_bytes)
        with self._lock:
            try:
                self._file = self._file or self.path.open("rb", buffering=0)
                for place in np.argsort(rows, kind="stable").tolist():  # in file order
                    self._file.seek(int(rows[place]) * self.image_bytes)
                    self._fill(memoryview(flat[place]))
            except OSError as error:
                raise RunFailure(f"cannot read cached images {self.path}: {error.strerror}; {_AGAIN}") from error
        return images_BHWC

    def _fill(self, view: memoryview) -> None:
        assert self._file is not None
        while view:
            count = self._file.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise RunFailure(f"cached images {self.path} are truncated; {_AGAIN}")
            view = view[count:]

    def subset(self, indices: np.ndarray) -> Packed:
        """Return the images at ``indices`` without reading them."""
        return Packed(self.path, self._each, self.rows[indices])


_AGAIN = "run the same command again to rebuild them"


def pieces(images: np.ndarray | Packed, size: int = CHUNK_BYTES) -> list[slice]:
    """Return slices that cover all images, with about ``size`` bytes each."""
    each = max(images.nbytes // max(len(images), 1), 1)
    step = max(size // each, 1)
    return [slice(start, start + step) for start in range(0, len(images), step)]


def store(images: Iterable[np.ndarray], path: Path) -> str:
    """Write images consecutively to a file and fsync it. Returns the file's SHA-256. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for image_HWC in images:
            pixels = np.ascontiguousarray(image_HWC).data
            file.write(pixels)
            digest.update(pixels)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, reading it in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
