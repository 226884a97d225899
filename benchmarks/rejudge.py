"""Judge the rankings of committed comparisons again after the way of combining scores and count has changed.

Takes the scores in ``compare.json`` and rewrites that file and ``compare.csv``. Rows of raw and smoothed scores must
stay the same, and keep their bytes; only fused ones change. Prints how much these changed.

    python benchmarks/rejudge.py benchmarks/results/*/compare.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "ranking"))
from count_shares import table_of

from poolwise import tables
from poolwise.benchmarks.compare.judge import Entry, judge, measures, pairs, summary
from poolwise.benchmarks.compare.study import write
from poolwise.models.cost import table_costs
from poolwise.rankings import baselines


def _percent(value: dict[str, Any], table: tables.Table, entry: dict[str, Any]) -> bool:
    """Return whether scores are accuracies, for files that do not record it: infer it from the recorded sparse tau."""
    noise, key = table.noise() or 0.0, ("method", "seed", "budget")
    recorded = next(r for r in value["rows"] if r["treatment"] == "raw" and all(r[name] == entry[name] for name in key))
    sparse_tau = measures(noise, noise)["sparse_tau"](np.array(entry["scores"]), np.array(table.column(table.truth)))
    return bool(np.isclose(sparse_tau, recorded["sparse_tau"]["value"]))


def rejudge(value: dict[str, Any]) -> dict[str, Any]:
    """Return the content of ``compare.json`` with new rows for fused scores."""
    table = table_of(value["table"]["name"])
    entries = [
        Entry(
            entry["method"],
            entry["seed"],
            entry["budget_macs"],
            np.array(entry["scores"]),
            entry.get("percent", _percent(value, table, entry)),
            entry["budget"],
            entry["spent_macs"],
            parts_2P=np.array(entry["parts"]) if "parts" in entry else None,
        )
        for entry in value["entries"]
    ]
    counts = baselines.counted("productive", table_costs(table, "resnet20").values())
    rows = []
    for new, old in zip(judge(entries, table, counts, value["resamples"]), value["rows"], strict=True):
        assert [new[key] for key in ("method", "seed", "budget", "treatment")] == [
            old[key] for key in ("method", "seed", "budget", "treatment")
        ]
        if new["treatment"] == "fused":
            rows.append(new)
            continue
        assert new["first"] == old["first"]
        assert all(np.allclose(list(new[name].values()), list(old[name].values())) for name in value["measures"]), old
        rows.append(old)
    return {**value, "rows": rows, "summary": summary(rows), "pairs": pairs(rows)}


def changes(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> str:
    """Return the mean of three figures of merit over all fused rows, before and after."""
    parts = []
    for name in ("tau_b", "regret@1", "regret@3"):
        was, now = (
            np.mean([row[name]["value"] for row in rows if row["treatment"] == "fused"]) for rows in (before, after)
        )
        parts.append(f"{name} {was:.3f} to {now:.3f}")
    return ", ".join(parts)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def main(files: tuple[Path, ...]) -> None:
    for path in files:
        value = json.loads(path.read_text(encoding="utf-8"))
        if "entries" not in value:
            continue
        anytime = (path.parent / "anytime.csv").exists()
        rejudged = rejudge(value)
        write(rejudged, path.parent)
        if not anytime:
            (path.parent / "anytime.csv").unlink()
        click.echo(f"{path.parent.name}: {changes(value['rows'], rejudged['rows'])}")


if __name__ == "__main__":
    main()
