"""Data sets in torchvision's file layout. The CIFAR batches are pickles; this module returns their bytes unparsed."""

from __future__ import annotations

import hashlib
import os
import tarfile
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from typing import Any

from poolwise.datasets.archives import members
from poolwise.errors import RunFailure
from poolwise.sanitize import read_bytes
from poolwise.storage import cache_folder

_ANSWER_SECONDS = 5
_FILE_BYTES = 256 * 2**20
_ARCHIVE_BYTES = 512 * 2**20


def root() -> Path:
    """Return the folder of torchvision's files: ``POOLWISE_TORCHVISION_DATA``, or a folder of the cache."""
    return Path(os.environ.get("POOLWISE_TORCHVISION_DATA") or cache_folder() / "torchvision")


def cifar(kind: type[Any], names: list[str], sums: dict[str, str] | None = None) -> dict[str, bytes]:
    """Read files of one of torchvision's CIFAR classes, from its folder or its archive, without extracting the archive.

    If both are missing, the archive is downloaded, unless the host does not answer within a few seconds.

    Args:
        kind: torchvision's class.
        names: files to read.
        sums: file name -> required MD5.

    Returns:
        File name -> content.

    Raises:
        RunFailure: the files are missing, damaged or cannot be downloaded.
    """
    folder, archive = root() / kind.base_folder, root() / kind.filename
    if not folder.is_dir() and not archive.is_file():
        _download(kind, archive)
    try:
        if folder.is_dir():
            read = {name: read_bytes(folder / name, _FILE_BYTES) for name in names}
        else:
            paths = {f"{kind.base_folder}/{name}": name for name in names}
            read = {paths[path]: data for path, data in members(archive, paths, _FILE_BYTES, _ARCHIVE_BYTES).items()}
    except (OSError, tarfile.TarError, zlib.error, EOFError, KeyError, ValueError) as error:
        raise RunFailure(f"the batches in {root()} cannot be read ({error})") from error
    for name, expected in (sums or {}).items():
        if hashlib.md5(read[name], usedforsecurity=False).hexdigest() != expected:
            raise RunFailure(f"{name} in {root()} is corrupted: its MD5 differs from the official one")
    return read


def _download(kind: type[Any], archive: Path) -> None:
    from torchvision.datasets.utils import download_url

    try:
        ask(kind.url)
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", error)
        raise RunFailure(f"it is not in {archive.parent}, and its host does not respond ({reason})") from error
    try:
        download_url(kind.url, archive.parent, archive.name, kind.tgz_md5)
    except (OSError, RuntimeError) as error:
        raise RunFailure(f"the download to {archive} failed ({error})") from error


def ask(url: str) -> None:
    """Send a HEAD request. Raises OSError if there is no answer within seconds (HTTPError for an error status)."""
    with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_ANSWER_SECONDS):
        pass
