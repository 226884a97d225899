"""Measure the best that stand-alone trainings can do: an oracle knows the top three configurations of the published table.

It spends all six trainings on these three (a seventh is the default's). All ways to divide the trainings are tried, with the
table's noise, 200,000 times each; the highest mean is printed. No method that relies on these trainings can be right more often.

    python benchmarks/decide/oracle.py
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import click
import numpy as np

from poolwise import tables

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import record


@click.command()
@click.option("--trainings", default=6, show_default=True)
@click.option("--runs", default=200_000, show_default=True)
def main(trainings: int, runs: int) -> None:
    table = tables.load("resnet20-cifar10-published")
    truth, noise = np.array(table.column("standalone_mean")), np.array(table.column("standalone_std"))
    best = np.argsort(-truth)[:3]
    generator, rows = np.random.default_rng(0), []
    for shares in product(range(1, trainings), repeat=3):
        if sum(shares) == trainings:
            drawn = truth[best] + noise[best] / np.sqrt(shares) * generator.standard_normal((runs, 3))
            right = float((drawn.argmax(1) == 0).mean())
            rows.append(
                {**dict(zip((str(table.space[i]) for i in best), shares, strict=True)), "right": round(right, 4)}
            )
    rows.sort(key=lambda row: -row["right"])
    print(rows[0])
    record("oracle", rows)


if __name__ == "__main__":
    main()
