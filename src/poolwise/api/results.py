"""Return types of the API: the content of a JSON file, its values as rows, and its folder."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from poolwise.storage import RunFolder
from poolwise.storage.schemas import ExhaustiveFile, RankingFile, RefineFile, RetrainFile
from poolwise.storage.tabular import COST, LATENCY, MACS, REACH, Tabular

_R = TypeVar("_R", bound="Result")


@dataclass(frozen=True, eq=False, repr=False)
class Result(Mapping[str, Any], Tabular):
    """The result of a stage: a mapping with the keys of its JSON file, which can be converted to rows.

    Attributes:
        content: Content of the file.
        folder: Folder of the file; None if nothing was written.
    """

    content: Mapping[str, Any]
    folder: Path | None

    def __getitem__(self, key: str) -> Any:
        return self.content[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.to_rows())} rows, folder={str(self.folder)!r})"

    def to_rows(self) -> list[dict[str, Any]]:
        return [{name: row.get(name) for name in self.COLUMNS} for row in self._rows()]

    @abstractmethod
    def _rows(self) -> Iterator[dict[str, Any]]:
        """Yield rows with at least the keys of COLUMNS."""


def _span(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row with the ends of its interval as ``low`` and ``high``."""
    low, high = row.get("interval") or (None, None)
    return {**row, "low": low, "high": high}


class Ranking(Result):
    """``ranking.json``: one row per configuration, best first."""

    COLUMNS: ClassVar[dict[str, str]] = {
        "rank": "position in the ranking, from 1",
        "pooling": "layers at each resolution",
        "score": "accuracy on the scoring half, 0 to 1; with proxy trainings, combined with their training loss",
        "shared": "the accuracy only, if there are proxy trainings",
        "short": "negative mean training loss of its proxy trainings, in nats",
        "low": "lower end of the score's 95 % interval",
        "high": "upper end of the score's 95 % interval",
        "smoothed": "score smoothed over neighboring configurations, 0 to 1",
        "estimate": "weighted score and productive convolutions, or the score only; in the unit of the score",
        "top3": "probability of being among the three best, given the noise of the estimates",
        "tie": "number, from 1, of its group of configurations that are not significantly different (90 %), given that noise",
        "supernet": "number of its most probable SuperNet, from 0",
        **COST,
        **REACH,
    }

    @property
    def picks(self) -> dict[str, str]:
        """The configurations picked as ``best``, ``best_at_default_macs`` and ``best_for_cost``."""
        return self["picks"]

    def _rows(self) -> Iterator[dict[str, Any]]:
        for row in self["ranking"]:
            short = float(np.mean(row["short"])) if "short" in row else None
            yield {**_span(row), "short": short}


class Refinement(Result):
    """``refine.json``: one row per configuration with its expected accuracy after the trainings, best first."""

    COLUMNS: ClassVar[dict[str, str]] = {
        "pooling": "layers at each resolution",
        "expected": "expected accuracy on the scoring half after training on the training half, 0 to 1",
        "low": "lower end of the 95 % interval of that accuracy",
        "high": "upper end of the 95 % interval of that accuracy",
        "best": "probability that it is the best configuration",
        "trainings": "number of its stand-alone trainings",
        **COST,
        **LATENCY,
    }

    @property
    def picks(self) -> dict[str, str]:
        """The configurations picked as ``best``, ``best_at_default_macs`` and ``best_for_cost``."""
        return self["picks"]

    def _rows(self) -> Iterator[dict[str, Any]]:
        return (_span(row) for row in self["configurations"])


class Retraining(Result):
    """``retrain.json``: one row per stand-alone training, with statistics of its configuration."""

    COLUMNS: ClassVar[dict[str, str]] = {
        "pooling": "layers at each resolution",
        "roles": "roles in the comparison, such as pick or default, separated by commas",
        "seed": "seed of the training, from 1 (not --seed, the root seed of the run)",
        "accuracy": "accuracy on the test set, 0 to 1",
        "steps": "optimizer steps of the training",
        "mean": "mean accuracy of the configuration over seeds",
        "std": "standard deviation of that accuracy between seeds",
        **MACS,
        "difference": "mean difference from the default over paired seeds, in points (100 times accuracy)",
        "low": "lower end of the difference's 95 % interval, in points",
        "high": "upper end of the difference's 95 % interval, in points",
        "verdict": "comparison with the default: better, worse, no worse or not shown; None for the default",
    }

    @property
    def verdict(self) -> str:
        """One sentence that compares the pick with the default."""
        return self["verdict"]

    @property
    def pick(self) -> str:
        return self["results"][0]["pooling"]

    def _rows(self) -> Iterator[dict[str, Any]]:
        for row in self["results"]:
            shared = {**row, **_span(row.get("comparison") or {}), "roles": ", ".join(row["roles"])}
            for seed, accuracy in enumerate(row["accuracies"], 1):  # with ``until_decided``, more than ``seeds``
                yield {**shared, "seed": seed, "accuracy": accuracy, "steps": self["steps"]}


