"""``events.jsonl``: one JSON object per line, each with a checksum. The first line holds the format number."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

from poolwise.errors import RequestError
from poolwise.sanitize import JSON_BYTES, parse_json, read_bytes
from poolwise.storage.files import FORMAT, check_format, replace_file, sync_folder, writing

NAME = "events.jsonl"
_LOG = "log"  # the event kind of the first line


class Events:
    """The event log of one run folder."""

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / NAME

    def log(self, event: dict[str, Any]) -> None:
        """Append one event."""
        with writing(self.path, self.folder), self.path.open("ab") as file:
            if file.tell() == 0:
                file.write(_line({"event": _LOG, "format": FORMAT}))
            file.write(_line(event))

    def sync(self) -> None:
        """Flush the logged events to disk (fsync)."""
        if self.path.exists():
            with writing(self.path, self.folder), self.path.open("rb") as file:
                os.fsync(file.fileno())
                sync_folder(self.folder)

    def of(self, kind: str, checked: bool) -> list[dict[str, Any]]:
        """Return the valid events of one kind in order. With ``checked``, a line without a checksum is invalid."""
        return [event for event in self._sound(checked) if event.get("event") == kind]

    def forget(self, kind: str, from_step: int) -> None:
        """Drop events of one kind whose step is at least ``from_step``."""
        if self.path.exists():
            kept = [e for e in self._sound(False) if e.get("event") != kind or e["step"] < from_step]
            self._write(kept)

    def adopt(self) -> None:
        """Add checksums to a log that was written by a version without them."""
        if self.path.exists():
            self._write(self._sound(False))

    def mend(self, checked: bool) -> list[tuple[int, str]]:
        """Remove invalid lines.

        Returns at most one pair: the number of removed lines, without an incomplete last line, and the file's path.
        """
        lines = self._lines()
        sound = self._sound(checked)
        if len(sound) == len([line for line in lines if line]):
            return []
        number, cut = len([line for line in lines if line]) - len(sound), bool(lines and lines[-1])
        self._write(sound)
        return [(number - cut, str(self.path))] if number > cut else []

    def _lines(self) -> list[bytes]:
        return read_bytes(self.path, JSON_BYTES).split(b"\n") if self.path.exists() else []

    def _sound(self, checked: bool) -> list[dict[str, Any]]:
        events = []
        for line in self._lines():
            event = _event(line, checked)
            if event is not None:
                if event.get("event") == _LOG:
                    check_format(event.get("format"), self.path)
                events.append(event)
        return events

    def _write(self, events: list[dict[str, Any]]) -> None:
        head = {"event": _LOG, "format": FORMAT}
        lines = [_line(event) for event in (head, *(e for e in events if e.get("event") != _LOG))]
        with writing(self.path, self.folder):
            replace_file(self.path, b"".join(lines))


def _line(event: dict[str, Any]) -> bytes:
    return (json.dumps({**event, "check": _check(event)}) + "\n").encode()


def _check(event: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(event).encode())


def _event(line: bytes, checked: bool) -> dict[str, Any] | None:
    """Return the event of a line, or None if the line is damaged."""
    try:
        event = parse_json(line, NAME)
    except RequestError:
        return None
    if not isinstance(event, dict):
        return None
    check = event.pop("check", None)
    if check is None:
        return None if checked else event
    return event if check == _check(event) else None
