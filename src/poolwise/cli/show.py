"""Print results as tables or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poolwise.cli.out import Table, say, say_json, show_table
from poolwise.config import DEMO_NOTICE
from poolwise.spaces import Pooling
from poolwise.storage import RunFolder, read_checked
from poolwise.storage.schemas import (
    CompleteRanking,
    ExhaustiveFile,
    FileSchema,
    RefineFile,
    RetrainFile,
    validate,
)

if TYPE_CHECKING:
    from poolwise.models import Family
    from poolwise.models.cost import Cost
    from poolwise.models.external.slots import Slots
    from poolwise.pipeline.estimates import Plan
    from poolwise.selection.suggest import Guess

_RESULTS: dict[str, type[FileSchema]] = {
    "ranking": CompleteRanking,
    "refine": RefineFile,
    "retrain": RetrainFile,
    "exhaustive": ExhaustiveFile,
}
_SUGGESTED = 5  # number of rows
_PRODUCTIVE = "Productive convolutions: convolutions whose input receptive field is smaller than the image."
PICKS = {
    "best": "best",
    "best_at_default_macs": "best within the default's MACs",
    "best_for_cost": "best gain for its cost",
}


def line(value: dict[str, Any], as_json: bool, text: str) -> None:
    """Print a result: ``value`` as JSON, or ``text``."""
    if as_json:
        return say_json(value)
    say(text)


def families(known: Sequence[Family], as_json: bool) -> None:
    """Print the network families."""
    if as_json:
        return say_json(
            [
                {"model": f.name, "default": str(f.default), "configurations": len(f.space), "operator": f.operator}
                for f in known
            ]
        )
    table = Table("model", "default", "configurations", "downsamples by", "network and layers")
    for f in known:
        table.add_row(f.name, str(f.default), str(len(f.space)), f.operator, f.summary)
    show_table(table)


def slots(model: str, network: Slots, as_json: bool) -> None:
    """Print the slots of a network: the layers before which a downsampling can be placed."""
    if as_json:
        return say_json({"model": model, **network.to_json()})
    table = Table(
        "layer",
        "name",
        title=f"{model}: {network.pooling}, {network.space.size} configurations with as many downsamplings",
    )
    for heading in ("pixels", "channels", "million MACs", "downsamplings now"):
        table.add_column(heading, justify="right")
    table.add_column("can downsample by")
    for i, slot in enumerate(network.layers):
        cells = [str(slot.resolution), str(slot.channels), f"{slot.macs / 1e6:.1f}", str(slot.halvings or "")]
        table.add_row(str(i), slot.name, *cells, slot.how, style="bold" if slot.halvings else None)
    show_table(table)
    for name, reason in network.fixed.items():
        say(f"fixed: {name}: {reason}")


def costs(priced: dict[Pooling, Cost], default: Pooling, size: int, as_json: bool) -> None:
    """Print the costs of configurations: all of the space, or a sample of its ``size`` configurations."""
    if as_json:
        rows = [{"pooling": str(p), "default": p == default, **cost.to_json()} for p, cost in priced.items()]
        return say_json({"default": str(default), "size": size, "configurations": rows})
    table = Table("configuration", "")
    headings = ("million MACs", "MACs / default", "parameters", "activations KiB", "receptive field")
    for heading in (*headings, "productive convolutions"):
        table.add_column(heading, justify="right")
    for pooling, c in sorted(priced.items(), key=lambda item: item[1].macs):
        cells = [f"{c.macs / 1e6:.1f}", f"{c.macs_ratio:.2f}", f"{c.parameters:,}", f"{c.activation_bytes / 1024:.0f}"]
        marked = pooling == default
        cells += [str(c.receptive_field), str(c.productive)]
        table.add_row(str(pooling), "default" if marked else "", *cells, style="bold" if marked else None)
    show_table(table)
    say(f"Activations: memory of one image in training, in float32. {_PRODUCTIVE}")
    if len(priced) < size:
        say(
            f"a uniform sample of {len(priced):,} of {size:,} configurations, including the default; --max-configs sets its size"
        )


def suggested(guess: Guess, as_json: bool) -> None:
    """Print suggestions made without training, and how accurate they are on known tables."""
    if as_json:
        return say_json(guess.to_json())
    units = {
        "max_macs": "times the default's MACs",
        "max_params": "parameters",
        "max_memory": "MiB of activations",
        "max_latency_ms": "ms",
    }
    limits = ", ".join(f"{limit:g} {units[name]}" for name, limit in guess.limits.items() if limit is not None)
    title = f"suggestions without training; at most {limits}" if limits else "suggestions without training"
    table = Table("rank", "configuration", "", title=title)
    timed = ["ms"] if guess.latency_ms else []
    for heading in ("productive convolutions", "MACs / default", "activations KiB", *timed):
        table.add_column(heading, justify="right")
    for place, (pooling, cost) in enumerate(list(guess.costs.items())[:_SUGGESTED], 1):
        cells = [str(cost.productive), f"{cost.macs_ratio:.2f}", f"{cost.activation_bytes / 1024:.0f}"]
        cells += [f"{guess.latency_ms[pooling]:.2f}"] if timed else []
        marked = pooling == guess.default
        names = (str(place), str(pooling), "default" if marked else "")
        table.add_row(*names, *cells, style="bold" if marked else None)
    show_table(table)
    say(_PRODUCTIVE)
    if guess.priced < guess.size:
        say(
            f"suggested from a uniform sample of {guess.priced:,} of {guess.size:,} configurations; --max-configs sets its size"
        )
    _known_quality(guess)


def _known_quality(guess: Guess) -> None:
    """Print how accurate such suggestions are on tables of the same network, and warn if they do not beat the default."""
    from poolwise.models.cost import shape
    from poolwise.storage import tables

    if not guess.known:
        say(f"the accuracy of suggestions for {guess.model} is unknown: the package has no table of it")
    for known in guess.known:
        pixels, _ = shape(tables.load(known.table))
        if known.gain == 0 and guess.best == guess.default:
            first = "its first choice is the default,"
        else:
            first = f"its first choice minus the default: {known.gain:+.2f} points;"
        low, high = known.interval
        say(
            f"on table {known.table} ({pixels}-pixel images) the order by this rule has Kendall tau-b {known.tau_b:.2f}"
            f" ({low:.2f} to {high:.2f}) with stand-alone accuracies; {first} {known.regret:.2f} points below the best within"
            " the limits"
        )
    if guess.known and all(known.gain <= 0 for known in guess.known):
        say(
            "warning: on no known table does the first choice beat the default within this limit: train before you use a"
            " suggestion (poolwise run)"
        )


def plan(value: Plan, as_json: bool) -> None:
    """Print the estimated cost of a run."""
    if as_json:
        return say_json(value.to_json())
    for text in value.lines():
        say(text)


def ranking(value: dict[str, Any], as_json: bool, rows: int | None, picks: dict[str, str] | None = None) -> None:
    """Print the ranking, best first, and its agreement with the baselines.

    Args:
        value: Content of ``ranking.json``.
        as_json: Print ``value`` as JSON.
        rows: Maximum number of rows (None: all).
        picks: Picks of the run (default: those of the ranking).
    """
    if as_json:
        return say_json(value)
    content = validate(CompleteRanking, value, f"{CompleteRanking.FILE}: ")
    shown = content.ranking[:rows]
    table = Table("rank", "configuration", title=f"{len(shown)} of {len(content.ranking)} configurations")
    for heading in (
        "score %",
        "95 %",
        "estimate",
        "top 3",
        "tie",
        "SuperNet",
        "million MACs",
        "productive convolutions",
    ):
        table.add_column(heading, justify="right")
    for row in shown:
        style = "bold" if row.pooling == content.default else None
        cells = [
            f"{100 * row.score:.2f}",
            "{:.1f}-{:.1f}".format(*(100 * edge for edge in row.interval)),
            f"{100 * row.estimate:.2f}",
            f"{row.top3:.2f}",
            str(row.tie),
            str(row.supernet + 1),
            f"{row.macs / 1e6:.1f}",
            str(row.productive),
        ]
        table.add_row(str(row.rank), row.pooling, *cells, style=style)
    show_table(table)
    if content.coverage:
        say(content.coverage)
    _fusion(content)
    _controls(content)
    place = next(row.rank for row in content.ranking if row.pooling == content.default)
    by_name, half = {row.pooling: row for row in content.ranking}, 1.96 * content.fusion.error
    described = []
    for name, words in PICKS.items():
        row = by_name[(picks or content.picks)[name]]
        expected = f"{100 * row.estimate:.1f} ± {100 * half:.1f}"
        described.append(f"{words} {row.pooling} ({expected}, MACs / default {row.macs_ratio:.2f})")
    say(f"picks, with the estimate ± 1.96 standard errors in the unit of the score: {'; '.join(described)}")
    say(
        f"the default {content.default} has rank {place}; to measure the gain of a pick: poolwise refine, poolwise retrain"
    )


def _fusion(content: CompleteRanking) -> None:
    """Print what the ranking is based on, and the meaning of top 3 and ties."""
    fusion = content.fusion
    scores, count = fusion.scores, fusion.productive
    parts = f"scores (reliability {scores.reliability:.2f}, weight {scores.weight:.2f})"
    if fusion.summary is not None:
        parts = f"{fusion.summary} (reliability of the scores {scores.reliability:.2f})"
    elif count and fusion.agreement is not None:
        parts += (
            f" and productive convolutions (weight {count.weight:.2f}), with an agreement of {fusion.agreement:.2f}"
        )
    if fusion.trainings:
        parts += f"; {fusion.trainings} configurations trained stand-alone are included"
    say(
        f"ranked by {'the estimate from ' if content.ranked_by == 'estimate' else ''}{parts}. Top 3: probability of being"
        " among the three best. Tie: group of configurations that are not significantly different (90 %). Both include"
        " noise, estimated from neighboring configurations, but not errors that all scores share. SuperNet: the most"
        f" probable one. {_PRODUCTIVE}"
    )


def _controls(content: CompleteRanking) -> None:
    """Print the agreement of the scores with baselines, which a search must beat."""
    agreement = [f"{name} {control.tau_with_score:.2f}" for name, control in content.controls.items()]
    say(f"agreement of the score with baselines, which need no training (Kendall tau-b): {', '.join(agreement)}")


def refined(value: dict[str, Any], as_json: bool, picks: dict[str, str] | None = None) -> None:
    """Print the trainings, the expected accuracies of the best configurations, and the three picks.

    Args:
        value: Content of ``refine.json``.
        as_json: Print ``value`` as JSON.
        picks: Picks of the run (default: those of the refinement).
    """
    if as_json:
        return say_json(value)
    content = validate(RefineFile, value, f"{RefineFile.FILE}: ")
    picks = picks or content.picks
    title = f"{len(content.trials)} stand-alone trainings on one half of the images, scored on the other"
    table = Table("configuration", "role", title=title)
    for heading in ("trained", "accuracy %", "expected % (95 %)", "probability of best", "MACs / default"):
        table.add_column(heading, justify="right")
    for row in content.configurations:
        measured = [t.accuracy for t in content.trials if t.pooling == row.pooling and t.steps == content.steps]
        roles = [words for name, words in PICKS.items() if picks[name] == row.pooling]
        roles += ["default"] if row.pooling == content.default else []
        if not measured and not roles and row.best < 0.05:
            continue
        accuracies = ", ".join("failed" if accuracy is None else f"{100 * accuracy:.2f}" for accuracy in measured)
        low, high = (100 * edge for edge in row.interval)
        cells = [
            str(row.trainings),
            accuracies,
            f"{100 * row.expected:.2f} ({low:.1f} to {high:.1f})",
            f"{row.best:.0%}",
            f"{row.macs_ratio:.2f}",
        ]
        table.add_row(row.pooling, ", ".join(roles), *cells, style="bold" if row.pooling == picks["best"] else None)
    show_table(table)
    hints = ", ".join(f"{name} {hint.weight:.2f}" for name, hint in content.hints.items())
    say(f"weights of what predicts the accuracy, learned from the trainings: {hints}; noise {content.noise:.2f} points")
    say(f"{content.stopped}. Expected: the accuracy of such a training. For a verdict with new seeds: poolwise retrain")


def retrained(value: dict[str, Any], as_json: bool) -> None:
    """Print stand-alone accuracies and the verdict."""
    if as_json:
        return say_json(value)
    content = validate(RetrainFile, value, f"{RetrainFile.FILE}: ")
    table = Table(
        "configuration", "role", title=f"stand-alone training, {content.steps} steps, {content.test_images} test images"
    )
    for heading in ("test accuracy %", "seeds", "MACs / default", "difference in points"):
        table.add_column(heading, justify="right")
    for result in content.results:
        std = f" ± {100 * result.std:.2f}" if result.std is not None else ""
        comparison = result.comparison
        difference = "" if comparison is None else f"{comparison.difference:+.2f}"
        if comparison and comparison.interval:
            difference += " ({:+.2f} to {:+.2f})".format(*comparison.interval)
        cells = [
            f"{100 * result.mean:.2f}{std}",
            str(len(result.accuracies)),
            f"{result.macs_ratio:.2f}",
            difference,
        ]
        table.add_row(result.pooling, ", ".join(result.roles), *cells)
    show_table(table)
    for rival in content.equal_cost:
        ratio = f"{rival.training_macs_ratio:.2f} times the default's training MACs"
        say(f"at equal cost: {rival.comparison.sentence} It took {ratio}")
    say(f"verdict: {content.verdict}")


def exhaustive(value: dict[str, Any], as_json: bool) -> None:
    """Print stand-alone accuracies of all configurations, best first, and the noise between seeds."""
    if as_json:
        return say_json(value)
    content = validate(ExhaustiveFile, value, f"{ExhaustiveFile.FILE}: ")
    table = Table(
        "rank", "configuration", title=f"stand-alone training, {content.steps} steps, {content.data.test} test images"
    )
    for heading in ("test accuracy %", "seeds"):
        table.add_column(heading, justify="right")
    done = [(result.mean, result) for result in content.results if result.mean is not None]
    for rank, (mean, result) in enumerate(sorted(done, key=lambda pair: -pair[0]), 1):
        std = f" ± {100 * result.std:.2f}" if result.std is not None else ""
        trained = sum(accuracy is not None for accuracy in result.accuracies)
        table.add_row(str(rank), result.pooling, f"{100 * mean:.2f}{std}", str(trained))
    show_table(table)
    if content.noise is not None:
        say(f"noise between seeds: {content.noise:.2f} points (standard deviation, pooled over configurations)")
    if content.ceiling is not None:
        say(f"agreement between seeds (Kendall tau-b, the upper limit for any method): {content.ceiling:.2f}")
    for failure in content.failed:
        say(f"failed: {failure.pooling}, seed {failure.seed}: {failure.error}", err=True)
    if content.failed:
        say(f"{len(content.failed)} trainings failed: repeat the command with --retry-failed", err=True)


def result(path: Path, as_json: bool) -> None:
    """Print all results of a run."""
    values = {}
    for name, schema in _RESULTS.items():
        if (path / schema.FILE).exists():
            values[name] = read_checked(path / schema.FILE)
    if as_json:
        return say_json({"run": str(path), **values})
    if not values:
        say(f"search done; next: poolwise rank {path}")
    picks = None
    if "ranking" in values:
        from poolwise.selection.picks import picks_of  # imports NumPy

        picks = picks_of(RunFolder.open(path)).to_json()
        ranking(values["ranking"], False, None, picks)
    if "refine" in values:
        refined(values["refine"], False, picks)
    if "retrain" in values:
        retrained(values["retrain"], False)
    if "exhaustive" in values:
        exhaustive(values["exhaustive"], False)
    if (path / "report.html").exists():
        say(f"report: {path / 'report.html'}")
    request = values.get("ranking", {}).get("settings", {})
    if request.get("preset") == "demo" and request.get("data") == "cifar10":
        say(DEMO_NOTICE)
