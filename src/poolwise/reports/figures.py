"""Create the figures of a report as SVG text from the contents of the files of a run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from poolwise.sanitize import visible
from poolwise.selection.picks import Picks
from poolwise.spaces import Pooling
from poolwise.storage.schemas import AssignmentEvent, CompleteRanking, RefineFile, SearchEvent

INK, MUTED, PICK, DEFAULT = "#1c2733", "#8a97a5", "#c2410c", "#1d4ed8"
_STYLE: Any = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "svg.fonttype": "path",
    "svg.hashsalt": "poolwise",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def plain_label(text: str) -> str:
    """Return untrusted text for a figure, with invisible characters escaped and math markup disabled."""
    return visible(text).replace("$", r"\$")


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def _axes(width: float = 6.0, height: float = 3.6) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def scores_against_macs(ranking: CompleteRanking, pick: str) -> str:
    """Plot score over MACs for every configuration; pick and default are labeled."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        rows = ranking.ranking
        axes.scatter([r.macs / 1e6 for r in rows], [100 * r.score for r in rows], s=22, color=MUTED)
        named = {pick: PICK}
        named.setdefault(ranking.default, DEFAULT)
        for row in rows:
            if row.pooling in named:
                _mark(axes, row.pooling, (row.macs / 1e6, 100 * row.score), named[row.pooling])
        axes.set(xlabel="million MACs per image", ylabel="score: accuracy on the scoring half, %")
        return _svg(figure)


def _mark(axes: Any, name: str, point: tuple[float, float], colour: str) -> None:
    """Highlight a configuration and label it with its name."""
    axes.scatter(*point, s=60, color=colour, zorder=3)
    axes.annotate(name, point, xytext=(7, 5), textcoords="offset points", color=colour, weight="bold")


def shared_and_short(ranking: CompleteRanking, pick: str) -> str | None:
    """Plot accuracy on shared weights over the loss of proxy trainings; pick and default are labeled.

    Return None if a configuration has no proxy training.
    """
    points: dict[str, tuple[float, float]] = {}
    for row in ranking.ranking:
        if not row.short or row.shared is None:
            return None
        points[row.pooling] = (-float(np.mean(row.short)), 100 * row.shared)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        axes.scatter(*zip(*points.values(), strict=True), s=22, color=MUTED)
        for name, colour in ((ranking.default, DEFAULT), (pick, PICK)):
            _mark(axes, name, points[name], colour)
        axes.invert_xaxis()
        axes.set(xlabel="mean loss of proxy training, nats", ylabel="accuracy on shared weights, %")
        return _svg(figure)


def decision(refined: RefineFile, picks: Picks) -> str:
    """Plot expected accuracy with 95 % intervals over MACs; trained dots are filled, picks and default labeled."""
    rows = refined.configurations
    named = {refined.default: DEFAULT} | dict.fromkeys(reversed(picks.to_json().values()), PICK)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        for row in rows:
            x, y = row.macs / 1e6, 100 * row.expected
            low, high = (100 * edge for edge in row.interval)
            colour = named.get(row.pooling, MUTED)
            axes.plot([x, x], [low, high], color=colour, linewidth=1, alpha=0.6)
            axes.plot([x], [y], "o", color=colour, markerfacecolor=colour if row.trainings else "white", markersize=5)
            if row.pooling in named:
                axes.annotate(
                    row.pooling, (x, y), xytext=(6, 4), textcoords="offset points", color=colour, weight="bold"
                )
        front, best = sorted(rows, key=lambda row: (row.macs, -row.expected)), -np.inf
        line = [row for row in front if row.expected > best and (best := row.expected)]
        axes.step(
            [r.macs / 1e6 for r in line], [100 * r.expected for r in line], where="post", color=INK, linewidth=0.8
        )
        axes.set(xlabel="million MACs per image", ylabel="expected accuracy on the scoring half, %")
        return _svg(figure)


def heat_map(ranking: CompleteRanking, pick: str) -> str | None:
    """Plot the score over the two pooling positions. Return None for other numbers of poolings."""
    if ranking.space.poolings != 2:
        return None
    with matplotlib.rc_context(_STYLE):
        layers = ranking.space.layers
        grid = np.full((layers, layers), np.nan)
        for row in ranking.ranking:
            first, second = Pooling.parse(row.pooling).positions
            grid[first, second] = 100 * row.score
        figure, axes = _axes(5.4, 4.4)
        shown = axes.imshow(grid[1:-1, 2:], cmap="viridis", origin="lower", aspect="auto")
        axes.set_xticks(range(layers - 2), [str(i + 1) for i in range(2, layers)])
        axes.set_yticks(range(layers - 2), [str(i + 1) for i in range(1, layers - 1)])
        axes.set(xlabel="layer after the second downsampling", ylabel="layer after the first downsampling")
        figure.colorbar(shown, ax=axes, label="score, %")
        for pooling, colour in ((ranking.default, DEFAULT), (pick, PICK)):
            first, second = Pooling.parse(pooling).positions
            axes.plot(
                second - 2,
                first - 1,
                "s",
                markersize=15,
                markerfacecolor="none",
                markeredgecolor=colour,
                markeredgewidth=2.5,
            )
        return _svg(figure)


