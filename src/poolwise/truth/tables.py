"""Tabular benchmarks: the accuracy of every configuration of a space, measured once, to be looked up for ever."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib import resources

from poolwise.errors import RequestError, did_you_mean
from poolwise.space import Pooling, PoolingSpace

_FILES = {"resnet20-cifar10-published": ("resnet20_cifar10_published.csv", PoolingSpace(10, 2))}


@dataclass(frozen=True)
class Table:
    """Columns aligned with the space: entry i belongs to ``space[i]``. Accuracies are in percent."""

    name: str
    space: PoolingSpace
    values: dict[str, list[float]]

    @property
    def columns(self) -> list[str]:
        return list(self.values)

    def column(self, name: str) -> list[float]:
        """All values of one column in the order of the space."""
        if name not in self.values:
            raise RequestError(
                f"table {self.name} has no column {name!r}{did_you_mean(name, self.values)}. Columns: {', '.join(self.columns)}"
            )
        return self.values[name]


def names() -> list[str]:
    """Tables that come in the package."""
    return sorted(_FILES)


def load(name: str) -> Table:
    """``resnet20-cifar10-published``: the 36 x 10 figures of Javan, Toews, Pedersoli (arXiv 2306.11982)."""
    if name not in _FILES:
        raise RequestError(f"unknown table {name!r}{did_you_mean(name, _FILES)}. Known tables: {', '.join(names())}")
    file, space = _FILES[name]
    with resources.files("poolwise.truth").joinpath(file).open() as handle:
        rows = {Pooling.parse(row.pop("pooling")): row for row in csv.DictReader(handle)}
    ordered = [rows[pooling] for pooling in space]
    return Table(name, space, {column: [float(row[column]) for row in ordered] for column in ordered[0]})
