"""Tabular benchmarks: the measured stand-alone accuracy of every configuration of a space.

A table consists of ``NAME.csv`` (one row per configuration) and ``NAME.json`` (its space and how it was measured).
Tables in ``data/`` ship with the package; adding a pair of files there adds a table.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import os
import re
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from poolwise import statistics
from poolwise.errors import RequestError, did_you_mean
from poolwise.sanitize import TABLE_BYTES, csv_text, json_text, read_bytes
from poolwise.spaces import Pooling, PoolingSpace, read
from poolwise.storage import FORMAT, read_json, write_atomically
from poolwise.storage.schemas import SpaceOnly, TableFile, validate

_TRUTHS = ("mean", "standalone_mean")
_STDS = ("std", "standalone_std")


@dataclass(frozen=True)
class Table:
    """A table whose columns are aligned with its space: entry i belongs to ``space[i]``. Accuracies are in percent.

    Attributes:
        values: column name -> one value per configuration.
        about: content of the JSON file: recipe, hardware, versions, seeds, model, source.
    """

    name: str
    space: PoolingSpace
    values: dict[str, list[float]]
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        return list(self.values)

    @property
    def truth(self) -> str:
        """Name of the column with the mean stand-alone accuracies."""
        return next(name for name in _TRUTHS if name in self.values)

    @property
    def seeds(self) -> list[int]:
        """Seeds that have a column (``seed1`` and so on); empty if the table holds only means."""
        matches = (re.fullmatch(r"seed(\d+)", name) for name in self.values)
        return sorted(int(match[1]) for match in matches if match)

    def column(self, name: str) -> list[float]:
        """Return one column in the order of the space. Raises RequestError, listing the columns, if it is unknown."""
        if name not in self.values:
            raise RequestError(
                f"table {self.name} has no column {name!r}{did_you_mean(name, self.values, '.')}"
                f" Columns: {', '.join(self.columns)}"
            )
        return self.values[name]

    def query(self, pooling: Pooling | str, seed: int | None = None) -> float:
        """Return the test accuracy in percent of one stand-alone training, or the mean over seeds if ``seed`` is None.

        Raises RequestError if the configuration is not in the space or the table does not have the seed.
        """
        i = self.space.index(pooling)
        if seed is None:
            return self.values[self.truth][i]
        if seed not in self.seeds:
            have = f"seeds {', '.join(map(str, self.seeds))}" if self.seeds else "means over seeds only: omit the seed"
            raise RequestError(f"table {self.name} has no seed {seed!r}; it has {have}")
        return self.values[f"seed{seed}"][i]

    def noise(self) -> float | None:
        """Return the standard deviation between seeds in percentage points, pooled over configurations.

        Pooled means the root of the mean variance. None if the table has no standard deviations.
        """
        stds = next((self.values[name] for name in _STDS if name in self.values), None)
        return None if stds is None else float(np.sqrt(np.mean(np.square(stds))))

    def ceiling(self) -> float | None:
        """Return the Kendall tau-b between the accuracies of two seeds, averaged over pairs; None with fewer than two.

        This is the agreement that ranking by one stand-alone training per configuration reaches with another seed.
        """
        return seed_agreement([self.values[f"seed{seed}"] for seed in self.seeds])


def shape(table: Table) -> tuple[int, int]:
    """Return the image size in pixels along one side and the number of classes; defaults are those of CIFAR-10."""
    data = table.about.get("data", {})
    return int(data.get("image_size", 32)), len(data.get("classes", ())) or 10


def seed_agreement(columns: list[list[float]]) -> float | None:
    """Return the mean Kendall tau-b over pairs of columns; None with fewer than two columns."""
    taus = [statistics.kendall_tau_b(a, b) for a, b in itertools.combinations(columns, 2)]
    return float(np.mean(taus)) if taus else None


def names() -> list[str]:
    """Return the names of the tables that ship with the package, sorted."""
    files = resources.files("poolwise.storage").joinpath("data").iterdir()
    return sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json"))


def load(name: str | Path) -> Table:
    """Load a table.

    ``resnet20-cifar10-published`` holds the 36 x 10 values of Javan, Toews, Pedersoli (arXiv 2306.11982).

    Args:
        name: name of a table of the package, a folder that holds one table, or the path of a .csv or .json file.

    Raises:
        RequestError: the table does not exist, is damaged or does not cover its space.
    """
    text = str(name)
    if text in names():
        folder = resources.files("poolwise.storage").joinpath("data")
        with (
            resources.as_file(folder.joinpath(f"{text}.json")) as about,
            resources.as_file(folder.joinpath(f"{text}.csv")) as values,
        ):
            return _read(text, about, values)
    path = Path(name)
    if os.path.isdir(path):  # also False for a path that is not a valid file name
        candidates = sorted(file for file in path.glob("*.json") if file.with_suffix(".csv").exists())
        if len(candidates) != 1:
            content = f"{len(candidates)} of them, use the path of a file" if candidates else "none"
            raise RequestError(
                f"{path} must hold one table, a .csv and a .json file of the same name: it holds {content}"
            )
        path = candidates[0]
    if path.suffix in (".csv", ".json") and os.path.exists(path):
        return _read(path.stem, path.with_suffix(".json"), path.with_suffix(".csv"))
    raise RequestError(
        f"unknown table {text!r}{did_you_mean(text, names(), '.')} Known tables: {', '.join(names())}; or use the path of a table"
    )


def _read(name: str, about_path: Path, values_path: Path) -> Table:
    about = read_json(about_path)
    for schema, fault in ((SpaceOnly, "does not describe a space"), (TableFile, "is invalid JSON for a table")):
        try:
            described = validate(schema, about, f"{about_path.name}: ")
        except RequestError as error:
            raise RequestError(f"table {name} is damaged: {about_path.name} {fault} ({error})") from None
    space = described.space.to_space()
    try:
        rows = list(csv.DictReader(io.StringIO(read_bytes(values_path, TABLE_BYTES).decode()), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise RequestError(f"table {name} is damaged: {values_path} cannot be read ({error})") from None
    return Table(name, space, _aligned(name, space, rows), about)


def _aligned(name: str, space: PoolingSpace, rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Return the columns in the order of the space. Raises RequestError if the rows do not match the space exactly."""

    def damaged(what: str) -> RequestError:
        return RequestError(f"table {name} is damaged or does not match its space: {what}")

    if not rows or "pooling" not in rows[0]:
        raise damaged("it has no column 'pooling' or no rows")
    columns = [column for column in rows[0] if column != "pooling"]
    if not set(columns) & set(_TRUTHS):
        raise damaged(f"no column of mean accuracies ({' or '.join(_TRUTHS)})")
    values_by_pooling: dict[Pooling, list[float]] = {}
    for line, row in enumerate(rows, 2):
        try:
            pooling = space.parse(row["pooling"] or "")
            values = [float(row[column]) for column in columns]
        except RequestError as error:
            raise damaged(f"line {line}: {error}") from None
        except (TypeError, ValueError):
            raise damaged(f"line {line} has an entry that is not a number") from None
        if None in row or not all(map(math.isfinite, values)):
            raise damaged(f"line {line} has too many entries or one that is not finite")
        if pooling in values_by_pooling:
            raise damaged(f"line {line}: {pooling} occurs twice")
        values_by_pooling[pooling] = values
    if space.size > len(values_by_pooling):
        missing = next(
            pooling for pooling in space if pooling not in values_by_pooling
        )  # among the first len(found) + 1
        raise damaged(
            f"{space.size - len(values_by_pooling)} of {space.size} configurations are missing, among them {missing}"
        )
    return {column: [values_by_pooling[pooling][i] for pooling in space] for i, column in enumerate(columns)}


