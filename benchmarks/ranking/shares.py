"""How the agreement with the truth depends on the shares of short trainings, shared weights and the count.

Reads what studies left in ``compare.json``: every entry that has short trainings. The parts, each standardised, are added by
their shares and smoothed over neighbouring placements. ``estimated`` is what ``metrics.fuse`` makes of equal parts and the count,
with what the count then weighs against the scores; ``as the library does`` is what ``metrics.fuse_parts`` makes of them. Means
over seeds; a csv goes under ``benchmarks/results``.

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
from poolwise.spaces import PoolingSpace
from poolwise.statistics import fuse, fuse_parts, kendall_tau_b, regret, smooth, together
from poolwise.statistics.fusion import standard

SHARES = (
    *((0, 1, 0), (1, 0, 0), (0, 0, 1)),  # short trainings, shared weights, count
    *((1, 1, 0), (2, 1, 0), (1, 0, 1), (2, 0, 1)),
    *((2, 2, 1), (2, 1, 1), (3, 2, 1), (1, 1, 1), (3, 1, 2), (1, 1, 2)),
)
ESTIMATED = "1:1, the count by estimated weights"


def mixed(space: PoolingSpace, count_P: np.ndarray, shared_P: np.ndarray, own_P: np.ndarray) -> dict[str, Any]:
    """Scores by shares, and under ``swing`` what the count weighs against the scores where that is estimated."""
    parts_KP = np.stack([standard(own_P), standard(shared_P), standard(count_P)])
    both = together(space, shared_P, own_P)
    estimated = fuse(space, both.scores, count_P, own=True)
    assert estimated.count
    return {
        **{":".join(map(str, shares)): smooth(space, np.array(shares) @ parts_KP).scores for shares in SHARES},
        ESTIMATED: estimated.estimate,
        "as the library does": fuse_parts(space, both, count_P).estimate,
        "swing": estimated.count.weight / estimated.scores.weight,
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
                own = mixed(table.space, count_P, *np.array(entry["parts"]))
                groups.setdefault((entry["method"], entry["budget"]), []).append(own)
        for (method, budget), seeds in groups.items():
            swings = [own.pop("swing") for own in seeds]
            for shares in seeds[0]:
                taus = [float(kendall_tau_b(own[shares], truth_P)) for own in seeds]
                lost = np.mean([regret(own[shares], truth_P, 3) for own in seeds])
                about = {"study": study.name, "method": method, "budget": budget, "seeds": len(taus)}
                figures = {"tau-b": round(float(np.mean(taus)), 3), "regret@3": round(float(lost), 2)}
                swing = f"{min(swings):.2f} to {max(swings):.2f}" if shares == ESTIMATED else ""
                rows.append({**about, "short:shared:count": shares, **figures, "count : scores": swing})
                click.echo(rows[-1])
    record("shares", rows)


if __name__ == "__main__":
    main()