def by_count(ranking: CompleteRanking, pick: str) -> str | None:
    """Plot the scores for each number of poolings. Return None if there is only one number."""
    scores: dict[int, list[float]] = {}
    for row in ranking.ranking:
        scores.setdefault(row.pooling.count("-"), []).append(100 * row.score)
    if len(scores) < 2:
        return None
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        for place, (_, values) in enumerate(sorted(scores.items())):
            spread = 0.3 * np.linspace(-1, 1, len(values)) if len(values) > 1 else np.zeros(1)
            axes.scatter(place + spread, values, s=16, color=MUTED)
        counts = sorted(scores)
        axes.set_xticks(range(len(counts)), list(map(str, counts)))
        for name, colour in ((pick, PICK), (ranking.default, DEFAULT)):
            row = next(row for row in ranking.ranking if row.pooling == name)
            axes.axhline(100 * row.score, color=colour, linewidth=1)
            axes.annotate(
                name, (0.01, 100 * row.score), xycoords=("axes fraction", "data"), color=colour, weight="bold"
            )
        axes.set(
            xlabel="number of downsamplings (best ranked at the left)",
            ylabel="score: accuracy on the scoring half, %",
        )
        return _svg(figure)


def assignment_through_time(events: Sequence[AssignmentEvent], ranking: CompleteRanking) -> str | None:
    """Plot the most probable SuperNet of every configuration at each snapshot; stronger colors are more certain.

    Return None if there are no snapshots or only one SuperNet.
    """
    if not events or max(len(event.assignment[0]) for event in events) < 2:
        return None
    with matplotlib.rc_context(_STYLE):
        supernets = max(len(event.assignment[0]) for event in events)
        history_SPM = np.zeros((len(events), len(events[-1].assignment), supernets))
        for held_PM, event in zip(history_SPM, events, strict=True):  # fewer SuperNets before a branching
            held_PM[:, : len(event.assignment[0])] = event.assignment
        palette = matplotlib.colormaps["tab10"](np.arange(supernets) % 10)[:, :3]
        even_S = np.array([1 / len(event.assignment[0]) for event in events])[:, None]
        # with one SuperNet, nothing is decided yet
        sure_SP = np.where(even_S < 1, (history_SPM.max(axis=2) - even_S) / np.maximum(1 - even_S, 1e-9), 0)
        colours_SP3 = palette[history_SPM.argmax(axis=2)]
        picture = 1 - sure_SP[..., None] * (1 - colours_SP3)
        space = [str(pooling) for pooling in ranking.space.to_space()]
        figure, axes = _axes(6.0, 5.6)
        extent = (events[0].step, events[-1].step + 1, len(space) - 0.5, -0.5)
        axes.imshow(picture.transpose(1, 0, 2), aspect="auto", extent=extent, interpolation="nearest")
        if len(space) <= 60:
            axes.set_yticks(range(len(space)), space, fontsize=7)
        axes.set(xlabel="step", ylabel="configuration")
        for m in range(supernets):
            axes.plot([], [], "s", color=palette[m], label=f"SuperNet {m + 1}")
        figure.legend(loc="outside upper center", ncols=min(supernets, 4), frameon=False)
        return _svg(figure)


def search_curves(events: Sequence[SearchEvent], has_entropy: bool) -> str | None:
    """Plot training loss, scoring accuracy and, with ``has_entropy``, the entropy of the assignment over the steps."""
    if not events:
        return None
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.0, 5.2), layout="constrained")
        steps = [event.step for event in events]
        known = (
            ("loss", "training loss, nats", 1),
            ("accuracy", "scoring accuracy, %", 100),
            ("entropy", "entropy, nats", 1),
        )
        shown = known if has_entropy else known[:-1]
        named = [entry for entry in shown if any(getattr(event, entry[0]) is not None for event in events)]
        panels = figure.subplots(len(named), 1, sharex=True)
        for axes, (name, label, factor) in zip(panels, named, strict=True):
            # there is no entropy while only the first SuperNet trains
            values = [(step, getattr(e, name)) for step, e in zip(steps, events, strict=True)]
            points = [(step, factor * value) for step, value in values if value is not None]
            axes.plot(*zip(*points, strict=True), color=INK, linewidth=1)
            axes.set_ylabel(label, fontsize=8)
        panels[-1].set_xlabel("step")
        return _svg(figure)


def retrain_curves(trials: list[dict[str, Any]], default: str, pick: str) -> str | None:
    """Plot the training loss of every stand-alone training. Return None if there are none."""
    if not trials:
        return None
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        colours = {pick: PICK, default: DEFAULT}
        others = iter(["#15803d", "#7e22ce", "#0e7490", "#a16207", "#be185d"])
        seen = set()
        for trial in trials:
            pooling = trial["pooling"]
            if pooling not in colours:
                colours[pooling] = next(others, MUTED)
            colour = colours[pooling]
            label = None if pooling in seen else pooling
            seen.add(pooling)
            steps, losses = zip(*trial["curve"], strict=True)
            axes.plot(steps, losses, color=colour, linewidth=1, alpha=0.8, label=label)
        axes.set(xlabel="step", ylabel="training loss, nats")
        axes.legend(frameon=False)
        return _svg(figure)
