"""Refinement: choose picks with a few well-chosen stand-alone trainings.

Configurations are trained on the training half and evaluated on the scoring half, so the test set, which the verdict is
based on, plays no part in the choice. Finished trainings are stored in ``refine.sqlite``. The same request resumes from
there, and a larger ``trials`` continues from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from poolwise.experiment import Experiment
from poolwise.parallelism import for_trainings
from poolwise.progress import Listener
from poolwise.rankings import baselines
from poolwise.selection import strategies
from poolwise.selection.picks import among_refined
from poolwise.selection.strategies.refine import CANDIDATES, DOUBT, Refine
from poolwise.selection.strategies.surrogate import Surrogate
from poolwise.spaces import Pooling, PoolingSpace, Subspace
from poolwise.storage import FORMAT, RunFolder, environment
from poolwise.storage.schemas import RankingFile, RefineFile
from poolwise.training.standalone import Purpose
from poolwise.training.trials import TrainingRequest, TrialRunner

PURPOSE = Purpose("refine")
NORMAL_95 = 1.959964
_PARETO = 600  # number of most promising configurations considered for the Pareto front
_ANY = 2**62  # unlimited MACs: refinement is limited by the number of trainings


def hints_of(experiment: Experiment, ranking: Mapping[str, Any]) -> dict[str, Callable[[Pooling], float]]:
    """Return the hints: the smoothed score of each configuration, and scores that need no training."""
    smoothed = {row["pooling"]: float(row["smoothed"]) for row in ranking["ranking"]}
    costs = {pooling: experiment.cost(pooling) for pooling in map(Pooling.parse, smoothed)}
    return {"scores": lambda pooling: smoothed[str(pooling)], **baselines.hints(costs)}


def _chosen_from(experiment: Experiment, ranking: Mapping[str, Any]) -> PoolingSpace:
    """Return the space to choose from.

    This is the full space, or the top of the ranking plus the default if not all configurations were ranked.
    """
    if ranking.get("covered") == ranking.get("configurations"):
        return experiment.space
    ranked = [Pooling.parse(row["pooling"]) for row in ranking["ranking"]]
    return Subspace.of(
        experiment.space, {*[p for p in ranked if p in experiment.space][:CANDIDATES], experiment.default}
    )


def inputs(ranking: Mapping[str, Any]) -> object:
    """Return the part of ``ranking.json`` that a refinement depends on.

    The smoothed scores are hints. The order matters only if not all configurations were ranked: it selects the
    candidates.
    """
    smoothed = {row["pooling"]: row["smoothed"] for row in ranking["ranking"]}
    partial = ranking.get("covered") != ranking.get("configurations")
    return smoothed, [row["pooling"] for row in ranking["ranking"]] if partial else None


def method_of(experiment: Experiment, ranking: Mapping[str, Any], name: str) -> strategies.Method:
    """Create the strategy called ``name`` in its initial state.

    Raises:
        RequestError: The strategy is unknown, or a package that it needs is missing.
    """
    config = experiment.config
    return strategies.create(
        name,
        _chosen_from(experiment, ranking),
        seed=config.seed,
        macs=_ANY,
        steps=experiment.half_steps,
        cost=lambda pooling, steps: steps * experiment.cost(pooling).macs,
        trials=config.refine.trials,
        default=experiment.default,
        hints=hints_of(experiment, ranking),
        margin=config.retrain.margin,
    )


def refine(experiment: Experiment, folder: RunFolder, listener: Listener) -> dict[str, Any]:
    """Run the trainings that the strategy requests until it stops, and write ``refine.json``."""
    config = experiment.config
    ranking = folder.read(RankingFile.FILE, f"rank it first: poolwise rank {folder.path}")
    method = method_of(experiment, ranking, config.refine.refiner)
    runner = TrialRunner(
        experiment,
        folder.trials("refine.sqlite"),
        PURPOSE,
        listener,
        parallel=for_trainings(experiment),
        consequence="; it counts as the worst",
    )
    listener.start("refine", config.refine.trials * method.steps)
    rows: dict[TrainingRequest, dict[str, Any]] = {}
    order: list[strategies.Ask] = []
    while batch := method.ask_all(config.refine.at_once or experiment.parallel.workers):
        requests = [TrainingRequest(str(ask.pooling), ask.seed, ask.steps) for ask in batch]
        rows |= runner.run(requests)
        for ask, request in zip(batch, requests, strict=True):
            accuracy = rows[request]["accuracy"]
            method.tell(*ask, _worst(method) if accuracy is None else accuracy)
            order.append(ask)
    listener.finish()
    value = _describe(experiment, folder, ranking, method, order, rows)
    folder.write_json(RefineFile.FILE, value)
    return value


def _worst(method: strategies.Method) -> float:
    """Return the accuracy recorded for a failed training: the lowest accuracy of the successful ones, or 0."""
    return min((accuracy for accuracies in method.observed.values() for accuracy in accuracies), default=0.0)


def _belief(experiment: Experiment, ranking: Mapping[str, Any], method: strategies.Method) -> Refine:
    """Return a ``refine`` strategy that has observed all trainings, whichever strategy chose them."""
    if isinstance(method, Refine):
        return method
    model = method_of(experiment, ranking, "refine")
    assert isinstance(model, Refine)
    for (pooling, steps), accuracies in method.observed.items():
        for accuracy in accuracies:
            model.observe(pooling, steps, accuracy)
    return model


def _describe(
    experiment: Experiment,
    folder: RunFolder,
    ranking: Mapping[str, Any],
    method: strategies.Method,
    order: list[strategies.Ask],
    results: Mapping[TrainingRequest, Mapping[str, Any]],
) -> dict[str, Any]:
    config, model = experiment.config, _belief(experiment, ranking, method)
    latency: dict[str, float] = folder.request().get("limits", {}).get("latency_ms", {})
    belief, doubt = model.belief, model.doubt(config.retrain.margin)
    best_P = belief.best(np.random.Generator(np.random.PCG64(config.seed)))
    predicted_N, error_N = belief.left_out()
    rows: list[dict[str, Any]] = []
    for place, pooling in enumerate(model.candidates):
        mean, deviation, cost = belief.mean_P[place] / 100, belief.deviation_P[place] / 100, experiment.cost(pooling)
        accuracies = [
            results[TrainingRequest(str(pooling), a.seed, a.steps)]["accuracy"] for a in order if a.pooling == pooling
        ]
        rows.append(
            {
                "pooling": str(pooling),
                "expected": float(mean),
                "interval": [float(mean - NORMAL_95 * deviation), float(mean + NORMAL_95 * deviation)],
                "best": float(best_P[place]),
                "trainings": len(accuracies),
                "macs": cost.macs,
                "macs_ratio": cost.macs_ratio,
                "parameters": cost.parameters,
                "activation_bytes": cost.activation_bytes,
                "latency_ms": latency.get(str(pooling)),
            }
        )
    _add_fronts(rows, model)
    rows.sort(key=lambda row: (-row["expected"], row["macs"], Pooling.parse(row["pooling"])))
    sure = len(order) < config.refine.trials and model.sure
    return {
        "format": FORMAT,
        "method": config.refine.refiner,
        "default": str(experiment.default),
        "steps": method.steps,
        "images": {"training": len(experiment.halves[0]), "scoring": len(experiment.halves[1])},
        "trials": [
            {
                "pooling": str(ask.pooling),
                "seed": ask.seed,
                "steps": ask.steps,
                "accuracy": results[TrainingRequest(str(ask.pooling), ask.seed, ask.steps)]["accuracy"],
                "foretold": predicted_N[i] / 100 if model is method else None,
                "error": error_N[i] / 100 if model is method else None,
            }
            for i, ask in enumerate(order)
        ],
        "left_out": _left_out(belief, predicted_N, error_N),
        "hints": {
            name: {"ignored": hint.ignored, "weight": hint.weight}
            for name, hint in zip(model.task.hints, belief.hints(), strict=True)
        },
        "noise": belief.noise,
        "agreement": belief.agreement if any(belief.short) else None,
        "margin": config.retrain.margin,
        "doubt": doubt,
        "stopped": (
            f"the probability that a configuration is better by more than {config.retrain.margin:g} points is below {DOUBT:.0%}"
            if sure
            else f"{config.refine.trials} trainings are done; the probability that a configuration is better by more than"
            f" {config.retrain.margin:g} points is {doubt:.0%}"
        ),
        "picks": among_refined(rows, str(experiment.default), config).to_json(),
        "configurations": rows,
        "settings": config.to_flat(),
        "precision": str(experiment.precision),
        **environment(),
    }


def _left_out(belief: Surrogate, predicted_N: np.ndarray, error_N: np.ndarray) -> dict[str, float]:
    """Return the leave-one-out error (root mean square, in points) and the coverage of the 95 % intervals."""
    gap_N = np.array(belief.values) - predicted_N
    return {
        "error": float(np.sqrt(np.mean(gap_N**2))),
        "within": float(np.mean(np.abs(gap_N) <= NORMAL_95 * error_N)),
    }


def _add_fronts(rows: list[dict[str, Any]], model: Refine) -> None:
    """Add to each row, for each cost, the probability that no configuration of at most that cost is truly better."""
    places = np.argsort(-model.belief.mean_P, kind="stable")[:_PARETO]
    drawn_nP = model.belief.draws(places, np.random.Generator(np.random.PCG64(len(model.belief))))
    for row in rows:
        row["front"] = {}
    for cost in ("macs", "activation_bytes", "latency_ms"):
        known = [i for i, place in enumerate(places) if rows[place][cost] is not None]
        known.sort(key=lambda i: (rows[places[i]][cost], -model.belief.mean_P[places[i]]))
        best_n = np.full(len(drawn_nP), -np.inf)
        for i in known:
            rows[places[i]]["front"][cost] = float((drawn_nP[:, i] > best_n).mean())
            best_n = np.maximum(best_n, drawn_nP[:, i])
