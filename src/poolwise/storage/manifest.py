"""``manifest.json``: SHA-256 and size of every file of a run, so that what is damaged, swapped or missing is noticed.

It is written before the file that it speaks of and names what the file was as well as what it is to be, so that a run
killed in between is sound either way.
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
_KEPT = 3  # contents of one name that are known: what is to be, what was, and once more where a kill came between


class Print(NamedTuple):
    """What tells one file's content from another's."""

    sha256: str
    size: int

    @classmethod
    def of(cls, data: bytes) -> Print:
        return cls(hashlib.sha256(data).hexdigest(), len(data))

    @classmethod
    def of_file(cls, path: Path) -> Print | None:
        """None where there is no such file, or it cannot be read."""
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
    """The manifest of one run folder; every call reads the file, since worker processes write it as well.

    Attributes of what is read: ``run``, an identity that nothing else has, and ``files``, for each name the contents that
    are sound, the newest first.
    """

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / NAME

    @property
    def exists(self) -> bool:
        return self.path.exists()

    def create(self, files: dict[str, Print], run: str | None = None) -> None:
        """Begin a manifest with the files as they are."""
        self._write(run or uuid.uuid4().hex, {name: [own] for name, own in files.items()})

    def read(self) -> tuple[str, dict[str, list[Print]]]:
        """(run, files); ("", {}) where there is no manifest. RequestError where it is damaged."""
        try:
            data = read_bytes(self.path, JSON_BYTES)
        except FileNotFoundError:
            return "", {}
        try:
            value = parse_file(data, self.path)
            manifest = validate(ManifestFile, value, f"{self.path}: ")
        except RequestError as error:
            with contextlib.suppress(ValueError, RecursionError):
                found = json.loads(data)
                check_format(found.get("format", FORMAT) if isinstance(found, dict) else FORMAT, self.path)
            raise RequestError(self._damaged()) from error
        if manifest.sha256 != _digest(manifest.run, value["files"]):
            raise RequestError(self._damaged())
        files = {name: [Print(one.sha256, one.size) for one in kept] for name, kept in manifest.files.items()}
        return manifest.run, files

    def _damaged(self) -> str:
        return f"{self.path} is damaged: remove it, then: poolwise resume {self.folder} (its files are then taken as they are)"

    @contextlib.contextmanager
    def changing(self) -> Iterator[dict[str, list[Print]]]:
        """The files, to be changed inside and written after, by one process at a time."""
        with writing(self.path, self.folder):
            self.folder.stat()  # the lock would make a folder that is gone anew
        with writing(self.path, self.folder), FileLock(self.folder / "manifest.lock"):
            run, files = self.read()
            yield files
            self._write(run, files)

    def expect(self, contents: dict[str, Print]) -> None:
        """Files are about to be written."""
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
