"""The one answer to "what are the picks of this run?".

Retraining, export, the report and the tables all ask here, so that none of them can name another pick. The answer follows
from the files of the run and its limits as they are now: from the refinement where there is one, else from the ranking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from poolwise import statistics
from poolwise.config import Config
from poolwise.storage import RunFolder
from poolwise.storage.schemas import CompleteRanking, validate

RANKING, REFINEMENT = "ranking.json", "refine.json"


@dataclass(frozen=True)
class Picks:
    """The picks of a run, by stage lengths such as ``5-3-2``.

    Attributes:
        best: the pick.
        best_at_default_macs: the best that takes no more MACs than the default.
        best_for_cost: the largest gain over the default for the MACs that it takes.
        default: the configuration that the network has as published.
        roles: every configuration that is retrained, and as what: the best ones first, the default last unless it is
            among them. The first one is the pick.
    """

    best: str
    best_at_default_macs: str
    best_for_cost: str
    default: str
    roles: Mapping[str, list[str]]

    def to_json(self) -> dict[str, str]:
        """Return the three picks by name, as ``ranking.json`` and ``refine.json`` hold them."""
        return {
            "best": self.best,
            "best_at_default_macs": self.best_at_default_macs,
            "best_for_cost": self.best_for_cost,
        }


def picks_of(folder: RunFolder, config: Config | None = None) -> Picks:
    """Return the picks of a run.

    Args:
        folder: the run.
        settings: limits of what may be picked and ``top``; by default those that the run was requested with.

    Raises:
        RequestError: nothing is ranked yet, or a file is damaged.
    """
    config = config or Config.from_flat(folder.request()["settings"])
    ranking = folder.read(RANKING, f"rank it first, poolwise rank {folder.path}")
    validate(CompleteRanking, ranking, f"{folder.path / RANKING}: ")
    refinement = folder.read(REFINEMENT, "") if folder.has(REFINEMENT) else None
    return choose(ranking, refinement, config)


def choose(ranking: Mapping[str, Any], refinement: Mapping[str, Any] | None, config: Config) -> Picks:
    """Return the picks that the content of ``ranking.json`` and, where there is one, of ``refine.json`` leads to."""
    if refinement is not None:
        return among_refined(refinement["configurations"], ranking["default"], config)
    return _among(ranking["ranking"], ranking["default"], "estimate", config, trained=None)


def among_refined(rows: Sequence[dict[str, Any]], default: str, config: Config) -> Picks:
    """Return the picks among the rows of a refinement. The best ones are those that it trained.

    A configuration that was never trained is only picked where the limits leave none that was.
    """
    trained = {row["pooling"] for row in rows if row["trainings"]}
    return _among(rows, default, "expected", config, trained)


def _among(
    rows: Sequence[dict[str, Any]], default: str, expected: str, config: Config, trained: set[str] | None
) -> Picks:
    """Return the picks among rows that are sorted best first; ``expected`` names the column of what a row promises."""
    allowed = config.pickable(row["pooling"] for row in rows)
    three = statistics.three_picks(rows, default, expected, allowed)
    order = [row["pooling"] for row in rows if allowed is None or row["pooling"] in allowed]
    if trained is not None:
        order = [name for name in order if name in trained] or order
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
