"""Collect the rankings of a comparison, evaluate them against a table, and write the result files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from poolwise.benchmarks.compare.judge import TESTED, Entry, anytime, judge, measures, pairs, summary
from poolwise.config import Config, preset
from poolwise.errors import RequestError, did_you_mean
from poolwise.experiment import Experiment, resolve
from poolwise.models import family
from poolwise.models.cost import table_costs
from poolwise.models.external import networks
from poolwise.rankings import baselines
from poolwise.sanitize import csv_text, json_text
from poolwise.storage import FORMAT, command_line, environment, write_atomically
from poolwise.storage.schemas import CompareFile, StudyFile
from poolwise.storage.tables import Table


def check_model(table: Table, model: str | None) -> str:
    """Return the requested model, or that of the table.

    Raises:
        RequestError: The table does not fit the model, or no model is known.
    """
    name = model or table.about.get("model")
    if name is None:
        raise RequestError(f"table {table.name} does not state its network: use --model")
    name = networks.with_absolute_path(name)
    space = family(name).space
    if space != table.space:
        raise RequestError(
            f"table {table.name} does not fit {name}: it has {table.space.layers} layers and {table.space.poolings}"
            f" downsamplings, the network has {space.layers} and {space.poolings}: use another table or --model"
        )
    return name


def column_entries(table: Table, names: Sequence[str] | None = None) -> list[Entry]:
    """Return the rankings stored in a table, such as ``supernets4``: all, or the named ones."""
    ranked = {
        column.removesuffix("_mean"): column
        for column in table.columns
        if column.endswith("_mean") and column != table.truth
    }
    wanted = list(ranked) if names is None else names
    _known(wanted, ranked, f"ranking of table {table.name}")
    return [Entry(name, 0, None, np.asarray(table.column(ranked[name])), percent=True) for name in wanted]


def control_entries(
    table: Table, model: str, names: Sequence[str], seeds: Sequence[int], experiment: Experiment | None = None
) -> list[Entry]:
    """Return the rankings that need no training.

    Counts give one entry. Zero-cost scores give one entry per seed, computed on the images of ``experiment``.
    """
    check_controls(names)
    entries = []
    for name in names:
        if name in baselines.COUNTED:
            entries.append(Entry(name, 0, 0, baselines.counted(name, table_costs(table, model).values())))
            continue
        experiment = experiment or resolve(settings_of(table, model))
        for seed in seeds:
            scores_P, macs = baselines.untrained(experiment, name, seed=seed)
            entries.append(Entry(name, seed, macs, scores_P))
    return entries


def check_controls(names: Sequence[str]) -> None:
    """Raise RequestError for unknown or repeated controls."""
    _known(names, [*baselines.COUNTED, *baselines.zero_cost_names()], "control")


def settings_of(table: Table, model: str) -> Config:
    """Return the config that a table was made with, as far as the table states it."""
    recipe = table.about.get("recipe")
    if recipe is not None:
        return Config.from_flat({**recipe, "model": model})
    return preset("paper", model=model, width=table.about.get("width"))


def _known(names: Sequence[str], allowed: Any, what: str) -> None:
    for i, name in enumerate(names):
        if name not in allowed:
            raise RequestError(
                f"unknown {what} {name!r}{did_you_mean(name, allowed, '.')} Known: {', '.join(allowed) or 'none'}"
            )
        if name in names[:i]:
            raise RequestError(f"{what} {name} occurs twice: use each once")


def check_out(out: Path) -> None:
    """Raise RequestError if the folder holds anything other than an earlier comparison, finished or not."""
    ours = any((out / name).exists() for name in (CompareFile.FILE, StudyFile.FILE))
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not ours)):
        raise RequestError(f"{out} is not the folder of an earlier comparison: use another --out")


def study(
    entries: Sequence[Entry], table: Table, model: str, resamples: int, failed: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the full result of a comparison as plain values, for ``write`` and for the report.

    ``failed`` holds one line for each entry whose training failed.
    """
    rows = judge(entries, table, baselines.counted("productive", table_costs(table, model).values()), resamples)
    return {
        "format": FORMAT,
        "table": {"name": table.name, "truth": table.truth, "space": table.space.to_json(), **_about(table)},
        "noise": table.noise(),
        "ceiling": table.ceiling(),
        "poolings": [str(pooling) for pooling in table.space],
        "truth": table.column(table.truth),
        "measures": list(measures(None)),
        "failed": list(failed),
        "entries": [
            {
                "method": entry.method,
                "seed": entry.seed,
                "budget": entry.budget,
                "budget_macs": entry.budget_macs,
                "spent_macs": entry.spent_macs,
                "scores": [float(score) for score in entry.scores_P],
                "percent": entry.percent,
                **({} if entry.parts_2P is None else {"parts": entry.parts_2P.tolist()}),
            }
            for entry in entries
        ],
        "rows": rows,
        "summary": summary(rows),
        "pairs": pairs(rows),
        "anytime": anytime(entries, table),
        "resamples": resamples,
        "command": command_line(),
        **environment(),
    }


def _about(table: Table) -> dict[str, Any]:
    return {key: table.about[key] for key in ("model", "width", "steps", "seeds", "source") if key in table.about}


def write(value: dict[str, Any], out: Path) -> None:
    """Write ``compare.json``, ``compare.csv`` (per entry, treatment and measure) and ``anytime.csv`` (per point)."""
    about = ["method", "seed", "budget", "budget_macs", "spent_macs", "treatment", "first"]
    lines = [
        [*(row[key] for key in about), name, *(f"{row[name][part]:.6g}" for part in ("value", "low", "high"))]
        for row in value["rows"]
        for name in value["measures"]
    ]
    _write_csv(out / "compare.csv", [*about, "measure", "value", "low", "high"], lines)
    about = ["method", "seed", "budget", "spent_macs"]
    lines = [[*(p[key] for key in about), *(f"{p[name]:.6g}" for name in TESTED)] for p in value["anytime"]]
    _write_csv(out / "anytime.csv", [*about, *TESTED], lines)
    write_atomically(out / CompareFile.FILE, json_text(value) + "\n")


def _write_csv(path: Path, header: list[str], lines: list[list[Any]]) -> None:
    write_atomically(path, csv_text(header, lines))
