"""Measure how well the demonstration ranks: search and rank with the demo preset for several seeds, on CIFAR-10.

The truth is the published stand-alone accuracies (full width, all images), so that even a perfect ranking of the reduced
networks need not reach 1. Writes ``results/demo-ranking_<hardware>_<torch>_<date>.csv``; reuses existing runs.

    python benchmarks/demo_ranking.py --seeds 4 --runs runs/demo-ranking
"""

from __future__ import annotations

import csv
import datetime
import json
import re
from pathlib import Path
from typing import Any

import click
import numpy as np

import poolwise
from poolwise.statistics import kendall_tau_a, kendall_tau_b
from poolwise.storage import environment


@click.command()
@click.option("--seeds", default=4, show_default=True)
@click.option("--runs", default="runs/demo-ranking", show_default=True, type=click.Path(path_type=Path))
@click.option("--method", default=None, help="Search method (default: the preset's).")
@click.option("--norm", default=None, help="Normalization (default: the preset's).")
@click.option("--supernets", default=None, help="Number of SuperNets M (default: the preset's).")
@click.option("--short", type=float, help="Share of compute for proxy trainings (default: the preset's).")
@click.option("--precision", default=None, help="Precision (default: the fastest one, measured).")
def main(seeds: int, runs: Path, supernets: str | None, **settings: Any) -> None:
    table = poolwise.tables.load("resnet20-cifar10-published")
    truth = table.column("standalone_mean")
    rows = []
    for seed in range(seeds):
        count = int(supernets) if supernets and supernets.isdecimal() else supernets
        config = poolwise.preset("demo", seed=seed, supernets=count, **settings)
        variant = f"{config.search.method}-{config.search.norm}-m{config.search.supernets or 'auto'}-short{config.search.proxy}"
        precision = f"-{settings['precision']}" if settings["precision"] else ""
        out = runs / f"{variant}{precision}-seed{seed}"
        if not (out / "run.json").exists():
            poolwise.search(config, out)
        poolwise.resume(out)
        ranked = poolwise.rank(out)
        ranking = {row["pooling"]: row for row in ranked["ranking"]}
        ordered = [ranking[str(pooling)] for pooling in table.space]
        row = {
            "method": config.search.method,
            "norm": config.search.norm,
            "supernets": json.loads((out / "run.json").read_text())["settings"]["supernets"],
            "short": config.search.proxy,
            "seed": seed,
            "ranked_by": ranked["ranked_by"],
            "pick": next(p for p in ranking if ranking[p]["rank"] == 1),
        }
        for name in ("score", "estimate", "macs", "productive"):
            values = [entry[name] for entry in ordered]
            row[f"{name}_tau_a"] = round(kendall_tau_a(values, truth), 4)
            row[f"{name}_tau_b"] = round(kendall_tau_b(values, truth), 4)
        ours = poolwise.tables.load("resnet20w8-cifar10-10k")
        for name in ("score", "estimate"):
            values = [ranking[str(pooling)][name] for pooling in ours.space]
            row[f"{name}_tau_b_own_table"] = round(kendall_tau_b(values, ours.column(ours.truth)), 4)
        rows.append({**row, "precision": json.loads((out / "ranking.json").read_text())["precision"]})
        click.echo(rows[-1])
    columns = [(f"{name}_tau_b{end}", name) for end in ("", "_own_table") for name in ("score", "estimate")]
    for key, name in columns:
        taus, truth_name = [row[key] for row in rows], "our table's" if key.endswith("table") else "the published"
        click.echo(
            f"tau-b between the {name} and {truth_name} accuracies: mean {np.mean(taus):.2f}, standard deviation"
            f" {np.std(taus, ddof=1):.2f}, {len(taus)} seeds"
        )
    hardware = environment()
    processor = re.sub(r"[^a-z0-9]+", "-", hardware["hardware"]["processor"].lower()).strip("-")
    target = f"demo-ranking-{variant}_{processor}_{hardware['versions']['torch']}_{datetime.date.today()}.csv"
    with (Path(__file__).parent / "results" / target).open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
