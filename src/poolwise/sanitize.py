"""What comes from outside stays plain text: shown with nothing hidden, written into csv as no formula, read within bounds."""

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

JSON_BYTES = 256 * 2**20  # the ranking of 20,000 configurations takes a tenth
JSON_DEPTH = 64  # poolwise writes fewer than ten
TABLE_BYTES = 64 * 2**20
HEADER_BYTES = 64 * 2**20  # of a safetensors file: names, shapes and metadata

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def visible(text: str, keep: str = "") -> str:
    """Text of any origin as a person may see it: control, bidirectional and invisible characters as escapes.

    ``keep`` are characters that pass all the same, like a line break.
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def json_text(value: Any) -> str:
    """Indented JSON, readable but for what ``visible`` would escape, which is escaped as JSON has it: the same value."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c == "\n" or c.isprintable() else _json_escape(c) for c in text)


def _json_escape(character: str) -> str:
    return json.dumps(character)[1:-1] if ord(character) > 0x7F else f"\\u{ord(character):04x}"


def csv_text(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """The one way that csv is written: ``visible`` text, and none that a spreadsheet would take for a formula.

    Text that begins like one (``= + - @``, tab, carriage return) and is no number gets an apostrophe before it.
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
    """JSON of bounded size and depth. RequestError naming ``what`` otherwise."""
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
    raise RequestError(f"{what} is nested more than {JSON_DEPTH} deep: it was not written by poolwise")


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return [inner for inner in value.values() if isinstance(inner, (dict, list))]
    return [inner for inner in value if isinstance(inner, (dict, list))] if isinstance(value, list) else ()


def read_bytes(path: Path, limit: int, regular: bool = True) -> bytes:
    """A file of at most ``limit`` bytes, by default a regular one.

    FileNotFoundError where there is none, RequestError for anything else.
    """
    name = visible(str(path))
    try:
        if regular and not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device may never end
            raise RequestError(f"{name} is no regular file")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # a ValueError: a path with a null character
        raise RequestError(f"{name} cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if len(data) > limit:
        raise RequestError(f"{name} has more than {limit // 2**20} MiB: it was not written by poolwise")
    return data


def check_header(path: Path) -> None:
    """RequestError where a safetensors file claims a header that is larger than the file, or than any that poolwise writes."""
    with path.open("rb") as file:
        first = file.read(8)
    length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
    if not 2 <= length <= min(HEADER_BYTES, path.stat().st_size - 8):
        raise RequestError(f"{path} is damaged: its header claims {length} bytes")


def check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """RequestError where an SQLite file holds anything but plain tables: views, triggers and computed columns carry out SQL."""
    connection.execute("PRAGMA trusted_schema=OFF")
    for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall():
        plain = kind == "index" or (kind == "table" and str(sql).upper().startswith("CREATE TABLE"))
        if not plain or any(row[6] for row in connection.execute("SELECT * FROM pragma_table_xinfo(?)", (name,))):
            raise RequestError(f"{path} is damaged: it holds {kind} {name!r}, and plain tables are allowed")


@contextlib.contextmanager
def reading(what: str, remedy: str = "") -> Iterator[None]:
    """Whatever a damaged value makes of the code that takes it up becomes one clear line that names ``what``."""
    try:
        yield
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError, AssertionError) as error:
        told = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        raise RequestError(f"{what} is damaged ({told})" + (f": {remedy}" if remedy else "")) from error
