"""Measure how consistent a method's errors are over seeds, and which configurations they concern.

Reads a study. Reports agreement (tau-b) between every two seeds and with the truth, and for each configuration the mean over
seeds of standardized score minus standardized truth. Writes a CSV under ``benchmarks/results``.

    python benchmarks/ranking/bias.py benchmarks/results/samplers-own-table --methods fairnas,short-all --budget 1560
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import click
import numpy as np
from both import scores_of

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import record

from poolwise import tables
from poolwise.statistics import kendall_tau_b


def standardized(values_P: np.ndarray) -> np.ndarray:
    return (values_P - values_P.mean()) / values_P.std()


@click.command()
@click.argument("study", type=click.Path(exists=True, path_type=Path))
@click.option("--methods", default="fairnas,fairnas@norm=affine,short-all", show_default=True)
@click.option("--budget", default=1560, show_default=True)
@click.option("--seeds", default=3, show_default=True)
def main(study: Path, methods: str, budget: int, seeds: int) -> None:
    table = tables.load(json.loads((study / "study.json").read_text(encoding="utf-8"))["table"])
    names, truth_P = [str(pooling) for pooling in table.space], np.array(table.column(table.truth))
    rows = [{"pooling": name, "truth": round(truth, 2)} for name, truth in zip(names, truth_P.tolist(), strict=True)]
    for method in methods.split(","):
        scores_SP = [scores_of(study, method, budget, seed, names) for seed in range(seeds)]
        between = [float(kendall_tau_b(one, two)) for one, two in itertools.combinations(scores_SP, 2)]
        with_truth = [float(kendall_tau_b(scores_P, truth_P)) for scores_P in scores_SP]
        error_P = np.mean([standardized(scores_P) - standardized(truth_P) for scores_P in scores_SP], axis=0)
        for row, error in zip(rows, error_P.tolist(), strict=True):
            row[method] = round(error, 2)
        overrated = [f"{names[a]} {error_P[a]:+.1f}" for a in np.argsort(-error_P)[:4]]
        click.echo(
            f"{method}: between seeds {', '.join(f'{tau:.2f}' for tau in between)}; with the truth"
            f" {', '.join(f'{tau:.2f}' for tau in with_truth)}; overrated most: {', '.join(overrated)}"
        )
    record(f"bias-{budget}-{table.name}", rows)


if __name__ == "__main__":
    main()
