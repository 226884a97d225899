"""Measure what combining does with useless parts: shuffled scores, or a shuffled count, compared with the better single part.

Reads the scores in the ``compare.json`` of a study. Reports means over seeds and shuffles for each method and budget; ``lost`` is
how much less the combination with one useless part agrees with the truth than the other part does by itself. Writes a CSV under
``benchmarks/results``.

    python benchmarks/ranking/useless.py benchmarks/results/compare-published
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import record

from poolwise import tables
from poolwise.models.cost import table_costs
from poolwise.rankings import baselines
from poolwise.rankings.combine import combine, with_proxy_trainings
from poolwise.rankings.smoothing import smooth
from poolwise.statistics import kendall_tau_b

CONTROLS = (*baselines.COUNTED, *baselines.zero_cost_names())


def judged(
    table: tables.Table, parts_KP: np.ndarray, count_P: np.ndarray, shuffles: int, seed: int
) -> dict[str, float]:
    """Return agreement with the truth of scores and count, of both combined, and with one of them shuffled.

    ``parts_KP``: the scores, or accuracy on shared weights and score of proxy trainings.
    """
    truth_P, generator = np.array(table.column(table.truth)), np.random.default_rng(seed)

    def tau(values_P: np.ndarray) -> float:
        return float(kendall_tau_b(values_P, truth_P))

    def fused(parts_KP: np.ndarray, count_P: np.ndarray) -> float:
        scores = parts_KP[0] if len(parts_KP) == 1 else with_proxy_trainings(table.space, *parts_KP)
        return tau(combine(table.space, scores, count_P).estimate_P)

    orders = [generator.permutation(len(truth_P)) for _ in range(shuffles)]
    scores_P = parts_KP[0] if len(parts_KP) == 1 else with_proxy_trainings(table.space, *parts_KP).scores_P
    return {
        "scores": tau(smooth(table.space, scores_P).scores),
        "count": tau(count_P),
        "fused": fused(parts_KP, count_P),
        "scores shuffled": float(np.mean([fused(parts_KP[:, o], count_P) for o in orders])),
        "count shuffled": float(np.mean([fused(parts_KP, count_P[o]) for o in orders])),
    }


@click.command()
@click.argument("study", type=click.Path(exists=True, path_type=Path))
@click.option("--shuffles", default=20, show_default=True)
def main(study: Path, shuffles: int) -> None:
    value = json.loads((study / "compare.json").read_text(encoding="utf-8"))
    table = tables.load(value["table"]["name"])
    count_P = np.array([cost.productive for cost in table_costs(table).values()], float)
    groups: dict[tuple[str, Any], list[dict[str, float]]] = {}
    for entry in value["entries"]:
        if entry["method"] not in CONTROLS:
            parts_KP = np.array(entry.get("parts") or [entry["scores"]])
            taus = judged(table, parts_KP, count_P, shuffles, entry["seed"])
            groups.setdefault((entry["method"], entry["budget"]), []).append(taus)
    rows = []
    for (method, budget), seeds in groups.items():
        means = {name: float(np.mean([seed_taus[name] for seed_taus in seeds])) for name in seeds[0]}
        lost = {
            "lost to shuffled scores": means["count"] - means["scores shuffled"],
            "lost to a shuffled count": means["scores"] - means["count shuffled"],
        }
        rows.append(
            {
                "method": method,
                "budget": budget,
                "seeds": len(seeds),
                **{k: round(v, 3) for k, v in (means | lost).items()},
            }
        )
        click.echo(rows[-1])
    record(f"useless-parts-{value['table']['name']}", rows)


if __name__ == "__main__":
    main()
