"""Measure what more proxy trainings of every configuration add, by themselves and with shared weights and the count.

Takes the proxy trainings of all seeds of one method and budget in a study's runs and averages the losses of 1, 2, ... of them,
in up to ``--draws`` random choices: by themselves, smoothed; with the count (half each); and with a seed's search, as the library
does. Reports means and standard deviations over choices, which overlap; writes a CSV under ``benchmarks/results``.

    python benchmarks/ranking/pooled.py benchmarks/results/samplers-own-table
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import record

from poolwise import tables
from poolwise.models.cost import table_costs
from poolwise.rankings.combine import combine, standardize, with_proxy_trainings
from poolwise.rankings.ranking import parts
from poolwise.rankings.smoothing import smooth
from poolwise.statistics import kendall_tau_b


@click.command()
@click.argument("study", type=click.Path(exists=True, path_type=Path))
@click.option("--entry", default="fairnas_norm_affine_short_0.67-4680", show_default=True)
@click.option("--draws", default=60, show_default=True)
def main(study: Path, entry: str, draws: int) -> None:
    table = tables.load(json.loads((study / "study.json").read_text(encoding="utf-8"))["table"])
    truth_P = np.array(table.column(table.truth))
    count_P = np.array([cost.productive for cost in table_costs(table).values()], float)
    shared, proxy_scores, length = [], [], 0
    for path in sorted(study.glob(f"runs/{entry}-*/ranking.json")):
        value = json.loads(path.read_text(encoding="utf-8"))
        rows_by = {row["pooling"]: row for row in value["ranking"]}
        ordered = [rows_by[str(pooling)] for pooling in table.space]
        shared.append(parts(ordered)[0])
        proxy_scores += list(np.array([row["short"] for row in ordered]).T)
        length = value["short"]["length"]
    generator, rows = np.random.default_rng(0), list[dict[str, Any]]()

    def tau(scores_P: np.ndarray) -> float:
        return float(kendall_tau_b(scores_P, truth_P))

    for k in (1, 2, 3, 4, 6):
        taus_by_parts: dict[str, list[float]] = {
            "alone": [],
            "with the count": [],
            "with shared weights": [],
            "with both": [],
        }
        for _ in range(min(draws, math.comb(len(proxy_scores), k))):
            proxy_P = np.mean([proxy_scores[i] for i in generator.choice(len(proxy_scores), k, replace=False)], axis=0)
            taus_by_parts["alone"].append(tau(smooth(table.space, proxy_P).scores))
            taus_by_parts["with the count"].append(
                tau(smooth(table.space, standardize(proxy_P) + standardize(count_P)).scores)
            )
            both = with_proxy_trainings(table.space, shared[int(generator.integers(len(shared)))], proxy_P)
            taus_by_parts["with shared weights"].append(tau(smooth(table.space, both.scores_P).scores))
            taus_by_parts["with both"].append(tau(combine(table.space, both, count_P).estimate_P))
        for parts_name, taus in taus_by_parts.items():
            figures = {"tau-b": round(float(np.mean(taus)), 3), "std": round(float(np.std(taus, ddof=1)), 3)}
            rows.append({"trainings": k, "steps of each": length, "parts": parts_name, "draws": len(taus), **figures})
            click.echo(rows[-1])
    record(f"pooled-{entry}-{table.name}", rows)


if __name__ == "__main__":
    main()