def check_name(name: str) -> str:
    """Return the name of a table if it is a portable file name. Raises RequestError otherwise."""
    if not re.fullmatch(r"[\w.-]*\w", name, flags=re.ASCII):
        raise RequestError(f"table name {name!r} is invalid: use only letters, digits, dots, dashes and underscores")
    return name


def write(directory: str | Path, name: str, measured: dict[str, Any], command: str = "") -> Path:
    """Write a table from the content of an ``exhaustive.json`` file.

    ``NAME.csv`` holds pooling, seed1 .. seedN, mean and std in percent. ``NAME.json`` holds space, model, recipe (the
    config), steps, command, hardware, versions, seeds, data, precision and threads.

    Returns:
        The path of the CSV file.

    Raises:
        RequestError: a training failed or a configuration is missing.
    """
    check_name(name)
    if measured["failed"]:
        raise RequestError(
            f"a table needs all trainings, and {len(measured['failed'])} failed: repeat them with --retry-failed"
        )
    space, seeds = read(measured["space"]), measured["seeds"]
    header = [*(f"seed{seed}" for seed in seeds), "mean", *(["std"] if len(seeds) > 1 else [])]
    rows = []
    for result in measured["results"]:
        accuracies = [*result["accuracies"], result["mean"], *([result["std"]] if len(seeds) > 1 else [])]
        cells: list[str] = [format_percent(value) for value in accuracies]
        rows.append(dict(zip(["pooling", *header], [result["pooling"], *cells], strict=True)))
    _aligned(name, space, list(rows))
    kept = ("space", "seeds", "steps", "data", "precision", "threads", "versions", "hardware")
    about = {
        "format": FORMAT,
        "name": name,
        **{key: measured[key] for key in kept if key in measured},
        "model": measured["settings"]["model"],
        "width": measured.get("width", measured["settings"]["width"]),
        "recipe": measured["settings"],
        "command": command,
        "unit": "test accuracy in percent; std with n - 1",
    }
    path = Path(directory) / f"{name}.csv"
    write_atomically(path.with_suffix(".json"), json_text(about) + "\n")
    write_atomically(path, csv_text(["pooling", *header], [list(row.values()) for row in rows]))
    return path


def format_percent(share: float) -> str:
    """Format a share (0 to 1) as percent with four decimals; two are exact for one training on 10,000 test images."""
    return f"{100 * share:.4f}"
