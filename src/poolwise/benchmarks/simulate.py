"""Simulate strategies of stand-alone trainings on a tabular benchmark, with thousands of repetitions in seconds.

A simulated training returns the accuracy of the table plus noise. A method is written as in ``--methods`` of
``compare``, with its hints after an ``@``: ``refine@supernets4+productive+macs``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np

from poolwise.benchmarks.compare.study import settings_of
from poolwise.datasets.sources import Source
from poolwise.errors import RequestError, did_you_mean
from poolwise.experiment import resolve
from poolwise.models import family
from poolwise.models.cost import table_costs
from poolwise.progress import Listener
from poolwise.rankings import baselines
from poolwise.sanitize import csv_text, json_text
from poolwise.selection import strategies
from poolwise.spaces import Pooling, PoolingSpace
from poolwise.storage import FORMAT, command_line, environment, read_checked, read_json, write_atomically
from poolwise.storage.schemas import HintRanking, RankingFile, SimulateFile, validate
from poolwise.storage.tables import Table

SHUFFLED = "shuffled-"
QUANTILES = (0.1, 0.5, 0.9)
DRAWN_SEEDS = (0, 1, 2)  # seeds of a hint that needs images: each is a version
AGREEMENT = 0.75  # default correlation between full trainings and trainings of a third of the steps


@dataclass(frozen=True)
class Player:
    """A strategy with its hints.

    Attributes:
        label: The text that it was parsed from.
        method: Name of the strategy.
        hints: Name -> hint_VP, values of all configurations in the order of the space. There is one version per search
            or seed that the hint comes from; repetitions cycle through the versions.
        search_macs: MACs of the searches and zero-cost proxies that provide the hints, mean over versions.
    """

    label: str
    method: str
    hints: dict[str, np.ndarray]
    search_macs: int = 0


def parse(words: Sequence[str], table: Table, model: str, source: Source | None = None) -> list[Player]:
    """Parse methods such as ``refine@productive+macs``.

    Args:
        words: One method each.
        table: Table of the simulation.
        model: Network family of the table.
        source: Images for zero-cost proxies, if they are not loaded from the data set that the table names.

    Raises:
        RequestError: A method or hint is unknown, a method or hint occurs twice, or there are no methods.
    """
    known, players = strategies.available(), list[Player]()
    for word in words:
        name, at, hint_names = word.partition("@")
        strategies.STRATEGIES.get(name)
        if word in words[: len(players)]:
            raise RequestError(f"method {word} occurs twice: use each method once")
        hints, macs = dict[str, np.ndarray](), 0
        for hint in hint_names.split("+") if at and hint_names != "none" else ():
            if hint in hints:
                raise RequestError(f"{word}: hint {hint} occurs twice: use each hint once")
            hints[hint], search_macs = _hint(word, hint, table, model, source)
            macs += search_macs
        players.append(Player(word, name, hints, macs))
    if not players:
        raise RequestError(f"nothing to simulate: use --methods with at least one of {', '.join(known)}")
    return players


def _hint(word: str, name: str, table: Table, model: str, source: Source | None) -> tuple[np.ndarray, int]:
    """Return hint_VP for a name, and the MACs spent on a version of it."""
    bare = name.removeprefix(SHUFFLED)
    if bare in baselines.HINTS:
        costs = table_costs(table, model)
        return np.array([[baselines.HINTS[bare](pooling, cost) for pooling, cost in costs.items()]]), 0
    if bare in baselines.zero_cost_names():
        experiment = resolve(settings_of(table, model), source)
        drawn = [baselines.untrained(experiment, bare, seed=seed) for seed in DRAWN_SEEDS]
        return np.array([hint_P for hint_P, _ in drawn]), drawn[0][1]
    columns = {column.removesuffix("_mean"): column for column in table.columns if column != table.truth}
    if bare in columns:
        return np.array([table.column(columns[bare])]), 0
    folders = sorted(Path(path) for path in _matching(bare) if (Path(path) / RankingFile.FILE).is_file())
    if folders:
        ranked = [_ranked(word, folder, table) for folder in folders]
        return np.array([hint_P for hint_P, _ in ranked]), round(sum(macs for _, macs in ranked) / len(ranked))
    allowed = [*baselines.hint_names(), *columns]
    raise RequestError(
        f"{word}: unknown hint {bare[:60]!r}{did_you_mean(bare, allowed, '.')} Known: {', '.join(allowed)}, none,"
        f" or the folder of a ranked run (or a pattern of several). The prefix {SHUFFLED} permutes the values of a hint"
    )


def _matching(pattern: str) -> list[str]:
    """Return the paths that match a pattern; none if no file can have such a name."""
    return [] if "\0" in pattern else glob(pattern)


def _ranked(word: str, folder: Path, table: Table) -> tuple[np.ndarray, int]:
    """Return the smoothed scores of a run in the order of the table, and the MACs of its search and ranking."""
    path = folder / RankingFile.FILE
    ranking = validate(HintRanking, read_json(path), f"{path}: ")
    smoothed = {row.pooling: row.smoothed for row in ranking.ranking}
    if set(smoothed) != {str(pooling) for pooling in table.space}:
        raise RequestError(
            f"{word}: {folder} does not rank the configurations of table {table.name}: use a run with the same space"
        )
    return np.array([smoothed[str(pooling)] for pooling in table.space]), sum(ranking.spent.values())


class Answers:
    """Simulated trainings: the accuracy of the table plus normal noise with the standard deviation between seeds.

    If the table holds only means over seeds, each configuration uses its recorded standard deviation. If it holds
    individual seeds, the pooled one is used, because few seeds give poor estimates per configuration. Tables hold full
    trainings: a shorter one mixes the truth with an independent variable of the same spread, such that their
    correlation is ``agreement`` for a third of the steps and its square for a ninth. The n-th training of a
    configuration has the same noise for every method.
    """

    def __init__(self, table: Table, steps: int, agreement: float, generator: np.random.Generator):
        self.truth_P = np.array(table.column(table.truth))
        stds = next((table.values[name] for name in ("std", "standalone_std") if name in table.values), None)
        pooled = table.noise()
        if stds is None or pooled is None:
            raise RequestError(f"table {table.name} has no noise between seeds: use a table with several seeds")
        self.noise_P = np.full(len(self.truth_P), pooled) if table.seeds else np.array(stds)
        self.steps, self.agreement = steps, agreement
        self._other_P = self.truth_P.mean() + self.truth_P.std() * generator.standard_normal(len(self.truth_P))
        self._noise_NP = self.noise_P * generator.standard_normal((64, len(self.truth_P)))
        self._counts: dict[tuple[int, int], int] = {}

    def __call__(self, place: int, steps: int) -> float:
        """Return the accuracy in percent of the next training of this configuration."""
        turn = self._counts.get((place, steps), 0)
        self._counts[place, steps] = turn + 1
        truth, mean = self.truth_P[place], self.truth_P.mean()
        if steps < self.steps:
            share = self.agreement ** (np.log(self.steps / steps) / np.log(3))
            truth = mean + share * (truth - mean) + np.sqrt(1 - share**2) * (self._other_P[place] - mean)
        return float(truth + self._noise_NP[turn % len(self._noise_NP), place])


def simulate(
    table: Table,
    model: str,
    players: Sequence[Player],
    *,
    runs: int,
    trials: int,
    tolerance: float | None = None,
    agreement: float = AGREEMENT,
    seed: int = 0,
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Return the regret of each method's first choice after every full training, over ``runs`` repetitions.

    In the result, ``found`` is the share of runs whose first choice is within the tolerance. ``reached`` is the share
    that has trained such a configuration, even if noise prevents it from being chosen.

    Args:
        table: Table of stand-alone accuracies.
        model: Network family of the table.
        players: Strategies with their hints.
        runs: Number of repetitions.
        trials: Full trainings per method, including that of the default.
        tolerance: Regret in points up to which a choice counts as found; by default the table's noise between seeds.
        agreement: Correlation between full trainings and trainings of a third of the steps.
        seed: Seed of noise and strategies.
        listener: Receives progress.

    Raises:
        RequestError: ``runs`` or ``trials`` is below 1, or the table has no noise between seeds.
    """
    if runs < 1 or trials < 1:
        raise RequestError(f"runs is {runs} and trials is {trials}: use integers of at least 1")
    listener = listener or Listener()
    default, steps = family(model).default, int(table.about.get("steps", 81))
    tolerance = tolerance if tolerance is not None else table.noise() or 0.0
    exhaustive_macs = _exhaustive_macs(table, model, steps)
    listener.start("simulate", runs * len(players))
    rows = []
    for player in players:
        started, regret_RT, least_RT = time.perf_counter(), np.empty((runs, trials)), np.empty((runs, trials))
        for run in range(runs):
            listener.check()
            regret_RT[run], least_RT[run] = _once(table, default, player, trials, steps, agreement, (seed, run))
            listener.advance()
        rows.append(
            {
                "method": player.label,
                "search_macs": player.search_macs,
                "mean": regret_RT.mean(0).tolist(),
                **{f"q{round(100 * q)}": np.quantile(regret_RT, q, axis=0).tolist() for q in QUANTILES},
                "found": (regret_RT <= tolerance + 1e-9).mean(0).tolist(),
                "reached": (least_RT <= tolerance + 1e-9).mean(0).tolist(),
                # relative to training all configurations once; includes the search
                "compute": [
                    player.search_macs / exhaustive_macs + count / table.space.size for count in range(1, trials + 1)
                ],
                "seconds": time.perf_counter() - started,
            }
        )
    listener.finish()
    return {
        "format": FORMAT,
        "table": table.name,
        "model": model,
        "runs": runs,
        "trials": trials,
        "tolerance": tolerance,
        "agreement": agreement,
        "noise": table.noise(),
        "seed": seed,
        "methods": rows,
        "command": command_line(),
        **environment(),
    }


