"""A study: which rankings are judged against which table, and the files that come of it."""

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
from poolwise.storage.tables import Table

OUTPUT = "compare.json"
CONTROLS = (*baselines.COUNTED, *baselines.UNTRAINED)


def check_model(table: Table, model: str | None) -> str:
    """The model of a study: the one that is asked for, or the table's. RequestError where the table does not fit it."""
    name = model or table.about.get("model")
    if name is None:
        raise RequestError(f"table {table.name} does not say which network it is of: give --model")
    name = networks.rooted(name)
    space = family(name).space
    if space != table.space:
        raise RequestError(
            f"table {table.name} does not fit {name}: it is of {table.space.layers} layers with {table.space.poolings}"
            f" poolings, the network has {space.layers} with {space.poolings}"
        )
    return name


def column_entries(table: Table, names: Sequence[str] | None = None) -> list[Entry]:
    """Rankings that come with a table, as ``supernets4``: all of them, or those that are named."""
    ranked = {
        column.removesuffix("_mean"): column
        for column in table.columns
        if column.endswith("_mean") and column != table.truth
    }
    wanted = list(ranked) if names is None else names
    _known(wanted, ranked, f"ranking of table {table.name}")
    return [Entry(name, 0, None, np.asarray(table.column(ranked[name])), percent=True) for name in wanted]


def control_entries(
    table: Table, model: str, names: Sequence[str], seeds: Sequence[int], problem: Experiment | None = None
) -> list[Entry]:
    """Rankings without training. Those that only count come once; zero-cost scores once a seed, on ``problem``'s images."""
    check_controls(names)
    entries = []
    for name in names:
        if name in baselines.COUNTED:
            entries.append(Entry(name, 0, 0, baselines.counted(name, table_costs(table, model).values())))
            continue
        problem = problem or resolve(settings_of(table, model))
        for seed in seeds:
            scores_P, macs = baselines.untrained(problem, name, seed=seed)
            entries.append(Entry(name, seed, macs, scores_P))
    return entries


def check_controls(names: Sequence[str]) -> None:
    """RequestError for unknown controls and for what comes twice."""
    _known(names, CONTROLS, "control")


def settings_of(table: Table, model: str) -> Config:
    """The request that a table was made with, as far as it says."""
    recipe = table.about.get("recipe")
    if recipe is not None:
        return Config.from_flat({**recipe, "model": model})
    return preset("paper", model=model, width=table.about.get("width"))


def _known(names: Sequence[str], allowed: Any, what: str) -> None:
    for i, name in enumerate(names):
        if name not in allowed:
            raise RequestError(
                f"unknown {what} {name!r}{did_you_mean(name, allowed)}. Known: {', '.join(allowed) or 'none'}"
            )
        if name in names[:i]:
            raise RequestError(f"{what} {name} is given twice")


def check_out(out: Path) -> None:
    """RequestError where the folder holds something other than an earlier comparison, finished or not."""
    ours = any((out / name).exists() for name in (OUTPUT, "study.json"))
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not ours)):
        raise RequestError(f"{out} exists and is no folder of an earlier comparison: give another --out")


def study(
    entries: Sequence[Entry], table: Table, model: str, resamples: int, failed: Sequence[str] = ()
) -> dict[str, Any]:
    """Everything that a comparison comes to, as plain values; what ``write`` writes and the page is made from.

    ``failed`` has one line for each entry that was trained for and has no ranking.
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
    """``compare.json``, ``compare.csv`` (one line an entry, smoothing and measure) and ``anytime.csv`` (one a point)."""
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
    write_atomically(out / OUTPUT, json_text(value) + "\n")


def _write_csv(path: Path, header: list[str], lines: list[list[Any]]) -> None:
    write_atomically(path, csv_text(header, lines))
