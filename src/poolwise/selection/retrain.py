"""Retraining of the picks and the default, and the verdict: new seeds, paired, on the test set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from poolwise import statistics
from poolwise.errors import PoolwiseError, RunFailure, WorkerDied
from poolwise.experiment import Experiment
from poolwise.parallelism import for_trainings
from poolwise.progress import Listener
from poolwise.selection.picks import picks_of
from poolwise.spaces import Pooling
from poolwise.storage import FORMAT, RunFolder, Trials, environment
from poolwise.storage.schemas import RankingFile, RetrainFile, VerdictFile
from poolwise.training.standalone import RETRAINING
from poolwise.training.trials import TrainingRequest, TrialRunner


def retrain(experiment: Experiment, folder: RunFolder, listener: Listener) -> dict[str, Any]:
    """Retrain the picks and the default; write ``retrain.json`` and ``verdict.json``.

    Finished trainings are read from ``trials.sqlite`` and not repeated. The seeds are new: none was used to choose the
    picks. With ``until_decided``, the pick and the default get additional seeds, one at a time, until the comparison is
    decided or ``max_seeds`` is reached.
    """
    config, default = experiment.config, str(experiment.default)
    roles = picks_of(folder, config).roles
    pick, seeds = next(iter(roles)), list(range(1, config.retrain.seeds + 1))
    _train(experiment, folder, [(p, s) for s in seeds for p in roles], listener)
    looks = (
        (config.retrain.seeds, config.retrain.max_seeds) if config.retrain.until_decided and pick != default else None
    )
    pair = list(seeds)
    while looks and len(pair) < config.retrain.max_seeds:
        pair_accuracies = [_accuracies(experiment, folder, pooling, pair) for pooling in (pick, default)]
        if statistics.compare_paired(pair_accuracies[0], pair_accuracies[1], config.retrain.margin, looks).decided:
            break
        pair.append(len(pair) + 1)
        _train(experiment, folder, [(p, pair[-1]) for p in (pick, default)], listener)
    accuracies = {p: _accuracies(experiment, folder, p, pair if p in (pick, default) else seeds) for p in roles}
    value = _describe(experiment, roles, seeds, accuracies, looks)
    if config.retrain.equal_cost and pick != default:
        value["equal_cost"] = _equal_cost(experiment, folder, listener, pick, accuracies[pick])
    folder.write_json(VerdictFile.FILE, _verdict(experiment, value))
    folder.write_json(RetrainFile.FILE, value)
    return value


def _train(experiment: Experiment, folder: RunFolder, pairs: Sequence[tuple[str, int]], listener: Listener) -> None:
    """Train every (pooling, seed) that is not recorded with its weights.

    Raises:
        RunFailure: A worker died during a training; raised after all other trainings are done.
    """
    runner = TrialRunner(
        experiment,
        folder.trials(),
        RETRAINING,
        listener,
        parallel=for_trainings(experiment),
        save_weights_to=folder,
        retry_failed=True,
        record_errors=(WorkerDied,),
    )
    rows = runner.run([TrainingRequest(*pair, experiment.retrain_steps) for pair in pairs], "retrain")
    errors = [row["error"] for row in rows.values() if row["state"] == "failed"]
    if errors:
        raise RunFailure(
            f"{errors[-1]}; all other trainings are finished and saved: run poolwise resume {folder.path} to retry"
        )


def _train_rival(experiment: Experiment, trials: Trials, seeds: Iterable[int], listener: Listener) -> None:
    """Train the default of an equal-cost experiment with every seed that is not recorded."""
    runner = TrialRunner(
        experiment,
        trials,
        RETRAINING,
        listener,
        parallel=for_trainings(experiment),
        retry_failed=True,
        record_errors=(PoolwiseError,),
    )
    default, steps = str(experiment.default), experiment.retrain_steps
    runner.run([TrainingRequest(default, seed, steps) for seed in seeds], "equal cost")


def _accuracies(
    experiment: Experiment, folder: RunFolder, pooling: str, seeds: Sequence[int], file: str = "trials.sqlite"
) -> list[float]:
    trials, accuracies = folder.trials(file), []
    for seed in seeds:
        accuracy = trials.accuracy(pooling, seed, experiment.retrain_steps)
        if accuracy is None:
            raise RunFailure(
                f"{trials.path} has no training of {pooling}, seed {seed}: run poolwise resume {folder.path}"
            )
        accuracies.append(accuracy)
    return accuracies


def fits(folder: RunFolder) -> bool:
    """Return whether ``retrain.json`` matches the current picks of the run."""
    if not folder.has(RankingFile.FILE):
        return True
    retrained = {row["pooling"]: row["roles"] for row in folder.read(RetrainFile.FILE, "")["results"]}
    return retrained == picks_of(folder).roles


def _describe(
    experiment: Experiment,
    roles: Mapping[str, list[str]],
    seeds: Sequence[int],
    accuracies: dict[str, list[float]],
    looks: tuple[int, int] | None,
) -> dict[str, Any]:
    default, pick, margin = str(experiment.default), next(iter(roles)), experiment.config.retrain.margin
    results = []
    for pooling, pooling_roles in roles.items():
        values, cost = np.array(accuracies[pooling]), experiment.cost(Pooling.parse(pooling))
        result: dict[str, Any] = {
            "pooling": pooling,
            "roles": pooling_roles,
            "accuracies": values.tolist(),
            "mean": float(values.mean()),
            "std": float(values.std(ddof=1)) if len(values) > 1 else None,
            "macs": cost.macs,
            "macs_ratio": cost.macs_ratio,
        }
        if pooling != default:
            base = accuracies[default][: len(values)]
            comparison = statistics.compare_paired(values.tolist(), base, margin, looks if pooling == pick else None)
            sentence = statistics.sentence(pooling, default, comparison, cost.macs_ratio)
            result["comparison"] = {**comparison.to_json(), "sentence": sentence}
        results.append(result)
    return {
        "format": FORMAT,
        "verdict": results[0]["comparison"]["sentence"] if "comparison" in results[0] else _itself(default),
        "default": default,
        "seeds": list(seeds),
        "steps": experiment.retrain_steps,
        "training_images": len(experiment.training_images),
        "test_images": len(experiment.source.test),
        "results": results,
        "equal_cost": [],
        "settings": experiment.config.to_flat(),
        "precision": str(experiment.precision),
        **environment(),
    }


def _itself(default: str) -> str:
    return f"The pick is the default {default}, so there is no difference to test."


def _equal_cost(
    experiment: Experiment, folder: RunFolder, listener: Listener, pick: str, accuracies: list[float]
) -> list[dict[str, Any]]:
    """Compare the pick with the default at equal compute: a wider default, and one trained longer.

    Return an empty list if the pick is not more expensive than the default.
    """
    ratio, default = experiment.cost(Pooling.parse(pick)).macs_ratio, str(experiment.default)
    if ratio <= 1.005:
        return []
    longer = round(experiment.retrain_steps * ratio)
    rivals = [
        (f"default trained for {longer} steps", "default-longer.sqlite", experiment.with_settings(retrain_steps=longer))
    ]
    # otherwise there is no wider network of this family, or none with these pretrained weights
    if experiment.width is not None and not experiment.config.starts_from_weights("retrain"):
        rivals.append(_widened(experiment, ratio))
    comparisons = []
    for name, file, varied in rivals:
        seeds = range(1, len(accuracies) + 1)
        _train_rival(varied, folder.trials(file), seeds, listener)
        rival_accuracies = _accuracies(varied, folder, default, seeds, file)
        comparison = statistics.compare_paired(accuracies, rival_accuracies, experiment.config.retrain.margin)
        macs = varied.cost(experiment.default).macs * varied.retrain_steps
        spent = macs / (experiment.cost(experiment.default).macs * experiment.retrain_steps)
        sentence = f"{pick} against the {name}: {comparison.difference:+.2f} points"
        if comparison.interval is not None:
            sentence += " ({:+.2f} to {:+.2f})".format(*comparison.interval)
        comparisons.append(
            {
                "name": name,
                "width": varied.width,
                "steps": varied.retrain_steps,
                "training_macs_ratio": spent,
                "accuracies": rival_accuracies,
                "mean": float(np.mean(rival_accuracies)),
                "comparison": {**comparison.to_json(), "sentence": f"{sentence}: {comparison.verdict}."},
            }
        )
    return comparisons


def _widened(experiment: Experiment, ratio: float) -> tuple[str, str, Experiment]:
    """Return the default at the width whose MACs are closest to ``ratio`` times the MACs of the default."""
    assert experiment.width is not None
    target_macs, guess = ratio * experiment.cost(experiment.default).macs, experiment.width * ratio**0.5
    widths = range(max(int(guess) - 2, experiment.width), int(guess) + 4)
    candidates = [experiment.with_settings(width=width) for width in widths]
    best = min(candidates, key=lambda varied: abs(varied.cost(experiment.default).macs - target_macs))
    return f"default with width {best.width}", f"default-width{best.width}.sqlite", best


def _verdict(experiment: Experiment, value: dict[str, Any]) -> dict[str, Any]:
    """Return the summary of the run for ``verdict.json``."""
    pick, config = value["results"][0], experiment.config
    comparison = pick.get("comparison")
    return {
        "format": FORMAT,
        "verdict": comparison["verdict"] if comparison else "the default itself",
        "sentence": value["verdict"],
        "pick": pick["pooling"],
        "default": value["default"],
        "macs_ratio": pick["macs_ratio"],
        "margin": config.retrain.margin,
        "comparison": comparison,
        "looks": [config.retrain.seeds, config.retrain.max_seeds] if config.retrain.until_decided else None,
        "equal_cost": [
            {key: rival[key] for key in ("name", "training_macs_ratio", "comparison")} for rival in value["equal_cost"]
        ],
        "others": [
            {
                "pooling": row["pooling"],
                "roles": row["roles"],
                "macs_ratio": row["macs_ratio"],
                "comparison": row["comparison"],
            }
            for row in value["results"][1:]
            if "comparison" in row
        ],
        "steps": value["steps"],
        "training_images": value["training_images"],
        "test_images": value["test_images"],
        **environment(),
    }
