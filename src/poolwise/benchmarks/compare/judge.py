"""Evaluate rankings against true accuracies: all measures with intervals, for raw, smoothed and fused scores."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from poolwise import statistics
from poolwise.errors import RequestError
from poolwise.rankings.combine import combine, with_proxy_trainings
from poolwise.storage.tables import Table

TOPS = (1, 3, 5)
RANDOM_PICKS = (1, 5, 10)
TESTED = ("tau_b", "regret@1")  # measures used in paired tests of methods
TREATMENTS = ("raw", "smoothed", "fused")  # fused: smoothed and combined with the productive convolutions

Measure = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Entry:
    """Ranking produced by one method with one seed and budget.

    Attributes:
        method: Label of the method.
        seed: Seed of the entry.
        budget_macs: Allowed MACs in total: search, scoring and trials; None if unknown.
        scores_P: One score per configuration, in the order of the table's space; higher is better.
        percent: Whether scores are accuracies in percent; then the noise of the table applies to them as well.
        budget: The allowed compute in steps of a single SuperNet; None for methods without training.
        spent_macs: MACs that were used.
        parts_2P: Accuracies on shared weights and scores of proxy training, if the ranking uses both; ``scores_P`` is
            then their smoothed combination.
        points: Intermediate (spent_macs, scores_P), in order; empty if only the final ranking exists.
    """

    method: str
    seed: int
    budget_macs: int | None
    scores_P: np.ndarray
    percent: bool = False
    budget: int | None = None
    spent_macs: int | None = None
    points: tuple[tuple[int, np.ndarray], ...] = ()
    parts_2P: np.ndarray | None = None

    @property
    def key(self) -> tuple[str, int, int]:
        return self.method, self.budget_macs or 0, self.seed


def measures(noise: float | None, score_bin: float = 0.0) -> dict[str, Measure]:
    """Return name -> measure(scores_P, truth_P). Regret is in points, tau and rho are in [-1, 1], ranks start at 1."""
    measures_by_name: dict[str, Measure] = {
        "tau_a": statistics.kendall_tau_a,
        "tau_b": statistics.kendall_tau_b,
        "spearman": statistics.spearman,
        "sparse_tau": partial(statistics.sparse_tau, bin_width=noise or 0.0, score_bin=score_bin),
    }
    measures_by_name.update({f"regret@{k}": partial(statistics.regret, k=k) for k in TOPS})
    measures_by_name.update({f"best_rank@{k}": partial(statistics.best_rank, k=k) for k in TOPS})
    measures_by_name.update({f"beats_random@{n}": partial(statistics.beats_random, n=n) for n in RANDOM_PICKS})
    return measures_by_name


def judge(
    entries: Sequence[Entry],
    table: Table,
    count_P: Sequence[float] | np.ndarray,
    resamples: int = statistics.uncertainty.RESAMPLES,
) -> list[dict[str, Any]]:
    """Evaluate every entry with every treatment of its scores.

    Args:
        entries: Rankings to evaluate.
        table: Table of the true accuracies.
        count_P: Productive convolutions of each configuration, used by the ``fused`` treatment.
        resamples: Bootstrap draws per interval.

    Returns:
        One row per entry and treatment: method, seed, budgets, treatment, and value, low and high of each measure.
        Intervals are 95 % bootstrap percentiles over configurations.

    Raises:
        RequestError: There are no entries, scores do not fit the table, or a method, budget and seed occur twice.
    """
    if not entries:
        raise RequestError("nothing to compare: use at least one control, column or method")
    for entry in entries:
        if np.shape(entry.scores_P) != (len(table.space),) or not np.isfinite(entry.scores_P).all():
            raise RequestError(
                f"{entry.method}, seed {entry.seed}: {len(table.space)} finite scores are needed for table {table.name}"
            )
    for first, second in itertools.pairwise(sorted(entries, key=lambda entry: entry.key)):
        if first.key == second.key:
            raise RequestError(f"{first.method} occurs twice with seed {first.seed}: use each seed once")
    return [row for entry in entries for row in _judged(entry, table, count_P, resamples)]


def _judged(
    entry: Entry, table: Table, count_P: Sequence[float] | np.ndarray, resamples: int
) -> Iterator[dict[str, Any]]:
    truth_P, noise = np.asarray(table.column(table.truth)), table.noise()
    functions = measures(noise, (noise or 0.0) if entry.percent else 0.0)
    scores_P = np.asarray(entry.scores_P, float)
    if entry.parts_2P is None:
        estimate = combine(table.space, scores_P, count_P)
    else:
        estimate = combine(table.space, with_proxy_trainings(table.space, *entry.parts_2P), count_P)
    treated = (scores_P, estimate.smoothed_P, estimate.estimate_P)
    for treatment, scores_P in zip(TREATMENTS, treated, strict=True):
        intervals = statistics.bootstrap_interval(functions, scores_P, truth_P, resamples=resamples)
        yield {
            "method": entry.method,
            "seed": entry.seed,
            "budget": entry.budget,
            "budget_macs": entry.budget_macs,
            "spent_macs": entry.budget_macs if entry.spent_macs is None else entry.spent_macs,
            "treatment": treatment,
            "first": str(table.space[int(np.argmax(scores_P))]),
            **{
                name: {"value": measure(scores_P, truth_P), "low": intervals[name][0], "high": intervals[name][1]}
                for name, measure in functions.items()
            },
        }


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Aggregate rows over seeds for each method, budget and treatment: n, mean, standard deviation, interval.

    The interval is a bootstrap interval of the mean over seeds, or for a single seed the one over configurations;
    ``interval`` names which.
    """
    summaries = []
    for (method, budget, treatment), members in _groups(rows).items():
        aggregates = {}
        for name in measures(None):
            values = [row[name]["value"] for row in members]
            interval = statistics.mean_interval(values) or (members[0][name]["low"], members[0][name]["high"])
            std = float(np.std(values, ddof=1)) if len(values) > 1 else None
            aggregates[name] = {"mean": float(np.mean(values)), "std": std, "low": interval[0], "high": interval[1]}
        spent = [row["spent_macs"] for row in members]
        description = {
            "method": method,
            "budget": members[0]["budget"],
            "budget_macs": budget,
            "spent_macs": None if None in spent else float(np.mean(spent)),
            "treatment": treatment,
            "n": len(members),
        }
        summaries.append({**description, "interval": "seeds" if len(members) > 1 else "configurations", **aggregates})
    return summaries


