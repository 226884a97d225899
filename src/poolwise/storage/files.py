"""Files that are written whole or not at all, and one process at a time in a folder."""

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
PART = ".part"  # ends the name of a file that is still being written


@contextlib.contextmanager
def writing(path: Path, run: Path | None = None) -> Iterator[None]:
    """Turns a failing write into one clear line; ``run`` is the run folder that the file belongs to."""
    try:
        yield
    except Timeout:  # of a lock, told of where it was asked for
        raise
    except OSError as error:
        folder, again = run or path.parent, "the same command again"
        if not os.path.isdir(folder) and not isinstance(error, PermissionError):
            again = f"poolwise resume {folder}" if run else again
            raise RunFailure(
                f"{folder} is gone: it was deleted or moved while it was worked on; bring it back, then: {again}"
            ) from error
        if run and os.path.exists(run / "run.json"):
            again = f"poolwise resume {run}"
        reason = error.strerror or str(error)
        raise RunFailure(f"cannot write {path}: {reason}; free or choose another place, then: {again}") from error


def sync_folder(path: Path) -> None:
    """Make the names in a folder last, where the system can: a rename alone may be forgotten when power fails."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """A folder and those above it, lasting."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for one in missing:
        sync_folder(one.parent)


def replace_file(path: Path, payload: bytes, *, sync: bool = True) -> None:
    """Write all or nothing: temporary file beside the target, fsync, rename, fsync of the folder. Raises OSError."""
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
    """Write all or nothing, lasting. Raises RunFailure (disk full, no permission)."""
    with writing(path):
        make_folder(path.parent)
        replace_file(path, data.encode() if isinstance(data, str) else data)


def check_format(value: Any, what: object) -> None:
    """RequestError where a file's format number is not one that this version knows."""
    if value == FORMAT and not isinstance(value, bool):
        return
    newer = isinstance(value, int) and value > FORMAT
    advice = "a newer version wrote it: pip install --upgrade poolwise" if newer else "it is damaged or of another kind"
    raise RequestError(f"{what} has format {value!r}: this version of poolwise reads format {FORMAT}; {advice}")


def parse_file(data: bytes, path: Path) -> dict[str, Any]:
    """A JSON object with a format number that this version knows, bounded. Raises RequestError for anything else."""
    value = parse_json(data, str(path))
    what = visible(str(path))
    check_format(value.get("format") if isinstance(value, dict) else None, what)
    return value


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object with a format number that this version knows, bounded. Raises RequestError for anything else."""
    try:
        return parse_file(read_bytes(path, JSON_BYTES), path)
    except FileNotFoundError:
        raise RequestError(f"{path} does not exist") from None


def checked(value: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the content of a JSON file if the schema of its name accepts it. Raises RequestError otherwise.

    A file whose name has no schema is accepted.
    """
    if path.name in FILES:
        validate(FILES[path.name], value, f"{path}: ")
    return value


def read_checked(path: Path) -> dict[str, Any]:
    """Read a JSON file and validate it by the schema of its name. Raises RequestError as ``read_json`` and ``checked``."""
    return checked(read_json(path), path)


def to_json(value: dict[str, Any]) -> bytes:
    """A JSON file's content."""
    return (json_text(value) + "\n").encode()


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """No other process works on a folder. RequestError, naming the other, where one does; one that died holds nothing."""
    lock, holder = FileLock(folder / "run.lock"), folder / "holder.json"
    try:
        with writing(folder / "run.lock", folder):
            lock.acquire(timeout=0)
    except Timeout:
        who = "another process"
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RequestError):
            who = f"process {int(parse_json(read_bytes(holder, 4096), 'holder')['process'])}"
        raise RequestError(
            f"{folder} is being worked on by {who}: wait until it is done, or stop it and try again"
        ) from None
    try:
        with writing(holder, folder):
            replace_file(holder, json.dumps({"format": FORMAT, "process": os.getpid()}).encode(), sync=False)
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink(missing_ok=True)
        lock.release()
