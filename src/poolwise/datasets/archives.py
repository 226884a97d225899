"""Read selected regular files of a .tar.gz into memory, with size limits. Nothing is extracted to disk."""

from __future__ import annotations

import tarfile
from collections.abc import Collection
from pathlib import Path


def members(archive: Path, names: Collection[str], limit: int, total: int) -> dict[str, bytes]:
    """Return the contents of the named regular files. Links are not followed.

    Args:
        archive: the .tar.gz file.
        names: members to read.
        limit: maximum size of each of them, in bytes.
        total: maximum size of all members of the archive, in bytes.

    Raises:
        ValueError: a file is a link or exceeds ``limit``, or the archive exceeds ``total``.
        KeyError: a file is missing.
        tarfile.TarError, OSError, EOFError: the archive is damaged.
    """
    contents, bytes_seen = dict[str, bytes](), 0
    with tarfile.open(archive, "r:gz") as package:
        for member in package:
            bytes_seen += member.size
            if bytes_seen > total:
                raise ValueError(f"it contains more than {total // 2**20} MiB")
            if member.name not in names:
                continue
            handle = package.extractfile(member) if member.isreg() else None
            if handle is None or member.size > limit:
                raise ValueError(f"{member.name} is not a regular file of at most {limit // 2**20} MiB")
            contents[member.name] = handle.read()
    for name in names:
        if name not in contents:
            raise KeyError(name)
    return contents
