"""Write the tables of ``docs/results.md`` from committed results.

Every table stands between ``<!-- KIND: NAME -->`` and ``<!-- end -->``. KIND is ``results`` (a folder of ``poolwise compare``
under ``benchmarks/results/``), ``simulate`` (a folder of ``poolwise simulate``), ``verdict`` (the CSV of ``decide/verdict.py``)
or ``stages`` (a folder of ``ranking/lab.py``).

    python benchmarks/results_page.py
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGES = [HERE.parent / "docs" / "results.md"]
BLOCK = re.compile(r"(<!-- (results|simulate|verdict|stages): (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
COUNTS = (2, 3, 4, 5, 6, 7, 8, 10)  # trainings
TREATMENTS = ("raw", "smoothed", "fused")
COLUMNS = ["method", "seeds", "spent / budget", "tau-b", "regret@1", "regret@3"]
COLUMNS += [f"{words}: {name}" for words in TREATMENTS[1:] for name in ("tau-b", "regret@1", "regret@3")]
HEADER = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]


def figure(row: dict[str, Any], measure: str, digits: int) -> str:
    """Return mean, standard deviation over seeds (if there are several) and interval."""
    statistics = row[measure]
    spread = "" if statistics["std"] is None else f" ± {statistics['std']:.{digits}f}"
    return (
        f"{statistics['mean']:.{digits}f}{spread} ({statistics['low']:.{digits}f} to {statistics['high']:.{digits}f})"
    )


def lines(value: dict[str, Any]) -> list[str]:
    """Return one Markdown table per budget, best tau-b first; methods without training have their own table."""
    page: list[str] = []
    plain = [row for row in value["summary"] if row["treatment"] == "raw"]
    treated = {(row["method"], row["budget"], row["treatment"]): row for row in value["summary"]}
    budgets = sorted({row["budget"] for row in plain}, key=lambda budget: budget or 0)
    for budget in budgets:
        page += [f"**{f'Budget: {budget:,} steps' if budget else 'Not trained here'}**", "", *HEADER]
        rows = sorted((r for r in plain if r["budget"] == budget), key=lambda r: -r["tau_b"]["mean"])
        for row in rows:
            spent = f"{row['spent_macs'] / row['budget_macs']:.2f}" if row["budget_macs"] and row["spent_macs"] else "-"
            cells = [f"`{row['method']}`", str(row["n"]), spent]
            for summary in (treated[row["method"], budget, treatment] for treatment in TREATMENTS):
                cells += [figure(summary, "tau_b", 2), figure(summary, "regret@1", 1), figure(summary, "regret@3", 1)]
            page.append(f"| {' | '.join(cells)} |")
        page.append("")
    return page


def simulated(value: dict[str, Any]) -> list[str]:
    """Return a table of mean regret, its 90 % quantile, and how often the best was chosen and trained, by number of trainings."""
    counts = [count for count in COUNTS if count <= value["trials"]]
    page = [
        f"`{value['command']}`",
        "",
        f"{value['runs']:,} runs. Each cell: mean regret in points, its 90 % quantile; share of runs that have chosen, and"
        f" that have trained, a configuration with a regret of at most {value['tolerance']:.2f} points by then.",
        "",
    ]
    page += [f"| method | after {' | '.join(map(str, counts))} |", f"|{' --- |' * (1 + len(counts))}"]
    for row in value["methods"]:
        cells = [
            f"{row['mean'][i - 1]:.2f}, {row['q90'][i - 1]:.2f}; {100 * row['found'][i - 1]:.0f} %,"
            f" {100 * row['reached'][i - 1]:.0f} %"
            for i in counts
        ]
        page.append(f"| `{row['method']}` | {' | '.join(cells)} |")
    return [*page, ""]


def judged(rows: list[dict[str, str]]) -> list[str]:
    """Return a table with the share of each verdict, one line per gain, noise and number of seeds."""
    words = ("better", "no worse", "not shown", "worse", "the default itself")
    table = [f"| truly better by | noise | seeds | {' | '.join(words)} | seeds used |", f"|{' --- |' * 9}"]
    for row in rows:
        gain = "0 (all equal)" if float(row["gain"]) == 0 else row["gain"]
        shares = [f"{100 * float(row[word]):.1f} %" for word in words]
        table.append(f"| {gain} | {row['noise']} | {row['looks']} | {' | '.join(shares)} | {float(row['seeds']):.1f} |")
    return [*table, ""]


def relabel(variant: str) -> str:
    """Return the label of a lab variant with the current term; the committed results keep the old one."""
    return variant.replace("short trainings", "proxy trainings")


def staged(folder: Path) -> list[str]:
    """Return smoothed tau-b of every lab variant at each stage and budget, best of its last stage first."""
    stages = json.loads((folder / "stages.json").read_text(encoding="utf-8"))["stages"]
    columns: dict[str, dict[str, str]] = {}
    last: dict[str, tuple[int, float]] = {}
    for i, stage in enumerate(stages):
        with (folder / f"lab-{stage['stage']}.csv").open(encoding="utf-8") as file:
            rows = [r for r in csv.DictReader(file) if (r["scores"], r["measure"]) == ("smoothed", "tau_b")]
        for budget in stage["budgets"]:
            heading = f"{stage['stage']}: {budget:,} steps, {len(stage['seeds'])} seed{'s' if len(stage['seeds']) > 1 else ''}"
            columns[heading] = {
                relabel(r["variant"]): f"{float(r['mean']):.2f}" + (f" ± {float(r['std']):.2f}" if r["std"] else "")
                for r in rows
                if r["budget"] == str(budget)
            }
        last |= {relabel(variant): (i, mean) for variant, mean in stage["variants"].items()}
    order = sorted(last, key=lambda variant: last[variant], reverse=True)
    table = [f"| variant | {' | '.join(columns)} |", f"|{' --- |' * (1 + len(columns))}"]
    table += [
        f"| {variant} | {' | '.join(cells.get(variant, '') for cells in columns.values())} |" for variant in order
    ]
    return [*table, ""]


def content(kind: str, name: str) -> list[str]:
    if kind == "stages":
        return staged(HERE / "results" / name)
    if kind == "verdict":
        (path,) = (HERE / "results").glob(f"{name}_*.csv")
        with path.open(encoding="utf-8") as file:
            return judged(list(csv.DictReader(file)))
    file_name, render_table = {"results": ("compare.json", lines), "simulate": ("simulate.json", simulated)}[kind]
    return render_table(json.loads((HERE / "results" / name / file_name).read_text(encoding="utf-8")))


def render(page: str) -> str:
    """Return ``page`` with every table regenerated."""

    def block(match: re.Match[str]) -> str:
        return match[1] + "\n" + "\n".join(content(match[2], match[3])) + match[4]

    return BLOCK.sub(block, page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(render(path.read_text(encoding="utf-8")), encoding="utf-8")
