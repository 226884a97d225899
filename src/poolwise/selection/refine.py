"""Refinement: choose picks with a few well-chosen stand-alone trainings.

Configurations are trained on the training half and evaluated on the scoring half, so the test set, which the verdict is
based on, plays no part in the choice. Finished trainings are stored in ``refine.sqlite``. The same request resumes from
there, and a larger ``trials`` continues from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from poolwise.config import Config
from poolwise.errors import RequestError, did_you_mean
from poolwise.experiment import Experiment
from poolwise.parallelism import for_trainings
from poolwise.progress import Listener
from poolwise.rankings import baselines
from poolwise.selection import strategies
from poolwise.selection.picks import among_refined, fully_trained
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
SCORES = "scores"  # name of the hint from the search: the smoothed scores of the ranking
_ANY = 2**62  # unlimited MACs: refinement is limited by the number of trainings


def hints_of(experiment: Experiment, ranking: Mapping[str, Any]) -> baselines.Hints:
    """Compute the requested hints: the smoothed score of each configuration, and scores that need no training.

    Raises:
        RequestError: A hint is unknown or occurs twice, or the network lacks what it needs.
    """
    smoothed, names = {row["pooling"]: float(row["smoothed"]) for row in ranking["ranking"]}, _hint_names(experiment)
    others = [name for name in names if name != SCORES]
    computed = baselines.hints(others, experiment, [Pooling.parse(name) for name in smoothed])
    functions: dict[str, Callable[[Pooling], float]] = {
        **computed.functions,
        SCORES: lambda pooling: smoothed[str(pooling)],
    }
    return baselines.Hints({name: functions[name] for name in names}, computed.macs)


def _hint_names(experiment: Experiment) -> tuple[str, ...]:
    """Return the names of the requested hints. Raise RequestError if one is unknown or occurs twice."""
    names, known = experiment.config.refine.hints, [SCORES, *baselines.hint_names()]
    for name in names:
        if name not in known:
            raise RequestError(f"unknown hint {name!r}{did_you_mean(name, known)}. Known: {', '.join(known)}")
        if names.count(name) > 1:
            raise RequestError(f"hint {name} occurs twice: use each hint once")
    return names


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


def check(experiment: Experiment, ranking: Mapping[str, Any]) -> None:
    """Raise RequestError for an unknown strategy or hint, or a missing package. Hints that need images are not computed."""
    _hint_names(experiment)
    strategy_of(experiment, ranking, experiment.config.refine.refiner, {})


def strategy_of(
    experiment: Experiment, ranking: Mapping[str, Any], name: str, hints: Mapping[str, Callable[[Pooling], float]]
) -> strategies.Strategy:
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
        hints=hints,
        margin=config.retrain.margin,
    )


def refine(experiment: Experiment, folder: RunFolder, listener: Listener) -> dict[str, Any]:
    """Run the trainings that the strategy requests until it stops, and write ``refine.json``."""
    config = experiment.config
    ranking = folder.read(RankingFile.FILE, f"rank it first: poolwise rank {folder.path}")
    hints = hints_of(experiment, ranking)
    strategy = strategy_of(experiment, ranking, config.refine.refiner, hints.functions)
    runner = TrialRunner(
        experiment,
        folder.trials("refine.sqlite"),
        PURPOSE,
        listener,
        parallel=for_trainings(experiment),
        consequence="; it counts as the worst",
    )
    listener.start("refine", config.refine.trials * strategy.steps)
    rows: dict[TrainingRequest, dict[str, Any]] = {}
    order: list[strategies.Ask] = []
    at_once = config.refine.at_once or experiment.parallel.workers  # not --workers: results do not depend on it
    while batch := strategy.ask_all(at_once):
        requests = [TrainingRequest(str(ask.pooling), ask.seed, ask.steps) for ask in batch]
        rows |= runner.run(requests)
        for ask, request in zip(batch, requests, strict=True):
            accuracy = rows[request]["accuracy"]
            strategy.tell(*ask, _worst(strategy) if accuracy is None else accuracy)
            order.append(ask)
    listener.finish()
    value = _describe(experiment, folder, ranking, strategy, order, rows)
    if hints.macs:
        value["hint_macs"] = hints.macs
    folder.write_json(RefineFile.FILE, value)
    return value


def _worst(strategy: strategies.Strategy) -> float:
    """Return the accuracy recorded for a failed training: the lowest accuracy of the successful ones, or 0."""
    return min((accuracy for accuracies in strategy.observed.values() for accuracy in accuracies), default=0.0)


def _belief(experiment: Experiment, ranking: Mapping[str, Any], strategy: strategies.Strategy) -> Refine:
    """Return a ``refine`` strategy that has observed all trainings, whichever strategy chose them."""
    if isinstance(strategy, Refine):
        return strategy
    model = strategy_of(experiment, ranking, "refine", strategy.task.hints)
    assert isinstance(model, Refine)
    for (pooling, steps), accuracies in strategy.observed.items():
        for accuracy in accuracies:
            model.observe(pooling, steps, accuracy)
    return model


def _describe(
    experiment: Experiment,
    folder: RunFolder,
    ranking: Mapping[str, Any],
    strategy: strategies.Strategy,
    order: list[strategies.Ask],
    results: Mapping[TrainingRequest, Mapping[str, Any]],
) -> dict[str, Any]:
    config, model = experiment.config, _belief(experiment, ranking, strategy)
    latency: dict[str, float] = folder.request().get("limits", {}).get("latency_ms", {})
    belief, doubt = model.belief, model.doubt(config.retrain.margin)
    best_P = belief.best(np.random.Generator(np.random.PCG64(config.seed)))
    predicted_N, error_N = belief.left_out()
    rows: list[dict[str, Any]] = []
    for place, pooling in enumerate(model.candidates):
        mean, deviation, cost = belief.mean_P[place] / 100, belief.deviation_P[place] / 100, experiment.cost(pooling)
        rows.append(
            {
                "pooling": str(pooling),
                "expected": float(mean),
                "interval": [float(mean - NORMAL_95 * deviation), float(mean + NORMAL_95 * deviation)],
                "best": float(best_P[place]),
                "trainings": sum(ask.pooling == pooling for ask in order),
                "macs": cost.macs,
                "macs_ratio": cost.macs_ratio,
                "parameters": cost.parameters,
                "activation_bytes": cost.activation_bytes,
                "latency_ms": latency.get(str(pooling)),
            }
        )
    _add_fronts(rows, model)
    rows.sort(key=lambda row: (-row["expected"], row["macs"], Pooling.parse(row["pooling"])))
    trials = [
        {
            "pooling": str(ask.pooling),
            "seed": ask.seed,
            "steps": ask.steps,
            "accuracy": results[TrainingRequest(str(ask.pooling), ask.seed, ask.steps)]["accuracy"],
            "foretold": predicted_N[i] / 100 if model is strategy else None,
            "error": error_N[i] / 100 if model is strategy else None,
        }
        for i, ask in enumerate(order)
    ]
    return {
        "format": FORMAT,
        "method": config.refine.refiner,
        "default": str(experiment.default),
        "steps": strategy.steps,
        "images": {"training": len(experiment.halves[0]), "scoring": len(experiment.halves[1])},
        "trials": trials,
        "left_out": _left_out(belief, predicted_N, error_N),
        "hints": {
            name: {"ignored": hint.ignored, "weight": hint.weight}
            for name, hint in zip(model.task.hints, belief.hints(), strict=True)
        },
        "noise": belief.noise,
        "agreement": belief.agreement if any(belief.reduced) else None,
        "margin": config.retrain.margin,
        "doubt": doubt,
        "stopped": _stopped(config, strategy, len(order), doubt),
        "picks": among_refined(rows, fully_trained(trials, strategy.steps), str(experiment.default), config).to_json(),
        "configurations": rows,
        "settings": config.to_flat(),
        "precision": str(experiment.precision),
        **environment(),
    }


def _stopped(config: Config, strategy: strategies.Strategy, trainings: int, doubt: float) -> str:
    """Return why the refinement ended, and the probability that a better configuration exists."""
    better = f"the probability that a configuration is better by more than {config.retrain.margin:g} points is"
    if strategy.end is strategies.End.DECISION:
        if isinstance(strategy, Refine) and strategy.sure:
            return f"{better} below {DOUBT:.0%}"
        return f"{config.refine.refiner} proposes no further training after {trainings}; {better} {doubt:.0%}"
    equal = "" if trainings == config.refine.trials else f", which use the budget of {config.refine.trials} full ones"
    return f"{trainings} trainings are done{equal}; {better} {doubt:.0%}"


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
