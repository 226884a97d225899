"""Create the figures and the self-contained page of a comparison from the content of ``compare.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from poolwise.reports.figures import _STYLE, DEFAULT, INK, MUTED, PICK, _axes, _svg, plain_label
from poolwise.reports.templates import templates
from poolwise.spaces import Pooling
from poolwise.storage import write_atomically
from poolwise.storage.schemas import CompareFile, SimulateFile, validate

PAGE = "compare.html"
_CHARACTER = 0.075  # width of a character of a label, in inches


def write(value: dict[str, Any], out: Path) -> Path:
    """Write ``figures/*.svg`` and ``compare.html``. Return the path of the page.

    Raises:
        RequestError: ``value`` is not the content of a ``compare.json`` file.
    """
    validate(CompareFile, value, f"{CompareFile.FILE}: ")
    drawn = {
        "agreement": intervals(value, "tau_b", "Kendall tau-b with the ground truth", value["ceiling"]),
        "regret": intervals(value, "regret@1", "regret of the first choice, points", None),
        "anytime": anytime(value, "regret@1", "regret of the first choice, points"),
        "anytime_agreement": anytime(value, "tau_b", "Kendall tau-b with the ground truth"),
        "truth": truth_map(value),
        "scatter": scatter(value),
    }
    for name, svg in drawn.items():
        if svg:
            write_atomically(out / "figures" / f"{name}.svg", svg)
    html = (
        templates()
        .get_template("compare.html.j2")
        .render(value=value, figures={name: Markup(svg) if svg else None for name, svg in drawn.items()})
    )
    write_atomically(out / PAGE, html)
    return out / PAGE


def intervals(value: dict[str, Any], measure: str, label: str, ceiling: float | None) -> str:
    """Plot one measure of every method, with a dot and an interval for each treatment of the scores."""
    plain = [row for row in value["summary"] if row["treatment"] == "raw"]
    looks = {
        "raw": (-0.24, INK, INK, "raw scores"),
        "smoothed": (0.0, PICK, "white", "smoothed over positions"),
        "fused": (0.24, DEFAULT, DEFAULT, "fused with productive convolutions"),
    }
    names = [plain_label(_name(row)) for row in plain]
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(max(6.4, 4.0 + _CHARACTER * max(map(len, names))), 1.2 + 0.42 * len(plain))
        for row in value["summary"]:
            place = next(i for i, other in enumerate(plain) if _same(row, other))
            summary, (shift, colour, fill, _) = row[measure], looks[row["treatment"]]
            axes.plot([summary["low"], summary["high"]], [place + shift] * 2, color=colour, linewidth=1.4)
            axes.plot([summary["mean"]], [place + shift], "o", color=colour, markerfacecolor=fill, markersize=5)
        for _, colour, fill, words in looks.values():
            axes.plot([], [], "o", color=colour, markerfacecolor=fill, label=words)
        if ceiling is not None:
            axes.axvline(
                ceiling, color=MUTED, linestyle="--", linewidth=1, label="between two seeds of the ground truth"
            )
        axes.set_yticks(range(len(plain)), names)
        axes.set_ylim(len(plain) - 0.4, -0.6)  # first method at the top
        axes.set_xlabel(label)
        figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=8)
        return _svg(figure)


def _same(row: dict[str, Any], other: dict[str, Any]) -> bool:
    return (row["method"], row["budget_macs"]) == (other["method"], other["budget_macs"])


def _name(row: dict[str, Any]) -> str:
    if row["budget"]:
        return f"{row['method']}, {row['budget']} steps"
    return row["method"] if not row["budget_macs"] else f"{row['method']}, {row['budget_macs']:.1e} MACs"


def anytime(value: dict[str, Any], measure: str, label: str) -> str | None:
    """Plot the mean of a measure over seeds against the MACs spent. Return None if no method has several points."""
    curves = {method: _curve(rows, measure) for method, rows in _by(value["anytime"], "method").items()}
    if all(len(spent) < 2 for spent, _ in curves.values()):
        return None
    colours, names = matplotlib.colormaps["tab20"], [plain_label(method) for method in curves]
    columns = max(min(int(6.4 / (0.6 + 0.8 * _CHARACTER * max(map(len, names)))), 3), 1)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(6.4, 4.0 + 0.18 * -(-len(curves) // columns))
        for i, (name, (spent, means)) in enumerate(zip(names, curves.values(), strict=True)):
            dots = "o" if len(spent) < 8 else ","
            axes.plot(spent, means, f"{dots}-", color=colours((2 * i + i // 10) % 20), label=name, markersize=4)
        axes.set(xscale="log", xlabel="MACs of search, scoring, ranking and stand-alone trainings", ylabel=label)
        figure.legend(loc="outside upper center", ncols=columns, frameon=False, fontsize=7)
        return _svg(figure)


def _by(rows: list[dict[str, Any]], key: str) -> dict[Any, list[dict[str, Any]]]:
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups


def _curve(rows: list[dict[str, Any]], measure: str) -> tuple[list[float], list[float]]:
    """Return the MACs spent and the mean of a measure over seeds for one method.

    If a method has intermediate points, the curve covers its largest budget, from where all seeds have a value; each
    seed keeps its last value until its next point. Otherwise the curve has one final point per budget.
    """
    budgets = {budget: list(_by(group, "seed").values()) for budget, group in _by(rows, "budget").items()}
    if all(len(points) == 1 for seeds in budgets.values() for points in seeds) and len(rows) > 1:
        ends = [[points[0] for points in seeds] for seeds in budgets.values()]
        if len(ends) == 1 and rows[0]["budget"] is None:  # budgets are identified only by their MACs
            ends = list(_by(rows, "spent_macs").values())
        points = sorted(
            (np.mean([p["spent_macs"] for p in seeds]), np.mean([p[measure] for p in seeds])) for seeds in ends
        )
        return [float(spent) for spent, _ in points], [float(mean) for _, mean in points]
    seeds = budgets[max(budgets, key=lambda budget: budget or 0)]
    grid = sorted({point["spent_macs"] for points in seeds for point in points})
    grid = [macs for macs in grid if macs >= max(points[0]["spent_macs"] for points in seeds)]
    means = []
    for macs in grid:
        last = [[p[measure] for p in points if p["spent_macs"] <= macs][-1] for points in seeds]
        means.append(float(np.mean(last)))
    return [float(macs) for macs in grid], means


def truth_map(value: dict[str, Any]) -> str | None:
    """Plot stand-alone accuracy over the two pooling positions. Return None for other numbers of poolings."""
    layers, poolings = value["table"]["space"]["layers"], value["table"]["space"]["poolings"]
    if poolings != 2:
        return None
    grid = np.full((layers, layers), np.nan)
    for name, accuracy in zip(value["poolings"], value["truth"], strict=True):
        grid[Pooling.parse(name).positions] = accuracy
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(5.4, 4.4)
        shown = axes.imshow(grid[1:, 1:], cmap="viridis", origin="lower", aspect="auto")
        axes.set_xticks(range(layers - 1), [str(i + 1) for i in range(1, layers)])
        axes.set_yticks(range(layers - 1), [str(i + 1) for i in range(1, layers)])
        axes.set(xlabel="layer after the second downsampling", ylabel="layer after the first downsampling")
        figure.colorbar(shown, ax=axes, label="stand-alone test accuracy, %")
        return _svg(figure)


def scatter(value: dict[str, Any]) -> str:
    """Plot stand-alone accuracy over score, one panel per method (first seed of its largest budget)."""
    chosen: dict[str, dict[str, Any]] = {}
    for entry in sorted(value["entries"], key=lambda entry: (-(entry["budget_macs"] or 0), entry["seed"])):
        chosen.setdefault(entry["method"], entry)
    methods = list(dict.fromkeys(entry["method"] for entry in value["entries"]))
    columns = min(len(methods), 4)
    rows = -(-len(methods) // columns)
    with matplotlib.rc_context(_STYLE):
        figure = matplotlib.figure.Figure(figsize=(2.3 * columns, 2.1 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, method in zip(panels, methods, strict=False):
            axes.scatter(chosen[method]["scores"], value["truth"], s=9, color=INK)
            axes.set_title(plain_label(method), fontsize=9)
            axes.tick_params(labelsize=7)
            axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4))
        for axes in panels[len(methods) :]:
            axes.set_axis_off()
        figure.supxlabel("score", fontsize=9)
        figure.supylabel("stand-alone accuracy, %", fontsize=9)
        return _svg(figure)


def simulated(value: dict[str, Any]) -> str:
    """Plot the mean regret of every method by number of trainings, with its 10 % to 90 % band and the tolerance.

    Two more panels show how often a configuration within the tolerance was chosen, and how often one was trained.

    Raises:
        RequestError: ``value`` is not the content of a ``simulate.json`` file.
    """
    validate(SimulateFile, value, f"{SimulateFile.FILE}: ")
    colours, counts = matplotlib.colormaps["tab10"], np.arange(1, value["trials"] + 1)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(12.8, 4.2 + 0.16 * -(-len(value["methods"]) // 2)), layout="constrained")
        left, *shares = figure.subplots(1, 3)
        for i, row in enumerate(value["methods"]):
            colour, dash = colours(i % 10), "-" if i < 10 else "--"
            left.plot(counts, row["mean"], f"o{dash}", color=colour, label=plain_label(row["method"]), markersize=4)
            left.fill_between(counts, row["q10"], row["q90"], color=colour, alpha=0.08, linewidth=0)
            for axes, name in zip(shares, ("found", "reached"), strict=True):
                axes.plot(counts, row[name], f"o{dash}", color=colour, markersize=4)
        left.axhline(value["tolerance"], color=MUTED, linestyle="--", linewidth=1)
        left.set(xlabel="stand-alone trainings", ylabel="regret in points, mean and 10 % to 90 %")
        for axes, words in zip(shares, ("for the choice", "among trainings"), strict=True):
            axes.axhline(0.9, color=MUTED, linestyle="--", linewidth=1)
            label = f"share of runs with regret of at most {value['tolerance']:.2f} {words}"
            axes.set(xlabel="stand-alone trainings", ylabel=label, ylim=(0, 1.02))
        figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=7)
        return _svg(figure)