def _exhaustive_macs(table: Table, model: str, steps: int) -> float:
    """Return the MACs of one full training of every configuration; a training image counts three forward passes."""
    batch = (table.about.get("recipe") or {}).get("batch_size", 128)
    return 3.0 * steps * batch * sum(cost.macs for cost in table_costs(table, model).values())


def _once(
    table: Table, default: Pooling, player: Player, trials: int, steps: int, agreement: float, entropy: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate one repetition.

    Return [trials] regret of the first choice after each full training, and [trials] regret of the best trained so far.
    If the method stops early, the last values are repeated. A training counts by its steps, whatever the configuration.
    """
    space, generator = table.space, np.random.Generator(np.random.PCG64(entropy))
    answers = Answers(table, steps, agreement, generator)
    method = strategies.create(
        player.method,
        space,
        seed=int(np.random.SeedSequence(entropy).generate_state(1)[0] % 2**20),
        macs=trials * steps,
        steps=steps,
        cost=lambda _pooling, length: length,
        trials=trials,
        default=default,
        hints={
            name: _lookup(space, _shuffled(name, hint_VP[entropy[1] % len(hint_VP)], generator))
            for name, hint_VP in player.hints.items()
        },
    )
    best = answers.truth_P.max()
    regret_T = np.full(trials, best - answers.truth_P.mean())  # before the first result: a uniform choice
    least_T = regret_T.copy()
    while (ask := method.ask()) is not None:
        place = space.index(ask.pooling)
        method.tell(*ask, answers(place, ask.steps) / 100)
        done = max(int(method.spent / steps + 1e-6) - 1, 0)
        regret_T[done:] = best - answers.truth_P[int(method.ranking().argmax())]
        if ask.steps == steps:
            least_T[done:] = np.minimum(least_T[done:], best - answers.truth_P[place])
    return regret_T, least_T


def _shuffled(name: str, hint_P: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return generator.permutation(hint_P) if name.startswith(SHUFFLED) else hint_P


def _lookup(space: PoolingSpace, hint_P: np.ndarray) -> Callable[[Pooling], float]:
    return lambda pooling: float(hint_P[space.index(pooling)])


def write(value: dict[str, Any], out: Path) -> None:
    """Write ``simulate.json``, ``simulate.csv`` (one line per method and training) and ``simulate.svg``."""
    from poolwise.reports.comparison import simulated

    names = ["mean", *(f"q{round(100 * q)}" for q in QUANTILES), "found", "reached", "compute"]
    lines = [
        [row["method"], i + 1, *(f"{row[name][i]:.6g}" for name in names)]
        for row in value["methods"]
        for i in range(value["trials"])
    ]
    write_atomically(out / "simulate.csv", csv_text(["method", "training", *names], lines))
    write_atomically(out / "simulate.svg", simulated(value))
    write_atomically(out / SimulateFile.FILE, json_text(value) + "\n")


def check_out(out: Path) -> None:
    """Raise RequestError if the folder holds anything other than an earlier simulation."""
    if (out / SimulateFile.FILE).exists():
        read_checked(out / SimulateFile.FILE)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RequestError(f"{out} is not the folder of an earlier simulation: use another --out")
