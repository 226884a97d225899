"""Picks of a run: the only place that decides which configurations a run recommends.

Retraining, export, reports and tables all use this module, so they always agree. The picks depend on the files of the
run and on its current limits: they come from the refinement if there is one, otherwise from the ranking.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from poolwise import statistics
from poolwise.config import Config
from poolwise.storage import RunFolder
from poolwise.storage.schemas import CompleteRanking, RankingFile, RefineFile, validate


@dataclass(frozen=True)
class Picks:
    """Picks of a run, as stage lengths such as ``5-3-2``.

    Attributes:
        best: The pick.
        best_at_default_macs: The best configuration that needs no more MACs than the default.
        best_for_cost: The configuration with the largest gain over the default relative to its MACs.
        default: The published configuration of the network.
        roles: Configurations to retrain and their roles. Best ones first, the default last unless it is one of them.
            The first one is the pick.
    """

    best: str
    best_at_default_macs: str
    best_for_cost: str
    default: str
    roles: Mapping[str, list[str]]

    def to_json(self) -> dict[str, str]:
        """Return the three picks by name, as stored in ``ranking.json`` and ``refine.json``."""
        return {
            "best": self.best,
            "best_at_default_macs": self.best_at_default_macs,
            "best_for_cost": self.best_for_cost,
        }


def picks_of(folder: RunFolder, config: Config | None = None) -> Picks:
    """Return the picks of a run.

    Args:
        folder: Folder of the run.
        config: Config with the limits on the picks and ``top``; by default the config that the run was requested with.

    Raises:
        RequestError: There is no ranking yet, or a file is damaged.
    """
    config = config or Config.from_flat(folder.request()["settings"])
    ranking = folder.read(RankingFile.FILE, f"rank it first: poolwise rank {folder.path}")
    validate(CompleteRanking, ranking, f"{folder.path / RankingFile.FILE}: ")
    refinement = folder.read(RefineFile.FILE, "") if folder.has(RefineFile.FILE) else None
    return choose(ranking, refinement, config)


def choose(ranking: Mapping[str, Any], refinement: Mapping[str, Any] | None, config: Config) -> Picks:
    """Return the picks for the contents of ``ranking.json`` and, if present, ``refine.json``."""
    if refinement is not None:
        trained = fully_trained(refinement["trials"], refinement["steps"])
        return among_refined(refinement["configurations"], trained, ranking["default"], config)
    return _among(ranking["ranking"], ranking["default"], "estimate", config, trained=None)


def fully_trained(trials: Iterable[Mapping[str, Any]], steps: int) -> set[str]:
    """Return the configurations that have a successful training of ``steps`` steps, the full length."""
    return {trial["pooling"] for trial in trials if trial["steps"] == steps and trial["accuracy"] is not None}


def among_refined(rows: Sequence[dict[str, Any]], trained: Set[str], default: str, config: Config) -> Picks:
    """Return the picks among the rows of a refinement.

    A configuration outside ``trained`` (see ``fully_trained``) is picked only if none in it satisfies the limits, except
    the default.
    """
    return _among(rows, default, "expected", config, trained)


def _among(
    rows: Sequence[dict[str, Any]], default: str, expected: str, config: Config, trained: Set[str] | None
) -> Picks:
    """Return the picks among rows sorted best first; ``expected`` names the column with the predicted accuracy."""
    allowed = config.pickable(row["pooling"] for row in rows)
    order = [row["pooling"] for row in rows if allowed is None or row["pooling"] in allowed]
    if trained is not None:
        order = [name for name in order if name in trained] or order
    three = statistics.three_picks(rows, default, expected, set(order))
    roles: dict[str, list[str]] = {}
    for place, pooling in enumerate(order[: config.retrain.top], 1):
        roles.setdefault(pooling, []).append("pick" if place == 1 else f"rank {place}")
    roles.setdefault(three["best_at_default_macs"], []).append("best at no more MACs than the default")
    roles.setdefault(three["best_for_cost"], []).append("best gain for its cost")
    roles.setdefault(default, []).append("default")
    return Picks(
        best=next(iter(roles)),
        best_at_default_macs=three["best_at_default_macs"],
        best_for_cost=three["best_for_cost"],
        default=default,
        roles=roles,
    )
