"""Judge every baseline that needs no training by every table whose images are at hand.

Counts give one ranking of a table. A zero-cost proxy gives two for each seed, from the same draws of weights and images: the
means over draws, and the stochastic order (``-order``). Reports tau-b and regret (points of accuracy) with their mean and
standard deviation over seeds, the mean over seeds of the 95 % bootstrap interval over configurations, and the MACs of a seed.
Writes a CSV under ``benchmarks/results``.

    python benchmarks/ranking/untrained_baselines.py
    python benchmarks/ranking/untrained_baselines.py --table runs/mytable --draws 16
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import record

from poolwise import statistics, tables
from poolwise.benchmarks.compare.study import check_model, settings_of
from poolwise.errors import PoolwiseError, RequestError
from poolwise.experiment import Experiment, resolve
from poolwise.models.cost import table_costs
from poolwise.rankings import baselines
from poolwise.rankings.baselines.zero_cost import ZERO_COST

MEASURES = {
    "tau_b": statistics.kendall_tau_b,
    "regret@1": partial(statistics.regret, k=1),
    "regret@3": partial(statistics.regret, k=3),
}
QUICK = {"draws": 2, "images": 8, "seeds": 2}


def images_of(table: tables.Table) -> Experiment:
    """Return the experiment of a table. Raise PoolwiseError if its images are not at hand."""
    experiment = resolve(settings_of(table, check_model(table, None)))
    expected = table.about.get("data", {}).get("fingerprint")
    if expected not in (None, experiment.source.fingerprint()):
        raise RequestError(f"the images of {experiment.source.name} are not those of the table")
    return experiment


def rankings(
    table: tables.Table, experiment: Experiment, draws: int, images: int | None, seeds: int
) -> Iterator[tuple[str, list[np.ndarray], int]]:
    """Yield the name of each baseline, its scores_P by seed, and its MACs for one seed."""
    costs = list(table_costs(table).values())
    for name in baselines.COUNTED:
        yield name, [baselines.counted(name, costs)], 0
    for name in ZERO_COST.all():
        try:
            results = [
                baselines.draw_scores(experiment, name, seed=seed, draws=draws, images=images) for seed in range(seeds)
            ]
        except RequestError as error:
            click.echo(f"{table.name}: {error}")
            continue
        yield name, [scores_RP.mean(0) for scores_RP, _ in results], results[0][1]
        order = [baselines.stochastic_order(scores_RP) for scores_RP, _ in results]
        yield name + baselines.ORDER, order, results[0][1]


def judged(scores: Sequence[np.ndarray], truth_P: np.ndarray) -> dict[str, float]:
    """Return each measure of the rankings of several seeds: mean, standard deviation and interval."""
    intervals = [statistics.bootstrap_interval(MEASURES, scores_P, truth_P) for scores_P in scores]
    row: dict[str, float] = {}
    for name, measure in MEASURES.items():
        values = [measure(scores_P, truth_P) for scores_P in scores]
        row[name] = float(np.mean(values))
        row[f"{name} std"] = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        row[f"{name} low"], row[f"{name} high"] = np.mean([interval[name] for interval in intervals], axis=0).tolist()
    return {name: round(value, 3) for name, value in row.items()}


@click.command()
@click.option("--table", "names", multiple=True, help="Name or folder of a table; by default all of the package.")
@click.option("--draws", default=8, show_default=True, help="Draws of weights and images for each seed.")
@click.option("--images", type=int, help="Images in a batch; by default that of each proxy.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--quick", is_flag=True, help="Check that it runs: two draws of eight images, two seeds.")
def main(names: Sequence[str], draws: int, images: int | None, seeds: int, quick: bool) -> None:
    torch.set_num_threads(1)  # the number of threads changes the last bits
    if quick:
        draws, images, seeds = QUICK["draws"], QUICK["images"], QUICK["seeds"]
    rows: list[dict[str, Any]] = []
    for name in names or tables.names():
        table = tables.load(name)
        try:
            experiment = images_of(table)
        except PoolwiseError as error:
            click.echo(f"{table.name} is left out: {error}")
            continue
        truth_P = np.array(table.column(table.truth))
        for baseline, scores, macs in rankings(table, experiment, draws, images, seeds):
            about = {"table": table.name, "configurations": len(truth_P), "baseline": baseline, "seeds": len(scores)}
            used = {"draws": draws if macs else 0, "images": (images or "default") if macs else 0, "gmacs": macs / 1e9}
            rows.append({**about, **used, **judged(scores, truth_P)})
            click.echo(
                f"{table.name}  {baseline:16} tau-b {rows[-1]['tau_b']:.2f}  regret@1 {rows[-1]['regret@1']:.2f}"
            )
    if not rows:
        raise click.ClickException("no table has its images at hand")
    record("untrained-baselines-quick" if quick else "untrained-baselines", rows)


if __name__ == "__main__":
    main()
