"""Stand-alone training of every configuration of a space, or of a given list, with several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from poolwise.errors import PoolwiseError
from poolwise.experiment import Experiment
from poolwise.parallelism import for_trainings
from poolwise.progress import Listener
from poolwise.spaces import Pooling
from poolwise.storage import FORMAT, RunFolder, environment
from poolwise.storage.schemas import ExhaustiveFile
from poolwise.storage.tables import seed_agreement
from poolwise.training.standalone import RETRAINING
from poolwise.training.trials import TrainingRequest, TrialRunner


def exhaustive(
    experiment: Experiment, folder: RunFolder, poolings: Sequence[Pooling], listener: Listener, retry: bool = False
) -> dict[str, Any]:
    """Train all missing (configuration, seed) pairs and write ``exhaustive.json``.

    A training with a non-finite loss is recorded as failed and reported; ``retry`` repeats failed trainings.
    """
    names = [str(pooling) for pooling in poolings]
    seeds = list(range(1, experiment.config.retrain.seeds + 1))
    steps, parallel = experiment.retrain_steps, for_trainings(experiment)
    runner = TrialRunner(
        experiment,
        folder.trials(),
        RETRAINING,
        listener,
        parallel=parallel,
        retry_failed=retry,
        record_errors=(PoolwiseError,),
    )
    requested = [TrainingRequest(name, seed, steps) for seed in seeds for name in names]
    rows = runner.run(requested, "exhaustive")
    results = []
    for name in names:
        accuracies = [rows[TrainingRequest(name, seed, steps)]["accuracy"] for seed in seeds]
        done = [value for value in accuracies if value is not None]
        results.append(
            {
                "pooling": name,
                "accuracies": accuracies,
                "mean": float(np.mean(done)) if done else None,
                "std": float(np.std(done, ddof=1)) if len(done) > 1 else None,
            }
        )
    value = {
        "format": FORMAT,
        "space": experiment.space.to_json(),
        "seeds": seeds,
        "steps": steps,
        "results": results,
        "failed": [{"pooling": p, "seed": s, "error": row["error"]} for (p, s, _), row in rows.items() if row["error"]],
        "width": experiment.width,
        "noise": _noise(results),
        "ceiling": seed_agreement(_complete(results)),
        "settings": experiment.config.to_flat(),
        "data": experiment.describe_data(),
        "precision": str(experiment.precision),
        "threads": parallel.threads,
        **environment(),
    }
    folder.write_json(ExhaustiveFile.FILE, value)
    return value


def _noise(results: list[dict[str, Any]]) -> float | None:
    """Return the standard deviation between seeds in points, pooled over configurations; None without repeats."""
    stds = [result["std"] for result in results if result["std"] is not None]
    return 100 * float(np.sqrt(np.mean(np.square(stds)))) if stds else None


def _complete(results: list[dict[str, Any]]) -> list[list[float]]:
    """Return one list of accuracies per seed, for the configurations that have a result for every seed."""
    complete = [result["accuracies"] for result in results if None not in result["accuracies"]]
    return [list(column) for column in zip(*complete, strict=True)] if len(complete) > 1 else []
