"""Measure how the agreement with the truth depends on the shares of proxy trainings, shared weights and the count.

Reads the ``compare.json`` of studies: every entry that has proxy trainings. The standardized parts are added by their shares and
smoothed over neighboring configurations; ``as the library does`` is the estimate of ``rankings.combine``. Reports means over
seeds; writes a CSV under ``benchmarks/results``.

    python benchmarks/ranking/shares.py benchmarks/results/own-4680-nine-seeds benchmarks/results/other-images
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import RESULTS, record

from poolwise import tables
from poolwise.models.cost import table_costs
from poolwise.rankings.combine import combine, standardize, with_proxy_trainings
from poolwise.rankings.smoothing import smooth
from poolwise.spaces import PoolingSpace
from poolwise.statistics import kendall_tau_b, regret

SHARES = (
    *((0, 1, 0), (1, 0, 0), (0, 0, 1)),  # proxy trainings, shared weights, count
    *((1, 1, 0), (2, 1, 0), (1, 0, 1), (2, 0, 1)),
    *((2, 2, 1), (2, 1, 1), (3, 2, 1), (1, 1, 1), (3, 1, 2), (1, 1, 2)),
)


def mixed(space: PoolingSpace, count_P: np.ndarray, shared_P: np.ndarray, proxy_P: np.ndarray) -> dict[str, np.ndarray]:
    """Return scores by shares."""
    parts_KP = np.stack([standardize(proxy_P), standardize(shared_P), standardize(count_P)])
    both = with_proxy_trainings(space, shared_P, proxy_P)
    return {
        **{":".join(map(str, shares)): smooth(space, np.array(shares) @ parts_KP).scores for shares in SHARES},
        "as the library does": combine(space, both, count_P).estimate_P,
    }


@click.command()
@click.argument("studies", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def main(studies: tuple[Path, ...]) -> None:
    rows: list[dict[str, Any]] = []
    for study in studies:
        value = json.loads((study / "compare.json").read_text(encoding="utf-8"))
        name = value["table"]["name"]
        table = tables.load(str(RESULTS / name) if (RESULTS / name / f"{name}.csv").exists() else name)
        truth_P = np.array(table.column(table.truth))
        count_P = np.array([cost.productive for cost in table_costs(table).values()], float)
        groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for entry in value["entries"]:
            if entry.get("parts"):
                scores = mixed(table.space, count_P, *np.array(entry["parts"]))
                groups.setdefault((entry["method"], entry["budget"]), []).append(scores)
        for (method, budget), seeds in groups.items():
            for shares in seeds[0]:
                taus = [float(kendall_tau_b(scores[shares], truth_P)) for scores in seeds]
                lost = np.mean([regret(scores[shares], truth_P, 3) for scores in seeds])
                setting = {"study": study.name, "method": method, "budget": budget, "seeds": len(taus)}
                figures = {"tau-b": round(float(np.mean(taus)), 3), "regret@3": round(float(lost), 2)}
                rows.append({**setting, "short:shared:count": shares, **figures})
                click.echo(rows[-1])
    record("shares", rows)


if __name__ == "__main__":
    main()
