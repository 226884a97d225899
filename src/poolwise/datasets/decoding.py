"""Decode image files once, with several threads, into memory or into one file of the cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from filelock import FileLock

from poolwise.datasets import picture
from poolwise.datasets.packed import Packed, sha256, store
from poolwise.datasets.tree import Listing, shown
from poolwise.errors import RequestError, RunFailure
from poolwise.storage import cache_folder

VERSION = 1  # of the decoding; increase it when the same file gives other pixels
_THREADS = 8
_AHEAD = 32  # maximum number of decoded or queued images per thread
_SPARE = 256 * 2**20  # bytes of disk to leave free
_LISTED = 10
_PROGRESS_SECONDS = 5.0  # interval between progress messages

OnProgress = Callable[[str], None]


@dataclass(frozen=True)
class Reading:
    """How image files are read.

    Attributes:
        size: pixels along one side.
        stream: ``on`` (keep pixels on disk), ``off`` (in memory) or ``auto`` (on disk if they exceed ``room``).
        cache: also cache pixels that are held in memory on disk, so that the next command need not decode (None: no).
        skip_broken: skip images that cannot be read.
        room: bytes of memory for images (None: a quarter of the free memory).
        on_progress: receives progress messages while images are decoded.
    """

    size: int
    stream: str = "auto"
    cache: bool | None = None
    skip_broken: bool = False
    room: int | None = None
    on_progress: OnProgress | None = None

    def streams(self, needed: int) -> bool:
        """Return whether ``needed`` bytes of pixels are kept on disk."""
        if self.stream != "auto":
            return self.stream == "on"
        return needed > (psutil.virtual_memory().available // 4 if self.room is None else self.room)


@dataclass(frozen=True)
class Broken:
    """A file that cannot be read: its index in the listing, its name there, and the reason."""

    place: int
    name: str
    reason: str


def decoded(listing: Listing, reading: Reading) -> tuple[np.ndarray | Packed, list[Broken]]:
    """Decode the files of a listing.

    Returns:
        images_NHWC of all readable files in order, and the broken files.

    Raises:
        RequestError: files are broken and not to be skipped, or memory or disk space is insufficient.
    """
    needed = len(listing) * reading.size**2 * 3
    streamed = reading.streams(needed)
    if streamed and reading.cache is False:
        raise RequestError(
            f"{len(listing)} images of {reading.size} pixels take {needed >> 20} MiB and must be streamed from the"
            " cache: omit --no-cache-images, or use --stream off or a smaller --image-size"
        )
    if streamed or reading.cache:
        images, broken = _through_cache(listing, reading, needed)
        return (images if streamed else images[:]), broken
    free = psutil.virtual_memory().available
    if needed > free:
        raise RequestError(
            f"{len(listing)} images of {reading.size} pixels take {needed >> 20} MiB, but only {free >> 20} MiB of memory"
            " are free: use --stream on or a smaller --image-size"
        )
    images_NHWC = np.empty((len(listing), reading.size, reading.size, 3), np.uint8)
    good, broken = 0, []
    for image in _decode(listing, reading):
        if isinstance(image, Broken):
            broken.append(image)
        else:
            images_NHWC[good] = image
            good += 1
    _check_broken(broken, len(listing), reading)
    return images_NHWC[:good], broken


def _check_broken(broken: Sequence[Broken], count: int, reading: Reading) -> None:
    if broken and not reading.skip_broken:
        examples = "; ".join(f"{one.name!r} ({one.reason})" for one in broken[:_LISTED])
        more = f" and {len(broken) - _LISTED} more" if len(broken) > _LISTED else ""
        raise RequestError(
            f"{len(broken)} of {count} images cannot be read: {examples}{more}. Repair or remove them, or use"
            " --skip-broken to skip them"
        )


def _decode(listing: Listing, reading: Reading) -> Iterator[np.ndarray | Broken]:
    """Yield the pixels of each file in order. At most ``_AHEAD`` images per thread are held at a time."""
    threads = min(_THREADS, os.cpu_count() or 1)
    last = time.monotonic()
    with picture.strict() as formats, ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[str, Future[np.ndarray]]] = deque()
        names = iter(listing.names)
        for done in range(len(listing)):
            for name in names:
                waiting.append((name, pool.submit(picture.read, listing.root / name, reading.size, formats)))
                if len(waiting) >= threads * _AHEAD:
                    break
            name, future = waiting.popleft()
            try:
                yield future.result()
            except picture.Unreadable as error:
                yield Broken(done, shown(name), str(error).replace(str(listing.root) + os.sep, ""))
            if reading.on_progress and time.monotonic() - last > _PROGRESS_SECONDS:
                last = time.monotonic()
                reading.on_progress(f"decoded {done + 1} of {len(listing)} images")


def _through_cache(listing: Listing, reading: Reading, needed: int) -> tuple[Packed, list[Broken]]:
    """Return the images from a cache file, which is created if it is missing, damaged or outdated.

    There is one cache file per folder and size; a file made from an earlier state of the folder is deleted.
    """
    where = hashlib.sha256(os.fsencode(os.path.realpath(listing.root))).hexdigest()[:16]
    folder = cache_folder() / "images" / f"{where}-{reading.size}px"
    key = _key(listing, reading.size)
    with _locked(folder):
        about = _about(folder, key)
        if about is None:
            about = _pack(folder, key, listing, reading, needed)
    broken = [Broken(*one) for one in about["broken"]]
    _check_broken(broken, len(listing), reading)
    return Packed(folder / _file(key), (reading.size, reading.size, 3), np.arange(len(listing) - len(broken))), broken


def _key(listing: Listing, size: int) -> str:
    """Return a hash of what the pixels depend on: names, sizes and mtimes of the files, image size and version."""
    digest = hashlib.sha256(json.dumps([VERSION, size]).encode())
    for name in listing.names:
        try:
            status = os.stat(listing.root / name)
        except OSError as error:
            raise RequestError(f"image {shown(name)!r} cannot be read ({error.strerror})") from error
        digest.update(os.fsencode(name) + f"\0{status.st_size} {status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _file(key: str) -> str:
    return f"{key[:16]}.rgb"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{folder}.lock")
        lock.acquire()
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def _about(folder: Path, key: str) -> dict[str, Any] | None:
    """Return the metadata of the cached pixels if they match ``key`` and their checksum, else None."""
    try:
        about = json.loads((folder / "about.json").read_text())
        if about["key"] == key and sha256(folder / _file(key)) == about["sha256"]:
            return dict(about)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _pack(folder: Path, key: str, listing: Listing, reading: Reading, needed: int) -> dict[str, Any]:
    """Decode all files into a new folder, which replaces the old one when it is complete. Returns its metadata."""
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)  # before the check of free space
    check_disk(folder.parent, needed, len(listing), reading.size)
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as temporary:
            made, broken = Path(temporary) / "new", list[Broken]()
            made.mkdir()

            def good() -> Iterator[np.ndarray]:
                for image in _decode(listing, reading):
                    if isinstance(image, Broken):
                        broken.append(image)
                    else:
                        yield image

            digest = store(good(), made / _file(key))
            about = {
                "key": key,
                "sha256": digest,
                "folder": shown(str(listing.root)),
                "broken": [astuple(one) for one in broken],
            }
            (made / "about.json").write_text(json.dumps(about, ensure_ascii=True))
            os.replace(made, folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return about


def check_disk(folder: Path, needed: int, count: int, size: int) -> None:
    """Raise RequestError if ``needed`` bytes of pixels do not fit on the disk of the cache."""
    free = shutil.disk_usage(folder).free
    if needed + _SPARE > free:
        raise RequestError(
            f"{count} images of {size} pixels take {needed >> 20} MiB in the cache {folder}, but only {free >> 20} MiB are"
            f" free ({_SPARE >> 20} MiB of them reserved): use a smaller --image-size, or set POOLWISE_CACHE to a larger disk"
        )


def cannot_write(folder: Path, error: OSError) -> RunFailure:
    return RunFailure(
        f"cannot write the cache {folder}: {error.strerror or error}; set POOLWISE_CACHE to another folder"
    )
