"""Rankings against the truth: every figure of merit, with its interval, of the scores as they are, smoothed and fused."""

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
TESTED = ("tau_b", "regret@1")  # what methods are tested on in pairs
TREATMENTS = ("raw", "smoothed", "fused")  # of scores; fused: smoothed, and fused with the productive convolutions

Measure = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Entry:
    """The ranking that one method gave with one seed for one budget.

    Attributes:
        budget_macs: multiply-adds that it was allowed, search, scoring and trials together; None where that is not known.
        scores_P: one score a configuration, in the order of the table's space; higher is predicted to be better.
        percent: whether scores are accuracies in percent, so that the noise of the truth is a measure for them as well.
        budget: the same allowance in steps of a single SuperNet; None for what does not train.
        spent_macs: what it took.
        parts_2P: accuracy on shared weights and score of short trainings, where a ranking is by both; ``scores_P`` is then
            what they say together, smoothed.
        points: (spent_macs, scores_P) on the way there, in order; empty where only the end has a ranking.
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
    """Name -> measure(scores_P, truth_P). Regret is in points; taus and rho in -1 to 1; ranks from 1."""
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
    """One row an entry and treatment: method, seed, budget_macs, treatment, and value, low, high of each measure.

    ``count_P`` is what scores are fused with.

    Intervals are 95 % bootstrap percentiles over configurations. Raises RequestError for an empty study, for scores that
    do not fit the table, and where a method comes twice with one seed and budget.
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
    """Rows of one method, budget and treatment taken together: n seeds, mean, standard deviation, interval.

    The interval is that of the mean over seeds (bootstrap), or for a single seed the one over configurations;
    ``interval`` says which.
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
    """Paired tests of every two methods at one budget and treatment over the seeds that both have, at least two."""
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
    """tau-b and regret of the first choice over what was spent: one row a trial, or one row at the end of an entry."""
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
