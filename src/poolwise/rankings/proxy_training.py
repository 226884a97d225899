"""Proxy training: train every configuration briefly from scratch and score it by how fast its loss falls.

Accuracy on shared weights depends on what the other configurations did to them. In proxy training no weights are shared. All
configurations of one seed start from the same weights and use the same batches, so only the downsampling differs. The score
is a weighted mean of the training loss over the steps, by default over their second half (``WEIGHTINGS``). It needs no scoring
pass, and after a few dozen steps it already predicts stand-alone accuracy, while measured accuracy is still noise (training
speed estimation, TSE: Ru et al., "Speedy Performance Estimation for Neural Architecture Search", NeurIPS 2021). Results are
stored in ``short.sqlite``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
DECAY = 0.9  # gamma of TSE-EMA, per step


def _half(ends_N: np.ndarray) -> np.ndarray:
    return (2 * ends_N > ends_N[-1]).astype(float)


def _sum(ends_N: np.ndarray) -> np.ndarray:
    return np.diff(ends_N, prepend=0.0)


def _ema(ends_N: np.ndarray) -> np.ndarray:
    """Return the sum of gamma^(T - t) over the steps t of each point: a geometric series."""
    steps_N = np.diff(ends_N, prepend=0.0)
    return DECAY ** (ends_N[-1] - ends_N) * (1 - DECAY**steps_N) / (1 - DECAY)


WEIGHTINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"half": _half, "sum": _sum, "ema": _ema}
"""ends_N, the last step of each point of a training curve -> weights of the points.

half: equal weights in the second half of the T steps (TSE-E of the paper, with half of the steps for E). sum: all steps (TSE).
ema: gamma^(T - t) for step t (TSE-EMA). A score is divided by the sum of its weights, which does not change the order. In the
paper t counts epochs; proxy trainings are shorter than a few epochs, so t counts steps here, and gamma = 0.9 looks back about
ten steps. A point of a long curve is the mean of several steps and has the weight of all of them (half: of one)."""


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

    A score is minus the mean training loss (nats), weighted as the ``short_loss`` setting says. A failed training gets the
    worst score of its seed.

    Raises:
        RequestError: If some trainings are not finished.
        RunFailure: If all trainings of a seed failed.
    """
    (length, seeds), weighting = proxy_budget(experiment), experiment.config.ranking.proxy_loss
    scores_by_name: dict[str, list[float]] = {}
    rows = {(t["pooling"], t["seed"]): t for t in folder.trials(FILE).all() if t["budget"] == length} if seeds else {}
    for seed in range(1, seeds + 1):
        trials = {str(p): rows.get((str(p), seed)) for p in experiment.space}
        if None in trials.values():
            raise RequestError(
                f"the proxy trainings in {folder.path} are not finished: run poolwise resume {folder.path} first"
            )
        seed_scores = {
            name: score(row["curve"], weighting) for name, row in trials.items() if row and row["state"] == "done"
        }
        if not seed_scores:
            raise RunFailure(f"all proxy trainings with seed {seed} failed: start a new run with a smaller --lr")
        for name in trials:
            scores_by_name.setdefault(name, []).append(seed_scores.get(name, min(seed_scores.values())))
    return scores_by_name


def score(curve: Sequence[Sequence[float]], weighting: str = "half") -> float:
    """Return minus the weighted mean loss (nats) of a complete training curve of (last step, mean loss) points."""
    ends_N, losses_N = np.array(curve, float).T
    if weighting == "half":  # as a plain mean, whose last bits are those of earlier versions
        return -float(np.mean(losses_N[_half(ends_N) > 0]))
    weights_N = WEIGHTINGS[weighting](ends_N)
    return -float(weights_N @ losses_N / weights_N.sum())
