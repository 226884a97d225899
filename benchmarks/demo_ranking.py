"""How well the demonstration ranks: search and rank with the demo preset for several seeds, on real CIFAR-10.

Truth: the published stand-alone accuracies (full width, all images), so a perfect ranking of the reduced networks need not
reach 1. Writes ``results/demo-ranking_<hardware>_<torch>_<date>.csv``; runs that are there already are used again.

    python benchmarks/demo_ranking.py --seeds 4 --runs runs/demo-ranking
"""

from __future__ import annotations

import csv
import datetime
import json
import re
from pathlib import Path

import click
import numpy as np

import poolwise
from poolwise.metrics import kendall_tau_a, kendall_tau_b
from poolwise.runs import environment


@click.command()
@click.option("--seeds", default=4, show_default=True)
@click.option("--runs", default="runs/demo-ranking", show_default=True, type=click.Path(path_type=Path))
@click.option("--supernets", default=None, type=int, help="M, where it is not to be the preset's.")
def main(seeds: int, runs: Path, supernets: int | None) -> None:
    table = poolwise.tables.load("resnet20-cifar10-published")
    truth = table.column("standalone_mean")
    rows = []
    for seed in range(seeds):
        settings = poolwise.preset("demo", seed=seed, supernets=supernets)
        out = runs / f"m{settings.supernets}-seed{seed}"
        if not (out / "run.json").exists():
            poolwise.search(settings, out)
        poolwise.resume(out)
        ranking = {row["pooling"]: row for row in poolwise.rank(out)["ranking"]}
        ordered = [ranking[str(pooling)] for pooling in table.space]
        row = {
            "supernets": settings.supernets,
            "seed": seed,
            "pick": next(p for p in ranking if ranking[p]["rank"] == 1),
        }
        for name in ("score", "macs", "productive"):
            values = [entry[name] for entry in ordered]
            row[f"{name}_tau_a"] = round(kendall_tau_a(values, truth), 4)
            row[f"{name}_tau_b"] = round(kendall_tau_b(values, truth), 4)
        rows.append({**row, "precision": json.loads((out / "ranking.json").read_text())["precision"]})
        click.echo(rows[-1])
    taus = [row["score_tau_b"] for row in rows]
    click.echo(
        f"tau-b of the score: mean {np.mean(taus):.2f}, standard deviation {np.std(taus, ddof=1):.2f}, {len(taus)} seeds"
    )
    hardware = environment()
    name = re.sub(r"[^a-z0-9]+", "-", hardware["hardware"]["processor"].lower()).strip("-")
    target = f"demo-ranking-m{rows[0]['supernets']}_{name}_{hardware['versions']['torch']}_{datetime.date.today()}.csv"
    with (Path(__file__).parent / "results" / target).open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
