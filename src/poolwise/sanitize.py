"""Sanitize untrusted text and files: escape hidden characters and CSV formulas, and limit sizes when reading."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sqlite3
import stat
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from poolwise.errors import RequestError

JSON_BYTES = 256 * 2**20  # a ranking of 20,000 configurations takes a tenth of this
JSON_DEPTH = 64  # files of poolwise have fewer than ten levels
TABLE_BYTES = 64 * 2**20
HEADER_BYTES = 64 * 2**20  # of a safetensors file: names, shapes and metadata

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def visible(text: str, keep: str = "") -> str:
    """Escape control, bidirectional and invisible characters in untrusted text, except those in ``keep``."""
    if text.isprintable():
        return text
    return "".join(c if c in keep or c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def json_text(value: Any) -> str:
    """Return indented JSON, in which characters that ``visible`` would escape are JSON escapes."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c == "\n" or c.isprintable() else _json_escape(c) for c in text)


def _json_escape(character: str) -> str:
    return json.dumps(character)[1:-1] if ord(character) > 0x7F else f"\\u{ord(character):04x}"


def csv_text(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """Return CSV text with ``visible`` cells that no spreadsheet interprets as formulas.

    Text that starts like a formula (``= + - @``, tab, carriage return) and is not a number gets a leading apostrophe.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_cell(value) for value in line] for line in (header, *lines))
    return text.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.startswith(_FORMULA):
        try:
            float(value)
        except ValueError:
            value = f"'{value}"
    return visible(value)


def parse_json(data: bytes | str, what: str, limit: int = JSON_BYTES) -> Any:
    """Parse JSON of limited size and depth. Raises RequestError, which names ``what``, for anything else."""
    if len(data) > limit:
        raise RequestError(f"{what} has more than {limit // 2**20} MiB: it was not written by poolwise")
    try:
        value = json.loads(data)
    except RecursionError:
        raise RequestError(f"{what} is nested too deeply: it was not written by poolwise") from None
    except ValueError as error:
        raise RequestError(f"{what} cannot be read as JSON ({visible(str(error))})") from error
    level = [value]
    for _ in range(JSON_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise RequestError(f"{what} is nested more than {JSON_DEPTH} levels deep: it was not written by poolwise")


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return [inner for inner in value.values() if isinstance(inner, (dict, list))]
    return [inner for inner in value if isinstance(inner, (dict, list))] if isinstance(value, list) else ()


def read_bytes(path: Path, limit: int, regular: bool = True) -> bytes:
    """Read a file of at most ``limit`` bytes; with ``regular``, only a regular file.

    Raises:
        FileNotFoundError: The file does not exist.
        RequestError: The file is too large, not a regular file, or cannot be read.
    """
    name = visible(str(path))
    try:
        if regular and not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device may never end
            raise RequestError(f"{name} is not a regular file")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise RequestError(f"{name} cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if len(data) > limit:
        raise RequestError(f"{name} has more than {limit // 2**20} MiB: it was not written by poolwise")
    return data


def check_header(path: Path) -> None:
    """Raise RequestError if the header size of a safetensors file exceeds the file or HEADER_BYTES."""
    with path.open("rb") as file:
        first = file.read(8)
    length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
    if not 2 <= length <= min(HEADER_BYTES, path.stat().st_size - 8):
        raise RequestError(f"{path} is damaged: its header size is {length} bytes")


def check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Raise RequestError if an SQLite file has views, triggers or computed columns, which can run SQL code."""
    connection.execute("PRAGMA trusted_schema=OFF")
    for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall():
        plain = kind == "index" or (kind == "table" and str(sql).upper().startswith("CREATE TABLE"))
        if not plain or any(row[6] for row in connection.execute("SELECT * FROM pragma_table_xinfo(?)", (name,))):
            raise RequestError(f"{path} is damaged: it holds {kind} {name!r}, but only plain tables are allowed")


@contextlib.contextmanager
def reading(what: str, remedy: str = "") -> Iterator[None]:
    """Context manager that turns errors caused by damaged data into a RequestError that names ``what``."""
    try:
        yield
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError, AssertionError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        raise RequestError(f"{what} is damaged ({reason})" + (f": {remedy}" if remedy else "")) from error
