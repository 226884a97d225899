"""Short trainings of every configuration on weights of its own, judged by how fast their loss falls.

Weights that configurations share tell how good a configuration is on what the others made of them. Here each has its own:
the same initial weights and the same batches for all with one seed, so that only the placement differs, and the mean
training loss of the second half of the steps as the score. It needs no scoring pass, and after a few dozen steps it agrees
with the truth where accuracy is still noise (training speed estimation: Ru et al., "Speedy Performance Estimation for
Neural Architecture Search", NeurIPS 2021). Finished ones are in ``short.sqlite``.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from poolwise import standalone, workers
from poolwise.errors import PoolwiseError, RequestError, RunFailure, WorkerDied
from poolwise.experiment import Experiment
from poolwise.progress import Listener
from poolwise.space import Pooling
from poolwise.storage import RunFolder
from poolwise.supernets.budget import short_trainings
from poolwise.training import LossNotFinite

FILE = "short.sqlite"
STREAM = "short"  # random streams of these trainings share nothing with those of others


def train(problem: Experiment, folder: RunFolder, listener: Listener) -> None:
    """Do the short trainings that are not done. Raises Interrupted when asked to stop; what is finished is kept."""
    length, seeds = short_trainings(problem)
    if not seeds:
        return
    trials, asked = folder.trials(FILE), [(str(p), seed) for seed in range(1, seeds + 1) for p in problem.space]
    known = trials.states(length)
    todo = [(*pair, length) for pair in asked if pair not in known]
    listener.start("short", len(asked) * length, (len(asked) - len(todo)) * length)
    parallel = workers.for_trainings(problem)
    for (pooling, seed, _), result in workers.each(problem, _train, todo, listener, parallel.workers, parallel.threads):
        if isinstance(result, (LossNotFinite, WorkerDied)):
            trials.record_failure(pooling, seed, length, str(result))
            listener.note(f"failed, and counted as the worst: {result}")
        elif isinstance(result, PoolwiseError):
            raise result
        else:
            trials.record(pooling, seed, length, None, *result)
    listener.finish()


def _train(
    problem: Experiment, listener: Listener, _hold: None, pooling: str, seed: int, length: int
) -> tuple[list[tuple[int, float]], float]:
    begin = time.perf_counter()
    part = replace(standalone.on_halves(problem, length, STREAM), begins="search")
    curve, _ = standalone.trained(problem, Pooling.parse(pooling), seed, listener, part)
    return curve, time.perf_counter() - begin


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
