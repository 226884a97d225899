"""Combine shared weights and separate ones: a search on one SuperNet, and proxy trainings of all configurations.

Reads a study that has both with the same seed. ``shared`` are the search's scores, ``own`` the smoothed accuracies of the
proxy trainings, ``together`` both combined (``rankings.combine``) and smoothed; ``fused`` also has the count of productive
convolutions. ``compute`` is the sum of both budgets. Writes a CSV under ``benchmarks/results``.

    python benchmarks/ranking/both.py benchmarks/results/samplers-own-table --shared fairnas@norm=affine --budget 1560
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import record

from poolwise import tables
from poolwise.models.cost import table_costs
from poolwise.rankings.combine import combine, with_proxy_trainings
from poolwise.rankings.smoothing import smooth
from poolwise.statistics import kendall_tau_b, regret
from poolwise.storage import RunFolder


def folder_of(study: Path, method: str, budget: int, seed: int) -> RunFolder:
    return RunFolder(study / "runs" / f"{re.sub(r'[^A-Za-z0-9.-]', '_', method)}-{budget}-{seed}")


def scores_of(study: Path, method: str, budget: int, seed: int, names: list[str]) -> np.ndarray:
    """Return scores_P of a search, or the mean accuracies of proxy trainings of all configurations."""
    folder = folder_of(study, method, budget, seed)
    if folder.has("ranking.json"):
        scored = {row["pooling"]: row["score"] for row in folder.read("ranking.json", "")["ranking"]}
        return np.array([scored[name] for name in names])
    trained: dict[str, list[float]] = {}
    for trial in folder.trials().all():
        trained.setdefault(trial["pooling"], []).append(trial["accuracy"])
    return np.array([np.mean(trained[name]) for name in names])


def judged(table: tables.Table, scores: dict[str, np.ndarray]) -> dict[str, float]:
    truth_P = np.array(table.column(table.truth))
    taus = {f"{name}: tau-b": round(float(kendall_tau_b(scores_P, truth_P)), 3) for name, scores_P in scores.items()}
    return taus | {
        f"{name}: regret@3": round(float(regret(scores_P, truth_P, 3)), 2) for name, scores_P in scores.items()
    }


@click.command()
@click.argument("study", type=click.Path(exists=True, path_type=Path))
@click.option("--shared", default="fairnas@norm=affine", show_default=True)
@click.option("--own", default="short-all", show_default=True)
@click.option("--budget", default=1560, show_default=True, help="Budget of the search, in steps.")
@click.option("--own-budget", type=int, help="Budget of the trainings, in steps (default: the same).")
@click.option("--seeds", default=3, show_default=True)
def main(study: Path, shared: str, own: str, budget: int, own_budget: int | None, seeds: int) -> None:
    own_budget = own_budget or budget
    table = tables.load(json.loads((study / "study.json").read_text(encoding="utf-8"))["table"])
    names = [str(pooling) for pooling in table.space]
    count_P = np.array([cost.productive for cost in table_costs(table).values()], float)
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        shared_P = scores_of(study, shared, budget, seed, names)
        proxy_P = scores_of(study, own, own_budget, seed, names)
        fused = combine(table.space, with_proxy_trainings(table.space, shared_P, proxy_P), count_P)
        scores = {
            "shared": shared_P,
            "own": smooth(table.space, proxy_P).scores,
            "together": fused.smoothed_P,
            "fused": fused.estimate_P,
        }
        rows.append(
            {"shared": shared, "own": own, "compute": budget + own_budget, "seed": seed, **judged(table, scores)}
        )
        click.echo(rows[-1])
    for name in list(rows[0])[4:]:
        values = [row[name] for row in rows]
        click.echo(f"{name}: {np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}")
    lengths = f"{budget}" if own_budget == budget else f"{budget}-{own_budget}"
    record(f"both-{lengths}-{table.name}", rows)


if __name__ == "__main__":
    main()