class Exhaustive(Result):
    """``exhaustive.json``: one row per stand-alone training."""

    COLUMNS: ClassVar[dict[str, str]] = {
        "pooling": "layers at each resolution",
        "seed": "seed of the training, from 1 (not --seed, the root seed of the run)",
        "accuracy": "accuracy on the test set, 0 to 1; None if the training failed",
        "steps": "optimizer steps of the training",
        "mean": "mean accuracy of the configuration over seeds",
        "std": "standard deviation of that accuracy between seeds",
    }

    def _rows(self) -> Iterator[dict[str, Any]]:
        for row in self["results"]:
            for seed, accuracy in zip(self["seeds"], row["accuracies"], strict=True):
                yield {**row, "seed": seed, "accuracy": accuracy, "steps": self["steps"]}


class Comparison(Result):
    """``compare.json``: one row per entry, treatment of its scores, and measure."""

    COLUMNS: ClassVar[dict[str, str]] = {
        "method": "method that produced the ranking",
        "seed": "seed of its search or trainings",
        "budget": "allowed compute, in steps of a single SuperNet",
        "budget_macs": "allowed compute, in MACs",
        "spent_macs": "used compute, in MACs",
        "treatment": "treatment of the scores: raw, smoothed or fused",
        "first": "first configuration of the ranking",
        "measure": "name of the measure, such as tau_b or regret@1 (docs/comparison.md)",
        "value": "value of the measure: regret in points; taus and rho from -1 to 1; ranks from 1; beats_random a probability",
        "low": "lower end of the 95 % interval over configurations",
        "high": "upper end of the 95 % interval over configurations",
    }

    def _rows(self) -> Iterator[dict[str, Any]]:
        for row in self["rows"]:
            for name in self["measures"]:
                yield {**row, "measure": name, **row[name]}


class Simulation(Result):
    """``simulate.json``: one row per method and number of full-length trainings, aggregated over all runs."""

    COLUMNS: ClassVar[dict[str, str]] = {
        "method": "method and its hints",
        "training": "number of full-length trainings so far",
        "mean": "regret of the first choice, in points",
        "q90": "90 % quantile of that regret over runs, in points",
        "found": "share of runs whose first choice is within the tolerance",
        "reached": "share of runs that have trained a configuration within the tolerance",
        "compute": "compute so far, as a share of training every configuration",
    }

    def _rows(self) -> Iterator[dict[str, Any]]:
        for row in self["methods"]:
            for i in range(self["trials"]):
                figures = {
                    name: values[i] for name, values in row.items() if name in self.COLUMNS and isinstance(values, list)
                }
                yield {"method": row["method"], "training": i + 1, **figures}


class Run(RunFolder, Tabular):
    """A run folder and its results so far. Its rows are the progress of its search.

    >>> Run.open("runs/demo").ranking.to_dataframe()
    """

    COLUMNS: ClassVar[dict[str, str]] = {
        "step": "optimizer steps so far, over all SuperNets",
        "loss": "mean training loss since the previous row",
        "accuracy": "mean accuracy on scoring batches since the previous row, 0 to 1; None without such batches",
        "lr": "learning rate",
        "temperature": "temperature of the assignment",
        "entropy": "entropy of the assignment, in nats; 0 if every configuration has one SuperNet",
        "imbalance": "imbalance of the assignment between SuperNets: Kullback-Leibler divergence, in nats",
    }

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open a run folder. Raises RequestError if it holds no run."""
        RunFolder.open(Path(path))
        return cls(Path(path))

    @property
    def ranking(self) -> Ranking | None:
        """The ranking; None if the run is not ranked. Likewise for the other stages."""
        return self._result(Ranking, RankingFile.FILE)

    @property
    def refinement(self) -> Refinement | None:
        return self._result(Refinement, RefineFile.FILE)

    @property
    def retraining(self) -> Retraining | None:
        return self._result(Retraining, RetrainFile.FILE)

    @property
    def exhaustive(self) -> Exhaustive | None:
        return self._result(Exhaustive, ExhaustiveFile.FILE)

    def _result(self, kind: type[_R], name: str) -> _R | None:
        return kind(self.read(name, ""), self.path) if self.has(name) else None

    def __repr__(self) -> str:
        done = [name for name in ("ranking", "refinement", "retraining", "exhaustive") if getattr(self, name)]
        return f"Run({str(self.path)!r}, done: {', '.join(done) or 'nothing yet'})"

    def to_rows(self) -> list[dict[str, Any]]:
        return [{name: event.get(name) for name in self.COLUMNS} for event in self.events("search")]