def pairs(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return paired tests of every two methods at equal budget and treatment, over at least two common seeds."""
    tests = []
    for (first_key, first_rows), (second_key, second_rows) in itertools.combinations(_groups(rows).items(), 2):
        first_by_seed, second_by_seed = ({row["seed"]: row for row in group} for group in (first_rows, second_rows))
        seeds = sorted(set(first_by_seed) & set(second_by_seed))
        if first_key[1:] != second_key[1:] or len(seeds) < 2:
            continue
        for name in TESTED:
            first, second = ([side[seed][name]["value"] for seed in seeds] for side in (first_by_seed, second_by_seed))
            test = statistics.paired_test(first, second)
            budget = first_rows[0]["budget"]
            description = {
                "first": first_key[0],
                "second": second_key[0],
                "budget": budget,
                "budget_macs": first_key[1],
                "treatment": first_key[2],
                "measure": name,
            }
            tests.append({**description, **test.to_json()})
    return tests


def anytime(entries: Sequence[Entry], table: Table) -> list[dict[str, Any]]:
    """Return tau-b and regret@1 against spent MACs: one row per intermediate point, or one for the final ranking."""
    truth_P, functions = np.asarray(table.column(table.truth)), measures(None)
    rows = []
    for entry in entries:
        spent = entry.budget_macs if entry.spent_macs is None else entry.spent_macs
        for macs, scores_P in entry.points or ([(spent, entry.scores_P)] if spent else []):
            description = {"method": entry.method, "seed": entry.seed, "budget": entry.budget, "spent_macs": macs}
            rows.append({**description, **{name: float(functions[name](scores_P, truth_P)) for name in TESTED}})
    return rows


def _groups(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, int | None, str], list[dict[str, Any]]]:
    groups: dict[tuple[str, int | None, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["budget_macs"], row["treatment"]), []).append(row)
    return groups
