"""Run the laboratory: every variant at one budget with one seed, the better half with more seeds, the rest at all budgets.

Judged against the table of the package; an interrupted run continues where it stopped. Writes ``stages.json`` (what was
dropped at which stage, and by which figure) and one CSV per stage beside the files of ``poolwise compare`` in ``--out``.

    python benchmarks/ranking/lab.py --out runs/lab --workers 2 --threads 1
"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import click
from variants import ALWAYS, STAGES, VARIANTS, Stage

from poolwise import api
from poolwise.benchmarks.compare.methods import parse_methods
from poolwise.storage import environment, write_atomically

TABLE = "resnet20w8-cifar10-10k"
MEASURE, TREATMENT = "tau_b", "smoothed"  # the selection criterion: agreement without the count
CONTROLS = ("macs", "productive", "receptive_field")


def label(variant: str) -> str:
    """Return the variant's name in results."""
    return parse_methods([VARIANTS[variant]], 4)[0].label


def figures(value: dict[str, Any], budgets: tuple[int, ...]) -> dict[str, float]:
    """Return label -> mean of the measure over the budgets, each a mean over seeds."""
    means: dict[str, list[float]] = {}
    for row in value["summary"]:
        if row["treatment"] == TREATMENT and row["budget"] in budgets:
            means.setdefault(row["method"], []).append(row[MEASURE]["mean"])
    return {method: sum(values) / len(values) for method, values in means.items()}


def kept(stage: Stage, alive: list[str], means: dict[str, float]) -> list[str]:
    """Return the better share of the variants, and those that are always kept, in the order of the list."""
    order = sorted(alive, key=lambda variant: -means[label(variant)])
    best = order[: math.ceil(stage.keep * len(order))]
    return [variant for variant in alive if variant in best or variant in ALWAYS]


@click.command()
@click.option("--out", default="runs/lab", show_default=True, type=click.Path(path_type=Path))
@click.option("--stages", default=len(STAGES), show_default=True, help="Number of stages to run.")
@click.option("--precision", default="bfloat16+channels_last", show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--workers", default=2, show_default=True)
def main(out: Path, stages: int, precision: str, threads: int, workers: int) -> None:
    variants, record = list(VARIANTS), []
    for stage in STAGES[:stages]:
        arguments: dict[str, Any] = {
            "methods": [VARIANTS[variant] for variant in variants],
            "controls": CONTROLS,
            "columns": [],
        }
        machine = {"precision": precision, "threads": threads, "workers": workers}
        config = api.CompareConfig(TABLE, budgets=stage.budgets, seeds=stage.seeds, **machine, **arguments)
        value = api.compare(config, out)
        means = figures(value, stage.budgets)
        remaining = kept(stage, variants, means)
        record.append(
            {
                "stage": stage.name,
                "budgets": stage.budgets,
                "seeds": stage.seeds,
                "measure": f"{MEASURE}, {TREATMENT}",
                "variants": {variant: means[label(variant)] for variant in variants},
                "dropped": [variant for variant in variants if variant not in remaining],
            }
        )
        write_atomically(out / "stages.json", json.dumps({"stages": record, **environment()}, indent=1) + "\n")
        _csv(out / f"lab-{stage.name}.csv", value)
        click.echo(
            f"{stage.name}: {', '.join(f'{v} {means[label(v)]:.2f}' for v in variants)}; dropped: {record[-1]['dropped']}"
        )
        variants = remaining


def _csv(path: Path, value: dict[str, Any]) -> None:
    """Write one line per variant, budget and treatment: seeds, mean, standard deviation and interval of each measure."""
    names = {label(variant): variant for variant in VARIANTS}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["variant", "method", "budget", "scores", "seeds", "measure", "mean", "std", "low", "high"])
        for row in value["summary"]:
            about = [names.get(row["method"], row["method"]), row["method"], row["budget"], row["treatment"], row["n"]]
            for measure in ("tau_b", "regret@1", "regret@3"):
                writer.writerow([*about, measure, *(row[measure][key] for key in ("mean", "std", "low", "high"))])


if __name__ == "__main__":
    main()
