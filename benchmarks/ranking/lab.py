"""The laboratory: every variant at one budget with one seed, the better half with more seeds, what is left at all budgets.

Judged against the table of the package; one command that goes on with what is not done. Writes ``stages.json`` (what was
dropped at which stage, and by what figure) and a csv a stage beside the files of ``poolwise compare`` in ``--out``.

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
MEASURE, TREATMENT = "tau_b", "smoothed"  # what decides: agreement without help from the count
CONTROLS = ("macs", "productive", "receptive_field")


def label(variant: str) -> str:
    """As results call it."""
    return parse_methods([VARIANTS[variant]], 4)[0].label


def figures(value: dict[str, Any], budgets: tuple[int, ...]) -> dict[str, float]:
    """Label -> mean of the measure over the budgets, each a mean over seeds."""
    told: dict[str, list[float]] = {}
    for row in value["summary"]:
        if row["treatment"] == TREATMENT and row["budget"] in budgets:
            told.setdefault(row["method"], []).append(row[MEASURE]["mean"])
    return {method: sum(own) / len(own) for method, own in told.items()}


def kept(stage: Stage, alive: list[str], told: dict[str, float]) -> list[str]:
    """The better share of the variants, and those that always stay; in the order of the list."""
    order = sorted(alive, key=lambda variant: -told[label(variant)])
    best = order[: math.ceil(stage.keep * len(order))]
    return [variant for variant in alive if variant in best or variant in ALWAYS]


@click.command()
@click.option("--out", default="runs/lab", show_default=True, type=click.Path(path_type=Path))
@click.option("--stages", default=len(STAGES), show_default=True, help="How many of the stages are run.")
@click.option("--precision", default="bfloat16+channels_last", show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--workers", default=2, show_default=True)
def main(out: Path, stages: int, precision: str, threads: int, workers: int) -> None:
    alive, record = list(VARIANTS), []
    for stage in STAGES[:stages]:
        arguments: dict[str, Any] = {
            "methods": [VARIANTS[variant] for variant in alive],
            "controls": CONTROLS,
            "columns": [],
        }
        machine = {"precision": precision, "threads": threads, "workers": workers}
        config = api.CompareConfig(TABLE, budgets=stage.budgets, seeds=stage.seeds, **machine, **arguments)
        value = api.compare(config, out)
        told = figures(value, stage.budgets)
        on = kept(stage, alive, told)
        record.append(
            {
                "stage": stage.name,
                "budgets": stage.budgets,
                "seeds": stage.seeds,
                "measure": f"{MEASURE}, {TREATMENT}",
                "variants": {variant: told[label(variant)] for variant in alive},
                "dropped": [variant for variant in alive if variant not in on],
            }
        )
        write_atomically(out / "stages.json", json.dumps({"stages": record, **environment()}, indent=1) + "\n")
        _csv(out / f"lab-{stage.name}.csv", value)
        click.echo(
            f"{stage.name}: {', '.join(f'{v} {told[label(v)]:.2f}' for v in alive)}; dropped: {record[-1]['dropped']}"
        )
        alive = on


def _csv(path: Path, value: dict[str, Any]) -> None:
    """One line a variant, budget and treatment: seeds, mean, standard deviation and interval of what matters."""
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
