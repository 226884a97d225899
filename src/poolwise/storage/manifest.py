"""``manifest.json``: SHA-256 and size of every file of a run, to detect damaged, swapped or missing files.

The manifest is updated before a file is written and lists both the old and the new content. A run that is killed in
between is therefore valid either way.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from poolwise.errors import RequestError
from poolwise.sanitize import JSON_BYTES, read_bytes
from poolwise.storage.files import FORMAT, check_format, parse_file, replace_file, to_json, writing
from poolwise.storage.schemas import ManifestFile, validate

NAME = "manifest.json"
_KEPT = 3  # accepted contents per file: the new one, the one before, and one more in case a write was killed


class Print(NamedTuple):
    """Fingerprint of a file's content."""

    sha256: str
    size: int

    @classmethod
    def of(cls, data: bytes) -> Print:
        return cls(hashlib.sha256(data).hexdigest(), len(data))

    @classmethod
    def of_file(cls, path: Path) -> Print | None:
        """Return the fingerprint of a file, or None if it does not exist or cannot be read."""
        digest, size = hashlib.sha256(), 0
        try:
            with path.open("rb") as file:
                while block := file.read(2**22):
                    digest.update(block)
                    size += len(block)
        except OSError:
            return None
        return cls(digest.hexdigest(), size)


class Manifest:
    """The manifest of one run folder. Every call reads the file, because worker processes write it too.

    The file holds ``run``, a unique identifier of the run, and ``files``, which maps each file name to the
    fingerprints of its valid contents, newest first.
    """

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / NAME

    @property
    def exists(self) -> bool:
        return self.path.exists()

    def create(self, files: dict[str, Print], run: str | None = None) -> None:
        """Create the manifest from the fingerprints of the current files."""
        self._write(run or uuid.uuid4().hex, {name: [fingerprint] for name, fingerprint in files.items()})

    def read(self) -> tuple[str, dict[str, list[Print]]]:
        """Return (run, files), or ("", {}) if there is no manifest. Raises RequestError if it is damaged."""
        try:
            data = read_bytes(self.path, JSON_BYTES)
        except FileNotFoundError:
            return "", {}
        try:
            value = parse_file(data, self.path)
            manifest = validate(ManifestFile, value, f"{self.path}: ")
        except RequestError as error:
            with contextlib.suppress(ValueError, RecursionError):
                content = json.loads(data)
                check_format(content.get("format", FORMAT) if isinstance(content, dict) else FORMAT, self.path)
            raise RequestError(self._damaged()) from error
        if manifest.sha256 != _digest(manifest.run, value["files"]):
            raise RequestError(self._damaged())
        files = {name: [Print(one.sha256, one.size) for one in kept] for name, kept in manifest.files.items()}
        return manifest.run, files

    def _damaged(self) -> str:
        return f"{self.path} is damaged: remove it, then: poolwise resume {self.folder} (its files are then accepted unchecked)"

    @contextlib.contextmanager
    def changing(self) -> Iterator[dict[str, list[Print]]]:
        """Yield the mutable ``files`` under an inter-process lock, and write them on exit."""
        with writing(self.path, self.folder):
            self.folder.stat()  # fails if the folder does not exist; FileLock would create it again
        with writing(self.path, self.folder), FileLock(self.folder / "manifest.lock"):
            run, files = self.read()
            yield files
            self._write(run, files)

    def expect(self, contents: dict[str, Print]) -> None:
        """Add the fingerprints of contents that are about to be written."""
        with self.changing() as files:
            for name, content in contents.items():
                known = [one for one in files.get(name, []) if one != content]
                files[name] = [content, *known][:_KEPT]

    def _write(self, run: str, files: dict[str, list[Print]]) -> None:
        plain = {name: [one._asdict() for one in files[name]] for name in sorted(files)}
        value: dict[str, Any] = {"format": FORMAT, "run": run, "files": plain, "sha256": _digest(run, plain)}
        with writing(self.path, self.folder):
            replace_file(self.path, to_json(value))


def _digest(run: str, files: Any) -> str:
    return hashlib.sha256(json.dumps([run, files], sort_keys=True).encode()).hexdigest()
