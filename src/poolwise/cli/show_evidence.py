"""Print comparisons and simulations as tables or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from poolwise.cli.out import Table, say, say_json, show_table
from poolwise.progress import time_words
from poolwise.storage.schemas import CompareFile, SimulateFile, validate


def compared(value: dict[str, Any], out: Path, as_json: bool) -> None:
    """Print agreement and regret of every method, with intervals."""
    if as_json:
        return say_json(value)
    content = validate(CompareFile, value, f"{CompareFile.FILE}: ")
    for failure in content.failed:
        say(f"failed: {failure}")
    noise = "" if content.noise is None else f", noise {content.noise:.2f} points"
    ceiling = "" if content.ceiling is None else f", tau-b between seeds {content.ceiling:.2f}"
    table = Table("method", "budget", "scores", title=f"rankings against table {content.table.name}{noise}{ceiling}")
    for heading in ("tau-a", "tau-b (95 %)", "Spearman", "sparse tau", "regret@1 (95 %)", "@3", "@5"):
        table.add_column(heading, justify="right")
    for row in content.summary:
        spans = []
        for name in ("tau_a", "tau_b", "spearman", "sparse_tau", "regret@1", "regret@3", "regret@5"):
            average = row.measure(name)
            interval = f" ({average.low:.2f} to {average.high:.2f})" if name in ("tau_b", "regret@1") else ""
            spans.append(f"{average.mean:.2f}{interval}")
        table.add_row(row.method, str(row.budget or ""), row.treatment, *spans)
    show_table(table)
    say(f"page: {out / 'compare.html'}; all numbers: {out / 'compare.csv'}")


def simulated(value: dict[str, Any], out: Path, as_json: bool) -> None:
    """Print the regret of each method by number of trainings, and how often a good enough one was chosen or trained."""
    if as_json:
        return say_json(value)
    content = validate(SimulateFile, value, f"{SimulateFile.FILE}: ")
    title = (
        f"{content.table}: {content.runs} runs, regret in points; share up to {content.tolerance:.2f}: chosen, trained"
    )
    table = Table("method", "after", title=title)
    counts = sorted({min(count, content.trials) for count in (2, 4, 6, 7, 8, 10, 12, 16, 24, content.trials)})
    for count in counts:
        table.add_column(str(count), justify="right")
    for row in content.methods:
        for name, label, digits in (
            ("mean", "mean", 2),
            ("q90", "90 %", 2),
            ("found", "chosen", 2),
            ("reached", "trained", 2),
        ):
            cells = [f"{getattr(row, name)[count - 1]:.{digits}f}" for count in counts]
            table.add_row(row.method if name == "mean" else "", label, *cells)
    show_table(table)
    say(f"figure: {out / 'simulate.svg'}; all numbers: {out / 'simulate.csv'}")


def planned_comparison(value: dict[str, Any], as_json: bool) -> None:
    """Print the trainings of a comparison and their estimated cost."""
    if as_json:
        return say_json(value)
    table = Table("method", "budget", "trains", title=f"trainings for table {value['table']}")
    for heading in ("steps", "MACs", "seeds", "done"):
        table.add_column(heading, justify="right")
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for entry in value["entries"]:
        groups.setdefault(tuple(entry[k] for k in ("method", "budget", "trains", "steps", "macs")), []).append(entry)
    for (method, budget, trains, steps, macs), entries in groups.items():
        seeds = ", ".join(str(entry["seed"]) for entry in entries)
        length = f"up to {steps} each" if trains == "stand-alone" else str(steps)
        done = sum(entry["done"] for entry in entries)
        table.add_row(method, str(budget), trains, length, f"{macs:.2e}", seeds, f"{done} of {len(entries)}")
    show_table(table)
    say(
        f"remaining: {value['macs']:.2e} MACs, about {time_words(value['seconds'])} in {value['workers']}"
        f" process{'' if value['workers'] == 1 else 'es'} of {value['threads']}"
        f" thread{'' if value['threads'] == 1 else 's'}, {value['precision']}"
    )
