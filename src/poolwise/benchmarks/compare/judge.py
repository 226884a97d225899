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
    found: dict[str, Measure] = {
        "tau_a": statistics.kendall_tau_a,
        "tau_b": statistics.kendall_tau_b,
        "spearman": statistics.spearman,
        "sparse_tau": partial(statistics.sparse_tau, bin_width=noise or 0.0, score_bin=score_bin),
    }
    found.update({f"regret@{k}": partial(statistics.regret, k=k) for k in TOPS})
    found.update({f"best_rank@{k}": partial(statistics.best_rank, k=k) for k in TOPS})
    found.update({f"beats_random@{n}": partial(statistics.beats_random, n=n) for n in RANDOM_PICKS})
    return found


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
        raise RequestError("nothing to compare: name at least one control, column or method")
    for entry in entries:
        if np.shape(entry.scores_P) != (len(table.space),) or not np.isfinite(entry.scores_P).all():
            raise RequestError(
                f"{entry.method}, seed {entry.seed}: {len(table.space)} finite scores are needed for table {table.name}"
            )
    for first, second in itertools.pairwise(sorted(entries, key=lambda entry: entry.key)):
        if first.key == second.key:
            raise RequestError(f"{first.method} comes twice with seed {first.seed}: give each seed once")
    return [row for entry in entries for row in _judged(entry, table, count_P, resamples)]


def _judged(
    entry: Entry, table: Table, count_P: Sequence[float] | np.ndarray, resamples: int
) -> Iterator[dict[str, Any]]:
    truth_P, noise = np.asarray(table.column(table.truth)), table.noise()
    told = measures(noise, (noise or 0.0) if entry.percent else 0.0)
    scores_P = np.asarray(entry.scores_P, float)
    if entry.parts_2P is None:
        estimate = combine(table.space, scores_P, count_P)
    else:
        estimate = combine(table.space, with_proxy_trainings(table.space, *entry.parts_2P), count_P)
    treated = (scores_P, estimate.smoothed_P, estimate.estimate_P)
    for treatment, scores_P in zip(TREATMENTS, treated, strict=True):
        intervals = statistics.bootstrap_interval(told, scores_P, truth_P, resamples=resamples)
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
                for name, measure in told.items()
            },
        }


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Aggregate rows over seeds for each method, budget and treatment: n, mean, standard deviation, interval.

    The interval is a bootstrap interval of the mean over seeds, or for a single seed the one over configurations;
    ``interval`` names which.
    """
    told = []
    for (method, budget, treatment), own in _groups(rows).items():
        figures = {}
        for name in measures(None):
            values = [row[name]["value"] for row in own]
            interval = statistics.mean_interval(values) or (own[0][name]["low"], own[0][name]["high"])
            std = float(np.std(values, ddof=1)) if len(values) > 1 else None
            figures[name] = {"mean": float(np.mean(values)), "std": std, "low": interval[0], "high": interval[1]}
        spent = [row["spent_macs"] for row in own]
        about = {
            "method": method,
            "budget": own[0]["budget"],
            "budget_macs": budget,
            "spent_macs": None if None in spent else float(np.mean(spent)),
            "treatment": treatment,
            "n": len(own),
        }
        told.append({**about, "interval": "seeds" if len(own) > 1 else "configurations", **figures})
    return told


def pairs(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return paired tests of every two methods at equal budget and treatment, over at least two common seeds."""
    told = []
    for (one, own), (two, other) in itertools.combinations(_groups(rows).items(), 2):
        mine, theirs = ({row["seed"]: row for row in group} for group in (own, other))
        seeds = sorted(set(mine) & set(theirs))
        if one[1:] != two[1:] or len(seeds) < 2:
            continue
        for name in TESTED:
            first, second = ([side[seed][name]["value"] for seed in seeds] for side in (mine, theirs))
            test = statistics.paired_test(first, second)
            budget = own[0]["budget"]
            about = {
                "first": one[0],
                "second": two[0],
                "budget": budget,
                "budget_macs": one[1],
                "treatment": one[2],
                "measure": name,
            }
            told.append({**about, **test.to_json()})
    return told


def anytime(entries: Sequence[Entry], table: Table) -> list[dict[str, Any]]:
    """Return tau-b and regret@1 against spent MACs: one row per intermediate point, or one for the final ranking."""
    truth_P, told = np.asarray(table.column(table.truth)), measures(None)
    rows = []
    for entry in entries:
        spent = entry.budget_macs if entry.spent_macs is None else entry.spent_macs
        for macs, scores_P in entry.points or ([(spent, entry.scores_P)] if spent else []):
            about = {"method": entry.method, "seed": entry.seed, "budget": entry.budget, "spent_macs": macs}
            rows.append({**about, **{name: float(told[name](scores_P, truth_P)) for name in TESTED}})
    return rows


def _groups(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, int | None, str], list[dict[str, Any]]]:
    groups: dict[tuple[str, int | None, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["budget_macs"], row["treatment"]), []).append(row)
    return groups
