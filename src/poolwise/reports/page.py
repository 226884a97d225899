"""Create ``report.html``, a self-contained page, from the files of a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

from markupsafe import Markup

from poolwise.config import DEMO_NOTICE, Config
from poolwise.errors import RequestError
from poolwise.reports import figures
from poolwise.reports.templates import templates
from poolwise.selection.picks import Picks, picks_of
from poolwise.spaces import Pooling
from poolwise.statistics import kendall_tau_b
from poolwise.storage import RunFolder, tables
from poolwise.storage.schemas import (
    AssignmentEvent,
    CompleteRanking,
    CompleteRow,
    ProfileFile,
    RefineFile,
    RetrainFile,
    RunRequest,
    Schema,
    SearchEvent,
    StageEvent,
    validate,
)

E = TypeVar("E", bound=Schema)


def write(folder: RunFolder) -> Path:
    """Write ``figures/*.svg`` and ``report.html``. Return the path. Raises RequestError if nothing is ranked yet."""
    request = folder.load(RunRequest)
    config = Config.from_flat(request.settings)
    ranking = folder.load(CompleteRanking)
    refined = folder.find(RefineFile)
    picks = picks_of(folder, config)
    retrain = folder.find(RetrainFile)
    trials = folder.trials().all() if (folder.path / "trials.sqlite").exists() else []
    trials = [trial for trial in trials if retrain and trial["budget"] == retrain.steps]
    progress = _events(folder, "search", SearchEvent)
    supernets = ranking.supernets or config.search.supernets or 1
    has_entropy = supernets > 1 and any(event.entropy is not None for event in progress)
    snapshots = _of_ranking(_events(folder, "assignment", AssignmentEvent), ranking)
    drawn = {
        "scores": figures.scores_against_macs(ranking, picks.best),
        "decision": figures.decision(refined, picks) if refined else None,
        "positions": figures.heat_map(ranking, picks.best),
        "counts": figures.by_count(ranking, picks.best),
        "assignment": figures.assignment_through_time(snapshots, ranking),
        "short": figures.shared_and_short(ranking, picks.best),
        "search": figures.search_curves(progress, has_entropy),
        "retrain": figures.retrain_curves(trials, ranking.default, picks.best),
    }
    demonstration = DEMO_NOTICE if config.preset == "demo" and ranking.data.name == "cifar10" else ""
    html = (
        templates()
        .get_template("page.html.j2")
        .render(
            request=request,
            config=config,
            method=config.search.method,
            has_entropy=has_entropy,
            ranking=ranking,
            picks=picks,
            demonstration=demonstration,
            retrain=retrain,
            refined=refined,
            figures={name: Markup(svg) if svg else None for name, svg in drawn.items()},
            drawings=[_drawing(pooling, label, ranking) for pooling, label in _drawn(picks)],
            agreement=_agreement(ranking, config.model.name),
            profile=folder.find(ProfileFile),
            stages=_events(folder, "stage", StageEvent),
            place=next(row.rank for row in ranking.ranking if row.pooling == ranking.default),
        )
    )
    figured = {f"figures/{name}.svg": svg.encode() for name, svg in drawn.items() if svg}
    folder.write_files({**figured, "report.html": html.encode()})
    return folder.path / "report.html"


def _events(folder: RunFolder, kind: str, schema: type[E]) -> list[E]:
    """Return the events of one kind. Raises RequestError if one does not match its schema."""
    return [validate(schema, event, f"{folder.path / 'events.jsonl'}: ") for event in folder.events(kind)]


def _of_ranking(snapshots: list[AssignmentEvent], ranking: CompleteRanking) -> list[AssignmentEvent]:
    """Return the snapshots of the assignment. Raises RequestError if they do not match the space of the ranking."""
    sizes = {(len(event.assignment), *{len(row) for row in event.assignment}) for event in snapshots}
    if any(size[:1] != (ranking.space.to_space().size,) or len(size) != 2 for size in sizes):
        raise RequestError(
            "events.jsonl is damaged: its assignment snapshots do not match the configurations of the ranking"
        )
    return snapshots


def _drawn(picks: Picks) -> list[tuple[str, str]]:
    """Return the configurations to draw as bars, each with a label."""
    labels: dict[str, list[str]] = {}
    named = (
        (picks.default, "default"),
        (picks.best, "pick"),
        (picks.best_at_default_macs, "best within the default's MACs"),
        (picks.best_for_cost, "best gain for its cost"),
    )
    for pooling, label in named:
        labels.setdefault(pooling, []).append(label)
    return [(pooling, ", ".join(names)) for pooling, names in labels.items()]


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A configuration drawn with one bar (width in percent, resolution in pixels) per layer."""

    pooling: str
    label: str
    row: CompleteRow
    bars: list[tuple[float, int]]


def _drawing(pooling: str, label: str, ranking: CompleteRanking) -> Drawing:
    size = ranking.data.image_size
    row = next(row for row in ranking.ranking if row.pooling == pooling)
    return Drawing(pooling, label, row, [(100 / 2**depth, size >> depth) for depth in Pooling.parse(pooling).depths()])


def _agreement(ranking: CompleteRanking, model: str) -> list[dict[str, Any]]:
    """Return Kendall tau-b of rankings with the score and, for ResNet20 on CIFAR-10, with published accuracies."""
    rows = ranking.ranking
    score = [row.score for row in rows]
    published = None
    if model == "resnet20" and ranking.data.name == "cifar10":
        table = tables.load("resnet20-cifar10-published")
        truth = dict(zip(table.space, table.column("standalone_mean"), strict=True))
        poolings = [Pooling.parse(row.pooling) for row in rows]
        published = [truth[pooling] for pooling in poolings] if all(pooling in truth for pooling in poolings) else None
    named = {
        "score": "score of the search",
        "estimate": "estimate from score and productive convolutions"
        if ranking.ranked_by == "estimate"
        else "estimate",
        "macs": "MACs, no training",
        "productive": "productive convolutions, no training",
    }
    return [
        {
            "name": text,
            "score": None if key == "score" else kendall_tau_b([getattr(row, key) for row in rows], score),
            "published": None if published is None else kendall_tau_b([getattr(row, key) for row in rows], published),
        }
        for key, text in named.items()
    ]
