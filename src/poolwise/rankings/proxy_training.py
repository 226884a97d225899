"""Short trainings of every configuration on weights of its own, judged by how fast their loss falls.

Weights that configurations share tell how good a configuration is on what the others made of them. Here each has its own:
the same initial weights and the same batches for all with one seed, so that only the placement differs, and the mean
training loss of the second half of the steps as the score. It needs no scoring pass, and after a few dozen steps it agrees
with the truth where accuracy is still noise (training speed estimation: Ru et al., "Speedy Performance Estimation for
Neural Architecture Search", NeurIPS 2021). Finished ones are in ``short.sqlite``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from poolwise.errors import RequestError, RunFailure
from poolwise.experiment import Experiment
from poolwise.parallelism import for_trainings
from poolwise.progress import Listener
from poolwise.storage import RunFolder
from poolwise.supernets.budget import short_trainings
from poolwise.training.standalone import Purpose
from poolwise.training.trials import Request, TrialRunner

FILE = "short.sqlite"
PURPOSE = Purpose("short", weights="search", measured=False)


def train(experiment: Experiment, folder: RunFolder, listener: Listener) -> None:
    """Do the proxy trainings that are not recorded yet. Raises Interrupted on a request to stop; finished ones are kept."""
    steps, seeds = short_trainings(experiment)
    if not seeds:
        return
    parallel = for_trainings(experiment)
    runner = TrialRunner(
        experiment,
        folder.trials(FILE),
        PURPOSE,
        listener,
        workers=parallel.workers,
        threads=parallel.threads,
        consequence="; it counts as the worst",
    )
    runner.run([Request(str(p), seed, steps) for seed in range(1, seeds + 1) for p in experiment.space], "short")


def scores(problem: Experiment, folder: RunFolder) -> dict[str, list[float]]:
    """Configuration -> minus its mean training loss (nats) over the second half of the steps, one for each seed.

    Empty where a run has no short trainings. A training that failed has the worst score of its seed. Raises RequestError where
    some are not done, RunFailure where all failed.
    """
    length, seeds = short_trainings(problem)
    found: dict[str, list[float]] = {}
    rows = {(t["pooling"], t["seed"]): t for t in folder.trials(FILE).all() if t["budget"] == length} if seeds else {}
    for seed in range(1, seeds + 1):
        own = {str(p): rows.get((str(p), seed)) for p in problem.space}
        if None in own.values():
            raise RequestError(
                f"short trainings of {folder.path} are not done: finish the search first, poolwise resume {folder.path}"
            )
        told = {name: _score(row) for name, row in own.items() if row and row["state"] == "done"}
        if not told:
            raise RunFailure(f"all short trainings with seed {seed} failed: start anew with a smaller --lr")
        for name in own:
            found.setdefault(name, []).append(told.get(name, min(told.values())))
    return found


def _score(trial: dict[str, Any]) -> float:
    return -float(np.mean([loss for step, loss in trial["curve"] if 2 * step > trial["budget"]]))
