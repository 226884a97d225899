"""Write the tables of ``docs/results.md`` from committed results of ``poolwise compare``.

Every table stands between ``<!-- results: FOLDER -->`` and ``<!-- end -->``, FOLDER under ``benchmarks/results/``.

    python benchmarks/results_page.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "results.md"
BLOCK = re.compile(r"(<!-- results: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
TREATMENTS = ("raw", "smoothed", "fused")
COLUMNS = ["method", "seeds", "spent / budget", "tau-b", "regret@1", "regret@3"]
COLUMNS += [f"{words}: {name}" for words in TREATMENTS[1:] for name in ("tau-b", "regret@1", "regret@3")]
HEADER = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]


def figure(row: dict[str, Any], measure: str, digits: int) -> str:
    """Mean, standard deviation over seeds where there are several, and the interval."""
    told = row[measure]
    spread = "" if told["std"] is None else f" ± {told['std']:.{digits}f}"
    return f"{told['mean']:.{digits}f}{spread} ({told['low']:.{digits}f} to {told['high']:.{digits}f})"


def lines(value: dict[str, Any]) -> list[str]:
    """One Markdown table a budget, best tau-b first; what needs no training in a table of its own."""
    told: list[str] = []
    plain = [row for row in value["summary"] if row["treatment"] == "raw"]
    treated = {(row["method"], row["budget"], row["treatment"]): row for row in value["summary"]}
    budgets = sorted({row["budget"] for row in plain}, key=lambda budget: budget or 0)
    for budget in budgets:
        told += [f"**{f'Budget: {budget:,} steps' if budget else 'Not trained here'}**", "", *HEADER]
        own = sorted((r for r in plain if r["budget"] == budget), key=lambda r: -r["tau_b"]["mean"])
        for row in own:
            spent = f"{row['spent_macs'] / row['budget_macs']:.2f}" if row["budget_macs"] and row["spent_macs"] else "-"
            cells = [f"`{row['method']}`", str(row["n"]), spent]
            for one in (treated[row["method"], budget, treatment] for treatment in TREATMENTS):
                cells += [figure(one, "tau_b", 2), figure(one, "regret@1", 1), figure(one, "regret@3", 1)]
            told.append(f"| {' | '.join(cells)} |")
        told.append("")
    return told


def render(page: str) -> str:
    """``page`` with every table made anew."""

    def block(match: re.Match[str]) -> str:
        value = json.loads((HERE / "results" / match[2] / "compare.json").read_text(encoding="utf-8"))
        return match[1] + "\n" + "\n".join(lines(value)) + match[3]

    return BLOCK.sub(block, page)


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
