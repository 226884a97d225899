"""Judge the rankings of committed comparisons anew, where the way that scores and count are fused has changed.

Takes the scores in ``compare.json`` and writes that file and ``compare.csv`` anew. Rows of scores as they are and smoothed must
come out as they were, and keep their bytes; only fused ones change. Prints how far these moved.

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
    """Return whether scores are accuracies, for files that do not say it: by the sparse tau that was judged then."""
    noise, key = table.noise() or 0.0, ("method", "seed", "budget")
    old = next(r for r in value["rows"] if r["treatment"] == "raw" and all(r[name] == entry[name] for name in key))
    found = measures(noise, noise)["sparse_tau"](np.array(entry["scores"]), np.array(table.column(table.truth)))
    return bool(np.isclose(found, old["sparse_tau"]["value"]))


def anew(value: dict[str, Any]) -> dict[str, Any]:
    """Return the content of ``compare.json`` with new rows for what is fused."""
    table = table_of(value["table"]["name"])
    entries = [
        Entry(
            told["method"],
            told["seed"],
            told["budget_macs"],
            np.array(told["scores"]),
            told.get("percent", _percent(value, table, told)),
            told["budget"],
            told["spent_macs"],
            parts_2P=np.array(told["parts"]) if "parts" in told else None,
        )
        for told in value["entries"]
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


def moved(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> str:
    """Return the mean of two figures of merit over all fused rows, before and after."""
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
        found = anew(value)
        write(found, path.parent)
        if not anytime:
            (path.parent / "anytime.csv").unlink()
        click.echo(f"{path.parent.name}: {moved(value['rows'], found['rows'])}")


if __name__ == "__main__":
    main()
