"""Atomic file writes, and a lock that gives one process exclusive use of a folder."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from poolwise.errors import RequestError, RunFailure
from poolwise.sanitize import JSON_BYTES, json_text, parse_json, read_bytes, visible
from poolwise.storage.schemas import FILES, validate

FORMAT = 1
PART = ".part"  # suffix of temporary files


@contextlib.contextmanager
def writing(path: Path, run: Path | None = None) -> Iterator[None]:
    """Convert an OSError inside the context to a RunFailure with a one-line message.

    Args:
        path: the file that is written.
        run: the run folder that it belongs to, if any.
    """
    try:
        yield
    except Timeout:  # an OSError too, but the code that requests the lock handles it
        raise
    except OSError as error:
        folder, again = run or path.parent, "run the same command again"
        if not os.path.isdir(folder) and not isinstance(error, PermissionError):
            again = f"poolwise resume {folder}" if run else again
            raise RunFailure(
                f"{folder} no longer exists: it was deleted or moved while in use; restore it, then: {again}"
            ) from error
        if run and os.path.exists(run / "run.json"):
            again = f"poolwise resume {run}"
        reason = error.strerror or str(error)
        raise RunFailure(
            f"cannot write {path}: {reason}; free disk space or use another folder, then: {again}"
        ) from error


def sync_folder(path: Path) -> None:
    """Fsync a folder (POSIX only): without it, a rename may be lost on power failure."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents, and fsync their entries."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for one in missing:
        sync_folder(one.parent)


def replace_file(path: Path, payload: bytes, *, sync: bool = True) -> None:
    """Write a file atomically: temporary file in its folder, fsync, rename, fsync of the folder. Raises OSError."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=PART)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        if sync:
            sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file atomically and durably, creating its folder. Raises RunFailure (disk full, no permission)."""
    with writing(path):
        make_folder(path.parent)
        replace_file(path, data.encode() if isinstance(data, str) else data)


def check_format(value: Any, what: object) -> None:
    """Raise RequestError if this version does not support a file's format number."""
    if value == FORMAT and not isinstance(value, bool):
        return
    newer = isinstance(value, int) and value > FORMAT
    advice = (
        "a newer version wrote it: pip install --upgrade poolwise"
        if newer
        else "it is damaged or not a file of poolwise"
    )
    raise RequestError(f"{what} has format {value!r}: this version of poolwise reads format {FORMAT}; {advice}")


def parse_file(data: bytes, path: Path) -> dict[str, Any]:
    """Parse a JSON object of bounded size with a supported format number. Raises RequestError for anything else."""
    value = parse_json(data, str(path))
    what = visible(str(path))
    check_format(value.get("format") if isinstance(value, dict) else None, what)
    return value


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file as ``parse_file`` does. Raises RequestError if it is invalid or does not exist."""
    try:
        return parse_file(read_bytes(path, JSON_BYTES), path)
    except FileNotFoundError:
        raise RequestError(f"{path} does not exist") from None


def checked(value: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return ``value`` if the schema for the file's name accepts it. Raises RequestError otherwise.

    A file whose name has no schema is accepted.
    """
    if path.name in FILES:
        validate(FILES[path.name], value, f"{path}: ")
    return value


def read_checked(path: Path) -> dict[str, Any]:
    """Read a JSON file and validate it by the schema for its name. Raises RequestError if it is missing or invalid."""
    return checked(read_json(path), path)


def to_json(value: dict[str, Any]) -> bytes:
    """Encode a value as the content of a JSON file."""
    return (json_text(value) + "\n").encode()


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder. The operating system releases the lock of a process that dies.

    Raises:
        RequestError: another process holds the lock; the message names that process.
    """
    lock, holder = FileLock(folder / "run.lock"), folder / "holder.json"
    try:
        with writing(folder / "run.lock", folder):
            lock.acquire(timeout=0)
    except Timeout:
        who = "another process"
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RequestError):
            who = f"process {int(parse_json(read_bytes(holder, 4096), 'holder')['process'])}"
        raise RequestError(f"{folder} is in use by {who}: wait until it ends, or stop it and try again") from None
    try:
        with writing(holder, folder):
            replace_file(holder, json.dumps({"format": FORMAT, "process": os.getpid()}).encode(), sync=False)
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink(missing_ok=True)
        lock.release()
