"""Plot the laboratory: which variants were kept at each stage, and what the remaining ones reach at each budget.

Reads ``stages.json`` and the CSV of each stage that ``lab.py`` wrote, and writes ``docs/laboratory.svg``.

    python benchmarks/ranking/lab_figure.py benchmarks/results/lab
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import click
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

TARGET = Path(__file__).parents[2] / "docs" / "laboratory.svg"
KEPT, DROPPED = "#1d4ed8", "#8a97a5"
TITLES = {"screen": "screen: {budgets} steps, one seed", "seeds": "seeds: {budgets} steps, {n} seeds"}


def read_taus(folder: Path, stage: str) -> dict[tuple[str, int], tuple[float, float]]:
    """Return (variant, budget) -> mean and standard deviation over seeds (0 for one) of smoothed tau-b."""
    with (folder / f"lab-{stage}.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if (row["scores"], row["measure"]) == ("smoothed", "tau_b")]
    return {(r["variant"], int(r["budget"])): (float(r["mean"]), float(r["std"] or 0)) for r in rows if r["budget"]}


def relabel(variant: str) -> str:
    """Return the label of a variant with the current term; the committed results keep the old one."""
    return variant.replace("short trainings", "proxy trainings")


def draw_ranked(axes: Axes, folder: Path, stage: dict[str, Any]) -> None:
    """Draw the variants of a stage, best on top; the dropped ones are pale."""
    taus = read_taus(folder, stage["stage"])
    names = sorted(stage["variants"], key=lambda name: stage["variants"][name])
    for place, name in enumerate(names):
        colour = DROPPED if name in stage["dropped"] else KEPT
        means, stds = zip(*(taus[name, budget] for budget in stage["budgets"]), strict=True)
        axes.errorbar(np.mean(means), place, xerr=np.mean(stds) or None, fmt="o", color=colour, markersize=4, capsize=2)
    axes.set_yticks(range(len(names)), [relabel(name) for name in names], fontsize=7)
    for tick, name in zip(axes.get_yticklabels(), names, strict=True):
        tick.set_color(DROPPED if name in stage["dropped"] else "black")
    budgets = ", ".join(f"{budget:,}" for budget in stage["budgets"])
    axes.set_title(TITLES[stage["stage"]].format(budgets=budgets, n=len(stage["seeds"])), fontsize=10)
    axes.set_xlabel("tau-b with stand-alone accuracies, smoothed")
    axes.grid(axis="x", alpha=0.3)


def draw_by_budget(axes: Axes, folder: Path, stage: dict[str, Any]) -> None:
    """Draw the remaining variants at all budgets, with offsets so that bars do not cover each other."""
    taus = read_taus(folder, stage["stage"])
    names = sorted(stage["variants"], key=lambda name: -stage["variants"][name])
    for i, name in enumerate(names):
        means, stds = zip(*(taus[name, budget] for budget in stage["budgets"]), strict=True)
        places = np.arange(len(means)) + 0.06 * (i - len(names) / 2)
        axes.errorbar(places, means, yerr=stds, fmt="o-", markersize=4, capsize=2, linewidth=1, label=relabel(name))
    axes.set_xticks(range(len(stage["budgets"])), [f"{budget:,} steps" for budget in stage["budgets"]])
    axes.set_title(f"budgets: {len(stage['seeds'])} seeds each, ± standard deviation", fontsize=10)
    axes.set_ylabel("tau-b with stand-alone accuracies, smoothed")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.08))


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
def main(folder: Path) -> None:
    stages = json.loads((folder / "stages.json").read_text(encoding="utf-8"))["stages"]
    figure = Figure(figsize=(14, 9), layout="constrained")
    panels = figure.subplot_mosaic([["screen", "seeds"], ["screen", "budgets"]], height_ratios=[2, 3])
    for stage in stages:
        draw = draw_by_budget if stage["stage"] == "budgets" else draw_ranked
        draw(panels[stage["stage"]], folder, stage)
    with matplotlib.rc_context({"svg.hashsalt": TARGET.stem}):  # the same picture has the same bytes
        figure.savefig(TARGET, metadata={"Date": None, "Creator": None})
    click.echo(TARGET)


if __name__ == "__main__":
    main()
