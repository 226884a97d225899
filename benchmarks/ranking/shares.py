"""How the agreement with the truth depends on the shares of short trainings, shared weights and the count.

Reads what studies left in ``compare.json``: every entry that has short trainings. The parts, each standardised, are added by
their shares and smoothed over neighbouring placements. ``estimated`` is what ``metrics.fuse`` makes of equal parts and the count,
``as the library does`` what ``metrics.fuse_parts`` does. Means over seeds; a csv goes under ``benchmarks/results``.

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
from poolwise.metrics import fuse, fuse_parts, kendall_tau_b, regret, smooth, together
from poolwise.metrics.fusion import standard

SHARES = (
    *((0, 1, 0), (1, 0, 0), (0, 0, 1)),  # short trainings, shared weights, count
    *((1, 1, 0), (2, 1, 0), (1, 0, 1), (2, 0, 1)),
    *((2, 2, 1), (2, 1, 1), (3, 2, 1), (1, 1, 1), (3, 1, 2), (1, 1, 2)),
)


@click.command()
@click.argument("studies", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def main(studies: tuple[Path, ...]) -> None:
    rows: list[dict[str, Any]] = []
    for study in studies:
        value = json.loads((study / "compare.json").read_text(encoding="utf-8"))
        name = value["table"]["name"]
        table = tables.load(str(RESULTS / name) if (RESULTS / name / f"{name}.csv").exists() else name)
        truth_P = np.array(table.column(table.truth))
        count_P = np.array([cost.productive for cost in tables.costs(table).values()], float)
        groups: dict[tuple[str, int], list[np.ndarray]] = {}
        for entry in value["entries"]:
            if entry.get("parts"):
                groups.setdefault((entry["method"], entry["budget"]), []).append(np.array(entry["parts"]))
        for (method, budget), found in groups.items():
            told: dict[str, list[np.ndarray]] = {}
            for shared_P, own_P in found:
                parts_KP = np.stack([standard(own_P), standard(shared_P), standard(count_P)])
                for shares in SHARES:
                    mixed_P = smooth(table.space, np.array(shares) @ parts_KP).scores
                    told.setdefault(":".join(map(str, shares)), []).append(mixed_P)
                both = together(table.space, shared_P, own_P)
                estimated = fuse(table.space, both.scores, count_P, own=True)
                told.setdefault("1:1, the count by estimated weights", []).append(estimated.estimate)
                told.setdefault("as the library does", []).append(fuse_parts(table.space, both, count_P).estimate)
            for shares_said, scores in told.items():
                taus = [float(kendall_tau_b(scores_P, truth_P)) for scores_P in scores]
                about = {"study": study.name, "method": method, "budget": budget, "seeds": len(taus)}
                lost = np.mean([regret(scores_P, truth_P, 3) for scores_P in scores])
                figures = {"tau-b": round(float(np.mean(taus)), 3), "regret@3": round(float(lost), 2)}
                rows.append({**about, "short:shared:count": shares_said, **figures})
                click.echo(rows[-1])
    record("shares", rows)


if __name__ == "__main__":
    main()
