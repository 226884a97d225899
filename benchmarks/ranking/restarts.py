"""Find which proxy trainings tell most for their compute: number of steps, batch size, number of repeats.

Trains every configuration of the package's table from scratch, in the setting of a study's entry except for batch size,
length and learning rate, with seeds that no study uses. For every form: agreement with the truth of the mean loss over the
second half of the steps, of one seed and of means over several, and their cost in steps of the entry's batch size for every
configuration. Existing results in ``--out`` are reused; writes a CSV under ``benchmarks/results``.

    python benchmarks/ranking/restarts.py \
        benchmarks/results/samplers-own-table/runs/fairnas_norm_affine-1560-0 --out runs/restarts
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import record

from poolwise import tables
from poolwise.config import Config
from poolwise.experiment import Experiment, resolve
from poolwise.progress import Listener
from poolwise.rankings.combine import standardize
from poolwise.rankings.smoothing import smooth
from poolwise.statistics import kendall_tau_b, regret
from poolwise.storage import write_atomically
from poolwise.training.standalone import Purpose, train_standalone

TABLE = "resnet20w8-cifar10-10k"
PURPOSE = Purpose("restarts", weights_for="search", measured=False)
FORMS = ("128x52", "64x52", "32x52", "32x104", "16x104")  # batch x steps
MOST = 8  # largest number of seeds in a mean


def losses(experiment: Experiment, steps: int, seed: int) -> dict[str, list[float]]:
    """Return configuration -> its training loss (nats) along the steps."""
    outcomes = {
        str(pooling): train_standalone(experiment, pooling, seed, steps, PURPOSE, Listener())
        for pooling in experiment.space
    }
    return {name: [loss for _, loss in outcome.curve] for name, outcome in outcomes.items()}


@click.command()
@click.argument("entry", type=click.Path(exists=True, path_type=Path))
@click.option("--out", default="runs/restarts", show_default=True, type=click.Path(path_type=Path))
@click.option("--forms", default=",".join(FORMS), show_default=True, help="BATCHxSTEPS, or BATCHxSTEPS@LR.")
@click.option("--seeds", default=6, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(entry: Path, out: Path, forms: str, seeds: int, threads: int) -> None:
    torch.set_num_threads(threads)
    table = tables.load(TABLE)
    truth_P = np.array(table.column(table.truth))
    config = Config.from_flat(json.loads((entry / "run.json").read_text(encoding="utf-8"))["settings"])
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for form in forms.split(","):
        shape, _, lr = form.partition("@")
        batch, steps = map(int, shape.split("x"))
        experiment, scores = None, []
        for seed in range(1, seeds + 1):
            file = out / f"{form}-{seed}.json"
            if not file.exists():
                experiment = experiment or resolve(config.replace(batch_size=batch, lr=float(lr or config.training.lr)))
                write_atomically(file, json.dumps(losses(experiment, steps, seed)) + "\n")
            curves = json.loads(file.read_text(encoding="utf-8"))
            negative_losses_P = [-np.mean(curves[str(p)][len(curves[str(p)]) // 2 :]) for p in table.space]
            scores.append(standardize(np.array(negative_losses_P)))
        for count in range(1, min(seeds, MOST) + 1):
            means = [np.mean(chosen, axis=0) for chosen in itertools.combinations(scores, count)]
            smoothed = [smooth(table.space, mean_P).scores for mean_P in means]
            taus = [float(kendall_tau_b(mean_P, truth_P)) for mean_P in smoothed]
            rows.append(
                {
                    "batch": batch,
                    "steps": steps,
                    "learning rate": float(lr or config.training.lr),
                    "trainings": count,
                    f"steps of {config.training.batch_size} for each": round(
                        count * steps * batch / config.training.batch_size
                    ),
                    "tau-b": round(float(np.mean([kendall_tau_b(mean_P, truth_P) for mean_P in means])), 3),
                    "smoothed tau-b": round(float(np.mean(taus)), 3),
                    "its std": round(float(np.std(taus)), 3),
                    "regret@3": round(float(np.mean([regret(mean_P, truth_P, 3) for mean_P in smoothed])), 2),
                    "of": len(means),
                }
            )
            click.echo(rows[-1])
    record(f"restarts-{TABLE}", rows)


if __name__ == "__main__":
    main()
