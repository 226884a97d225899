"""What is taken out of a .tar.gz: plain files that are asked for, in memory and within bounds. Nothing is unpacked."""

from __future__ import annotations

import tarfile
from collections.abc import Collection
from pathlib import Path


def members(archive: Path, names: Collection[str], limit: int, total: int) -> dict[str, bytes]:
    """Plain files of these names, in memory; no link is followed.

    Raises ValueError where one is a link or larger than ``limit`` bytes, or where all that is stored is over ``total``;
    KeyError where one is missing; tarfile.TarError, OSError or EOFError where the archive is damaged.
    """
    found, passed = dict[str, bytes](), 0
    with tarfile.open(archive, "r:gz") as package:
        for member in package:
            passed += member.size
            if passed > total:
                raise ValueError(f"it holds more than {total // 2**20} MiB")
            if member.name not in names:
                continue
            handle = package.extractfile(member) if member.isreg() else None
            if handle is None or member.size > limit:
                raise ValueError(f"{member.name} is no plain file of at most {limit // 2**20} MiB")
            found[member.name] = handle.read()
    for name in names:
        if name not in found:
            raise KeyError(name)
    return found
