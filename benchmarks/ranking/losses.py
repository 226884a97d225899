"""Compare what proxy trainings tell by their accuracy and by their training loss.

Reads the proxy trainings of all configurations (``short-all``) of a study. For every budget and seed: agreement with the truth of
their accuracies, of the mean loss over the second half of their steps, of the mean of both losses of all seeds, and of each
combined with a search on one SuperNet (``rankings.combine``, smoothed, without and with the count). Writes a CSV under
``benchmarks/results``.

    python benchmarks/ranking/losses.py benchmarks/results/samplers-own-table --shared fairnas@norm=affine --shared-budget 1560
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from both import folder_of, scores_of
from common import record

from poolwise import tables
from poolwise.models.cost import table_costs
from poolwise.rankings.combine import combine, standardize, with_proxy_trainings
from poolwise.rankings.smoothing import smooth
from poolwise.statistics import kendall_tau_b, regret

BUDGETS = (780, 1560, 3120, 4680)


def trained(study: Path, budget: int, seed: int, names: list[str]) -> tuple[int, np.ndarray, np.ndarray]:
    """Return the steps of each training, accuracy_P, and minus the mean loss_P (nats) over the second half of the steps."""
    trials = [t for t in folder_of(study, "short-all", budget, seed).trials().all() if t["state"] == "done"]
    length = max(trial["budget"] for trial in trials)
    longest = {trial["pooling"]: trial for trial in trials if trial["budget"] == length}
    losses = [np.mean([loss for step, loss in longest[name]["curve"] if 2 * step > length]) for name in names]
    return length, np.array([longest[name]["accuracy"] for name in names]), -np.array(losses)


@click.command()
@click.argument("study", type=click.Path(exists=True, path_type=Path))
@click.option("--shared", default="fairnas@norm=affine", show_default=True)
@click.option("--shared-budget", default=1560, show_default=True)
@click.option("--seeds", default=3, show_default=True)
def main(study: Path, shared: str, shared_budget: int, seeds: int) -> None:
    table = tables.load(json.loads((study / "study.json").read_text(encoding="utf-8"))["table"])
    names, truth_P = [str(pooling) for pooling in table.space], np.array(table.column(table.truth))
    count_P = np.array([cost.productive for cost in table_costs(table).values()], float)
    rows: list[dict[str, Any]] = []

    def judge(scores_P: np.ndarray, **setting: Any) -> None:
        tau, lost = float(kendall_tau_b(scores_P, truth_P)), float(regret(scores_P, truth_P, 3))
        rows.append({**setting, "tau-b": round(tau, 3), "regret@3": round(lost, 2)})

    for budget in BUDGETS:
        losses = []
        for seed in range(seeds):
            length, accuracy_P, loss_P = trained(study, budget, seed, names)
            losses.append(loss_P)
            shared_P = scores_of(study, shared, shared_budget, seed, names)
            for criterion, proxy_P in (("accuracy", accuracy_P), ("loss", loss_P)):
                setting: dict[str, Any] = {"budget": budget, "steps": length, "seed": seed, "by": criterion}
                judge(proxy_P, **setting, scores="raw")
                judge(smooth(table.space, proxy_P).scores, **setting, scores="smoothed")
                fused = combine(table.space, with_proxy_trainings(table.space, shared_P, proxy_P), count_P)
                judge(fused.smoothed_P, **setting, scores="with shared")
                judge(fused.estimate_P, **setting, scores="with shared and count")
        mean_P = np.mean([standardize(proxy_P) for proxy_P in losses], axis=0)
        setting = {"budget": budget, "steps": length, "seed": "mean of all", "by": "loss"}
        judge(mean_P, **setting, scores="raw")
        judge(smooth(table.space, mean_P).scores, **setting, scores="smoothed")
    for key in dict.fromkeys((row["steps"], row["by"], row["scores"]) for row in rows):
        chosen = [r for r in rows if (r["steps"], r["by"], r["scores"]) == key and r["seed"] != "mean of all"]
        taus, lost = [r["tau-b"] for r in chosen], [r["regret@3"] for r in chosen]
        click.echo(f"{key}: tau-b {np.mean(taus):.2f} ± {np.std(taus, ddof=1):.2f}, regret@3 {np.mean(lost):.1f}")
    for row in rows:
        if row["seed"] == "mean of all":
            click.echo(row)
    record(f"losses-{table.name}", rows)


if __name__ == "__main__":
    main()
