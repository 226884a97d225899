"""report.html: one page that loads nothing, made from the files of a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from markupsafe import Markup

from poolwise.errors import RequestError
from poolwise.metrics import kendall_tau_b
from poolwise.reporting import figures
from poolwise.reporting.templates import templates
from poolwise.settings import DEMONSTRATION, Settings
from poolwise.shapes import EVENTS, RANKED, check
from poolwise.space import Pooling, read
from poolwise.storage import RunFolder, Trials
from poolwise.truth import tables


def write(folder: RunFolder) -> Path:
    """Write ``figures/*.svg`` and ``report.html``; returns the page's path. RequestError where nothing is ranked yet."""
    request = folder.request()
    settings = Settings.from_json(request["settings"])
    ranking = folder.read("ranking.json", f"rank it first, poolwise rank {folder.path}")
    check(ranking, RANKED, f"{folder.path / 'ranking.json'}: ")
    refined = folder.read("refine.json", "") if folder.has("refine.json") else None
    if refined:
        ranking = {**ranking, "picks": refined["picks"]}
    retrain = folder.read("retrain.json", "") if folder.has("retrain.json") else None
    trials = Trials(folder).all() if (folder.path / "trials.sqlite").exists() else []
    trials = [trial for trial in trials if retrain and trial["budget"] == retrain["steps"]]
    events = {kind: _events(folder, kind) for kind in EVENTS}
    drawn = {
        "scores": figures.scores_against_macs(ranking),
        "decision": figures.decision(refined) if refined else None,
        "positions": figures.heat_map(ranking),
        "counts": figures.by_count(ranking),
        "assignment": figures.assignment_through_time(_of_ranking(events["assignment"], ranking), ranking),
        "short": figures.shared_and_short(ranking) if "short" in ranking else None,
        "search": figures.search_curves(events["search"]),
        "retrain": figures.retrain_curves(trials, ranking["default"], ranking["picks"]["best"]),
    }
    demonstration = DEMONSTRATION if settings.preset == "demo" and ranking["data"]["name"] == "cifar10" else ""
    html = (
        templates()
        .get_template("page.html.j2")
        .render(
            request=request,
            settings=settings,
            method=settings.method,
            has_entropy=any("entropy" in event for event in events["search"]),
            ranking=ranking,
            demonstration=demonstration,
            retrain=retrain,
            refined=refined,
            figures={name: Markup(svg) if svg else None for name, svg in drawn.items()},
            drawings=[_drawing(pooling, label, ranking) for pooling, label in _drawn(ranking)],
            agreement=_agreement(ranking, request),
            profile=folder.read("profile.json", "") if folder.has("profile.json") else None,
            stages=events["stage"],
            place=next(row["rank"] for row in ranking["ranking"] if row["pooling"] == ranking["default"]),
        )
    )
    figured = {f"figures/{name}.svg": svg.encode() for name, svg in drawn.items() if svg}
    folder.write_files({**figured, "report.html": html.encode()})
    return folder.path / "report.html"


def _events(folder: RunFolder, kind: str) -> list[dict[str, Any]]:
    """Events in the shape that the page needs. RequestError for any other."""
    found = folder.events(kind)
    for event in found:
        check(event, EVENTS[kind], f"{folder.path / 'events.jsonl'}: ")
    return found


def _of_ranking(snapshots: list[dict[str, Any]], ranking: dict[str, Any]) -> list[dict[str, Any]]:
    """Snapshots of the assignment. RequestError where they are not of the space that is ranked, whole or in part."""
    sizes = {(len(event["assignment"]), *{len(row) for row in event["assignment"]}) for event in snapshots}
    if any(size[:1] != (read(ranking["space"]).size,) or len(size) != 2 for size in sizes):
        raise RequestError("events.jsonl is damaged: its snapshots of the assignment are of other configurations")
    return snapshots


def _drawn(ranking: dict[str, Any]) -> list[tuple[str, str]]:
    labels: dict[str, list[str]] = {}
    picks = ranking["picks"]
    named = (
        (ranking["default"], "default"),
        (picks["best"], "pick"),
        (picks["best_at_default_macs"], "best at its MACs"),
        (picks["best_for_cost"], "best gain for its cost"),
    )
    for pooling, label in named:
        labels.setdefault(pooling, []).append(label)
    return [(pooling, ", ".join(own)) for pooling, own in labels.items()]


@dataclasses.dataclass(frozen=True)
class Drawing:
    """One configuration as bars, one a layer: width in percent, resolution in pixels."""

    pooling: str
    label: str
    row: dict[str, Any]
    bars: list[tuple[float, int]]


def _drawing(pooling: str, label: str, ranking: dict[str, Any]) -> Drawing:
    size = ranking["data"]["image_size"]
    row = next(row for row in ranking["ranking"] if row["pooling"] == pooling)
    return Drawing(pooling, label, row, [(100 / 2**depth, size >> depth) for depth in Pooling.parse(pooling).depths()])


def _agreement(ranking: dict[str, Any], request: dict[str, Any]) -> list[dict[str, Any]]:
    """Kendall tau-b of score and controls with each other and, for ResNet20 on CIFAR-10, with the published truth."""
    rows = ranking["ranking"]
    score = [row["score"] for row in rows]
    published = None
    if request["settings"]["model"] == "resnet20" and ranking["data"]["name"] == "cifar10":
        table = tables.load("resnet20-cifar10-published")
        truth = dict(zip(table.space, table.column("standalone_mean"), strict=True))
        own = [Pooling.parse(row["pooling"]) for row in rows]
        published = [truth[pooling] for pooling in own] if all(pooling in truth for pooling in own) else None
    named = {
        "score": "score of the search",
        "estimate": "estimate, score and productive convolutions" if ranking["ranked_by"] == "estimate" else "estimate",
        "macs": "MACs, no training",
        "productive": "productive convolutions, no training",
    }
    return [
        {
            "name": text,
            "score": None if key == "score" else kendall_tau_b([row[key] for row in rows], score),
            "published": None if published is None else kendall_tau_b([row[key] for row in rows], published),
        }
        for key, text in named.items()
    ]
