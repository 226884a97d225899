"""Proxy training: train every configuration briefly from scratch and score it by how fast its loss falls.

Accuracy on shared weights depends on what the other configurations did to them. In proxy training no weights are shared. All
configurations of one seed start from the same weights and use the same batches, so only the downsampling differs. The score
is the mean training loss over the second half of the steps. It needs no scoring pass, and after a few dozen steps it already
predicts stand-alone accuracy, while measured accuracy is still noise (training speed estimation: Ru et al., "Speedy
Performance Estimation for Neural Architecture Search", NeurIPS 2021). Results are stored in ``short.sqlite``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from poolwise.errors import RequestError, RunFailure
from poolwise.experiment import Experiment
from poolwise.parallelism import for_trainings
from poolwise.progress import Listener
from poolwise.storage import RunFolder
from poolwise.supernets.budget import proxy_budget
from poolwise.training.standalone import Purpose
from poolwise.training.trials import TrainingRequest, TrialRunner

FILE = "short.sqlite"
PURPOSE = Purpose("short", weights_for="search", measured=False)


def train(experiment: Experiment, folder: RunFolder, listener: Listener) -> None:
    """Run the proxy trainings that are not recorded yet.

    Raises:
        Interrupted: If ``listener`` requests a stop. Finished trainings are kept.
    """
    steps, seeds = proxy_budget(experiment)
    if not seeds:
        return
    runner = TrialRunner(
        experiment,
        folder.trials(FILE),
        PURPOSE,
        listener,
        parallel=for_trainings(experiment),
        consequence="; it counts as the worst",
    )
    runner.run(
        [TrainingRequest(str(p), seed, steps) for seed in range(1, seeds + 1) for p in experiment.space], "short"
    )


def scores(experiment: Experiment, folder: RunFolder) -> dict[str, list[float]]:
    """Return the scores of each configuration, one per seed; empty if the run has no proxy trainings.

    A score is minus the mean training loss (nats) over the second half of the steps. A failed training gets the worst
    score of its seed.

    Raises:
        RequestError: If some trainings are not finished.
        RunFailure: If all trainings of a seed failed.
    """
    length, seeds = proxy_budget(experiment)
    scores_by_name: dict[str, list[float]] = {}
    rows = {(t["pooling"], t["seed"]): t for t in folder.trials(FILE).all() if t["budget"] == length} if seeds else {}
    for seed in range(1, seeds + 1):
        trials = {str(p): rows.get((str(p), seed)) for p in experiment.space}
        if None in trials.values():
            raise RequestError(
                f"the proxy trainings in {folder.path} are not finished: run poolwise resume {folder.path} first"
            )
        seed_scores = {name: _score(row) for name, row in trials.items() if row and row["state"] == "done"}
        if not seed_scores:
            raise RunFailure(f"all proxy trainings with seed {seed} failed: start a new run with a smaller --lr")
        for name in trials:
            scores_by_name.setdefault(name, []).append(seed_scores.get(name, min(seed_scores.values())))
    return scores_by_name


def _score(trial: dict[str, Any]) -> float:
    return -float(np.mean([loss for step, loss in trial["curve"] if 2 * step > trial["budget"]]))
