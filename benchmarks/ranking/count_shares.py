"""Compare fixed shares of the count of productive convolutions in rankings without proxy trainings.

Reads the scores in the ``compare.json`` of studies: every sampler, and every column of a table, whose ranking has no proxy
trainings. Scores and count are standardized, added by their shares, and smoothed over neighboring configurations; ``as the
library does`` is the estimate of ``rankings.combine``. Prints means over all rankings of a table, for the scores as they are, for
shuffled scores and for a shuffled count; writes a CSV under ``benchmarks/results``.

    python benchmarks/ranking/count_shares.py benchmarks/results/*/compare.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import RESULTS, record

from poolwise import tables
from poolwise.models.cost import table_costs
from poolwise.rankings.combine import combine, standardize
from poolwise.rankings.smoothing import smooth
from poolwise.statistics import kendall_tau_b, regret
from poolwise.supernets import samplers

SHARES = ((1, 0), (4, 1), (3, 1), (2, 1), (3, 2), (1, 1), (2, 3), (1, 2), (1, 3), (0, 1))  # scores, count
LIBRARY = "as the library does"


def table_of(name: str) -> tables.Table:
    """Return a table of the package, or one among the results."""
    return tables.load(str(RESULTS / name) if (RESULTS / name / f"{name}.csv").exists() else name)


def rankings(studies: tuple[Path, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name of the table and the scores of every ranking, each once."""
    seen = set()
    trained = {sampler.name for sampler in samplers.available()}
    for study in studies:
        value = json.loads(study.read_text(encoding="utf-8"))
        for entry in value["entries"]:
            known = entry["method"].startswith("supernets") or entry["method"].split("@")[0] in trained
            key = (value["table"]["name"], *np.round(entry["scores"], 8))
            if known and "parts" not in entry and key not in seen:
                seen.add(key)
                yield key[0], np.array(entry["scores"])


def judged(table: tables.Table, scores_P: np.ndarray, count_P: np.ndarray) -> dict[str, tuple[float, float, float]]:
    """Return shares -> agreement with the truth, regret of the first and of the first three."""
    truth_P, parts_KP = np.array(table.column(table.truth)), np.stack([standardize(scores_P), standardize(count_P)])
    scores_by_share = {f"{a}:{b}": smooth(table.space, np.array([a, b]) @ parts_KP).scores for a, b in SHARES}
    scores_by_share[LIBRARY] = combine(table.space, scores_P, count_P).estimate_P
    return {
        shares: (float(kendall_tau_b(mixed_P, truth_P)), regret(mixed_P, truth_P, 1), regret(mixed_P, truth_P, 3))
        for shares, mixed_P in scores_by_share.items()
    }


@click.command()
@click.argument("studies", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def main(studies: tuple[Path, ...]) -> None:
    generator = np.random.default_rng(0)
    groups: dict[tuple[str, str], list[dict[str, tuple[float, float, float]]]] = {}
    for name, scores_P in rankings(studies):
        table = table_of(name)
        count_P = np.array([cost.productive for cost in table_costs(table, "resnet20").values()], float)
        cases = {
            "as they are": (scores_P, count_P),
            "scores shuffled": (generator.permutation(scores_P), count_P),
            "count shuffled": (scores_P, generator.permutation(count_P)),
        }
        for case, parts in cases.items():
            groups.setdefault((name, case), []).append(judged(table, *parts))
    rows: list[dict[str, Any]] = []
    for (name, case), measured in sorted(groups.items()):
        for shares in measured[0]:
            tau, first, three = np.mean([figures[shares] for figures in measured], axis=0)
            means = {
                "tau-b": round(float(tau), 3),
                "regret@1": round(float(first), 2),
                "regret@3": round(float(three), 2),
            }
            rows.append({"table": name, "rankings": len(measured), "parts": case, "scores:count": shares, **means})
            click.echo(rows[-1])
    record("count-shares", rows)


if __name__ == "__main__":
    main()
