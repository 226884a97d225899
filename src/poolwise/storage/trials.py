"""Stand-alone trainings in an SQLite file; each row has a checksum."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from poolwise.errors import RequestError, RunFailure
from poolwise.sanitize import check_schema, parse_json
from poolwise.storage.files import FORMAT
from poolwise.storage.schemas import TrialRow, validate

_COLUMNS = "pooling, seed, budget, accuracy, curve, state, seconds, error"
LOCKED_SECONDS = 30.0  # timeout for a database that another program has locked


class Trials:
    """Stand-alone trainings in an SQLite file: one row per configuration, seed and number of steps.

    The column for optimizer steps is called ``budget``; the name is part of format 1.

    ``trials.sqlite`` holds trainings on all training images, evaluated on the test set; other files hold other kinds.
    A row whose checksum, which also covers the run and the file name, does not match is skipped.
    """

    def __init__(self, path: Path, run: str, check: bool = True):
        """Open the trials of a run.

        Args:
            path: the SQLite file, in the run folder.
            run: identifier of the run, from its manifest.
            check: whether to create missing tables and to reject a damaged file.
        """
        self.path, self._run = path, run
        if check:
            with self._connect() as connection:
                self._prepare_tables(connection)

    def _prepare_tables(self, connection: sqlite3.Connection) -> None:
        """Create the tables, or upgrade those of an earlier version. Raises if the file is damaged or too new."""
        check_schema(connection, self.path)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > FORMAT:
            raise RequestError(
                f"{self.path} has format {version}: a newer version of poolwise wrote it: pip install --upgrade poolwise"
            )
        sound = [row[0] for row in connection.execute("PRAGMA integrity_check(1)")]
        if sound != ["ok"]:
            raise sqlite3.DatabaseError(sound[0] if sound else "it cannot be read")
        if version == FORMAT:
            return
        connection.execute(
            "CREATE TABLE IF NOT EXISTS trials (pooling TEXT, seed INTEGER, budget INTEGER, accuracy REAL,"
            " curve TEXT, state TEXT, seconds REAL, error TEXT, sha256 TEXT, PRIMARY KEY (pooling, seed, budget))"
        )
        columns = {row[1] for row in connection.execute("PRAGMA table_info(trials)")}
        for column in ("error", "sha256"):  # missing in files of earlier versions
            if column not in columns:
                connection.execute(f"ALTER TABLE trials ADD COLUMN {column} TEXT")
        connection.execute("CREATE TABLE IF NOT EXISTS about (run TEXT)")
        connection.execute("INSERT INTO about VALUES (?)", (self._run,))
        for row in connection.execute(f"SELECT rowid, {_COLUMNS} FROM trials").fetchall():
            connection.execute("UPDATE trials SET sha256=? WHERE rowid=?", (self._sum(row[1:]), row[0]))
        connection.execute(f"PRAGMA user_version = {FORMAT}")

    @contextlib.contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=LOCKED_SECONDS)) as connection, connection:
                connection.execute("PRAGMA synchronous=EXTRA")  # a finished training survives a power failure
                yield connection
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> RunFailure:
        run = self.path.parent
        if not run.is_dir():
            return RunFailure(
                f"{run} no longer exists: it was deleted or moved while in use; restore it, then resume the run"
            )
        if "locked" in str(error):
            return RunFailure(f"{self.path} is locked by another program: close it, then: poolwise resume {run}")
        advice = (
            "free disk space, then" if "full" in str(error) or "I/O" in str(error) else "to keep the readable trainings"
        )
        return RunFailure(f"{self.path}: {error}; {advice}: poolwise resume {run}")

    def _sum(self, values: tuple[Any, ...]) -> str:
        return hashlib.sha256(json.dumps([self._run, self.path.name, *values]).encode()).hexdigest()[:32]

    def _rows(self, connection: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
        for row in connection.execute(f"SELECT {_COLUMNS}, sha256 FROM trials ORDER BY budget, pooling, seed"):
            if row[-1] == self._sum(row[:-1]):
                yield row[:-1]

    def accuracy(self, pooling: str, seed: int, steps: int) -> float | None:
        """Return the accuracy (0 to 1) of a finished training, or None if there is none or it was not measured.

        The file determines the images: the test set for ``trials.sqlite``, the scoring half for ``refine.sqlite``.
        """
        wanted = (pooling, seed, steps, "done")
        return next(
            (t["accuracy"] for t in self.all() if (t["pooling"], t["seed"], t["budget"], t["state"]) == wanted), None
        )

    def states(self, steps: int) -> dict[tuple[str, int], str]:
        """Return (pooling, seed) -> ``done`` or ``failed`` for all trainings of this many steps."""
        return {(t["pooling"], t["seed"]): t["state"] for t in self.all() if t["budget"] == steps}

    def record(
        self, pooling: str, seed: int, steps: int, accuracy: float | None, curve: list[Any], seconds: float
    ) -> None:
        """Store a finished training; ``accuracy`` is None if only the loss curve is needed."""
        accuracy = None if accuracy is None else float(accuracy)
        self._insert((pooling, seed, steps, accuracy, json.dumps(curve), "done", float(seconds), None))

    def record_failure(self, pooling: str, seed: int, steps: int, error: str) -> None:
        """Store a failed training with its error message."""
        self._insert((pooling, seed, steps, None, "[]", "failed", None, error))

    def _insert(self, values: tuple[Any, ...]) -> None:
        with self._connect() as connection:
            statement = f"INSERT OR REPLACE INTO trials ({_COLUMNS}, sha256) VALUES (?,?,?,?,?,?,?,?,?)"
            connection.execute(statement, (*values, self._sum(values)))

    def all(self) -> list[dict[str, Any]]:
        """Return all valid trainings, ordered by steps, configuration and seed."""
        names = _COLUMNS.split(", ")
        with self._connect() as connection:
            rows = [dict(zip(names, row, strict=True)) for row in self._rows(connection)]
        return [self._checked(row) for row in rows]

    def _checked(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return one row with its curve parsed. Raises RequestError if a value is invalid."""
        if not isinstance(row["curve"], str):
            raise RequestError(f"{self.path} is damaged: a curve is not text")
        value = {**row, "curve": parse_json(row["curve"], str(self.path))}
        validate(TrialRow, value, f"{self.path}: ")
        return value

    def stamp(self) -> str:
        """Return the identifier of the run that the file belongs to, or an empty string if it is not stored."""
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(self.path)) as connection:
            return str(connection.execute("SELECT run FROM about").fetchone()[0])
        return ""

    def repair(self, note: Callable[[str], None]) -> None:
        """Rewrite a damaged file with its valid rows. ``note`` receives a line on lost rows, to be trained again."""
        damage, kept, rows = "", [], 0
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=LOCKED_SECONDS)) as connection:
                with connection:
                    self._prepare_tables(connection)
                kept, rows = (
                    list(self._rows(connection)),
                    connection.execute("SELECT count(*) FROM trials").fetchone()[0],
                )
        except sqlite3.OperationalError as error:
            if any(word in str(error) for word in ("locked", "full", "I/O", "open")):
                raise self._failure(error) from error
            damage = str(error)
        except (sqlite3.Error, ValueError, TypeError) as error:
            damage = str(error)
        if not damage and rows == len(kept):
            return
        if damage:
            kept = self._salvaged()
        reason = damage or f"{rows - len(kept)} of {rows} trainings do not match their checksums"
        note(f"{self.path} is damaged ({reason}): {len(kept)} trainings are kept, missing ones are repeated")
        aside = self.path.with_name(f"{self.path.name}.damaged")
        os.replace(self.path, aside)
        Path(f"{self.path}-journal").unlink(missing_ok=True)
        with self._connect() as connection:
            self._prepare_tables(connection)
        for row in kept:
            self._insert(row)

    def _salvaged(self) -> list[tuple[Any, ...]]:
        """Return the valid rows of a damaged file, as far as they can be read."""
        kept = []
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(self.path)) as connection:
            connection.text_factory = lambda data: data.decode(errors="replace")
            for row in connection.execute(f"SELECT {_COLUMNS}, sha256 FROM trials NOT INDEXED"):
                if row[-1] == self._sum(row[:-1]):
                    kept.append(row[:-1])
        return kept
