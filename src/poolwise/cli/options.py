"""Flags that several commands share, and the order of the commands in the help."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import click

from poolwise.cli.out import say
from poolwise.errors import RequestError
from poolwise.settings import AUTO, PRESETS

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _workers(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | str | None:
    if value is None or value == AUTO:
        return value
    if not value.isascii() or not value.isdigit() or len(value) > 9 or not 1 <= int(value) <= 1024:
        raise click.BadParameter(f"{value!r}: 'auto' or a whole number from 1 to 1024 is allowed.")
    return int(value)


def _auto_or(kind: Callable[[str], float], allowed: str) -> Callable[..., float | str | None]:
    """Callback of an option whose value is AUTO or a number."""

    def callback(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | str | None:
        if value is None or value == AUTO:
            return value
        try:
            return kind(value)
        except ValueError:
            raise click.BadParameter(f"{value!r}: 'auto' or {allowed} is allowed.") from None

    return callback


def counts(_context: click.Context, _parameter: click.Parameter | None, text: str | None) -> tuple[int, ...] | None:
    """Numbers of downsamplings; RequestError for anything else, configurations among it."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and len(part) < 5 for part in parts):
        raise RequestError(
            f"poolings {text[:60]!r}: numbers of downsamplings like 2,3 are allowed; poolwise exhaustive lists single"
            " configurations with --configs"
        )
    return tuple(int(part) for part in parts)


class FilePath(click.Path):
    """A path as ``pathlib.Path``."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            named = b"\0" not in os.fsencode(value)
        except UnicodeError:
            named = False
        if not named:
            self.fail(f"{value!r}: no file can have such a name.", param, ctx)
        return super().convert(value, param, ctx)


PATH = FilePath()

_PROBLEM: list[Decorator] = [
    click.option(
        "--preset", "preset_name", default="demo", show_default=True, help=f"Starting point: {', '.join(PRESETS)}."
    ),
    click.option(
        "--model",
        help="Network family (poolwise space --models lists them); or torchvision:NAME, timm:NAME, FILE.py:NAME.",
    ),
    click.option("--width", type=int, help="Base number of channels."),
    click.option("--data", help="cifar10, cifar100, food101, or folder:PATH with one subfolder a class."),
    click.option("--image-size", type=int, help="Pixels along one side, for folders and food101 (64)."),
    click.option("--images", type=int, help="Use at most so many training images, drawn by class."),
    click.option(
        "--flip/--no-flip", default=None, help="Mirror images while training; off where that changes the class."
    ),
    click.option(
        "--augment",
        help="What happens to training images: crop-flip (as published), cutout, trivial, randaugment or none.",
    ),
    click.option(
        "--stream", help="Pixels of image files on disk (on), in memory (off), or on disk where they are many (auto)."
    ),
    click.option(
        "--cache-images/--no-cache-images",
        default=None,
        help="Keep decoded images on disk also where memory holds them.",
    ),
    click.option(
        "--skip-broken",
        is_flag=True,
        default=None,
        help="Go on without image files that cannot be read; the report says so.",
    ),
    click.option(
        "--follow-links", is_flag=True, default=None, help="Follow links to folders, and links out of the data folder."
    ),
]
_SPACE: list[Decorator] = [
    click.option(
        "--max-configs",
        type=int,
        help="Of a space with more configurations, a seeded uniform draw of so many, the default among them.",
    ),
]
_COUNTS: list[Decorator] = [
    click.option(
        "--poolings",
        callback=counts,
        help="Numbers of downsamplings to place, like 2,3 (as many as the default has).",
    ),
]
_SEARCH: list[Decorator] = [
    click.option(
        "--method", help="What is trained next: mixture (the balanced mixture of SuperNets), or another sampler."
    ),
    click.option(
        "--warm-up",
        type=float,
        help="Share of the search that draws uniformly first (boltzmann, mcts), or that one SuperNet trains alone before all"
        " others begin as copies of it (mixture, partitions).",
    ),
    click.option("--block", type=int, help="Steps drawn with the same scores; 1 as published."),
    click.option("--profile", is_flag=True, default=None, help="Measure where the time goes; the report shows it."),
    click.option("--checkpoint-minutes", type=float, help="Minutes between two checkpoints of the search (5)."),
    click.option(
        "--supernets",
        callback=_auto_or(int, "a whole number of at least 1"),
        help="M, the number of SuperNets, or auto: one, and more in long searches where it is measured to pay.",
    ),
    click.option(
        "--branching",
        help="fixed (as many SuperNets as asked for, after the warm-up) or measured (one, and twice as many where"
        " configurations are better off apart, beyond noise).",
    ),
    click.option("--epochs", type=int, help="Length of the search in passes over the training half."),
    click.option("--steps", type=int, help="Length of the search in steps; wins over --epochs."),
    click.option("--search-macs", type=int, help="Length of the search in multiply-adds; wins over --steps."),
    click.option(
        "--short",
        callback=_auto_or(float, "a number from 0 to below 1"),
        help="Share of the steps for short trainings of every configuration on its own, whose losses rank as well, or auto.",
    ),
    click.option("--eval-batch-size", type=int, help="Images a batch while ranking; part of the result."),
    click.option("--temperature", type=float, help="Temperature of the assignment at the end of the search."),
    click.option("--temperature-start", type=float, help="Temperature at its start."),
    click.option("--norm", help="BatchNorm: batch (as published), affine (its own by depth) or recalibrated."),
    click.option("--sharing", help="full (one set of weights for all) or resolution (one by depth)."),
    click.option("--draw", help="rounds (every configuration once a round) or iid (as published)."),
]
_FUSION: list[Decorator] = [
    click.option(
        "--fusion/--no-fusion",
        default=None,
        help="Rank by an estimate from scores and productive convolutions, or by scores alone (as published).",
    ),
]
_RANKING: list[Decorator] = [
    click.option(
        "--rank-beam",
        type=int,
        help="Rank what a beam of this width over pooling positions comes by, and not the whole space.",
    ),
    click.option(
        "--rank-on",
        help="Scored when ranking by the assigned SuperNet (as published), or by all, weighted by assignment.",
    ),
]
_TRAINING: list[Decorator] = [
    click.option("--batch-size", type=int, help="Images a training and scoring batch."),
    click.option("--lr", type=float, help="Learning rate at the start."),
    click.option("--lr-end", type=float, help="Learning rate at the end."),
    click.option("--momentum", type=float),
    click.option("--weight-decay", type=float),
    click.option("--seed", type=int, help="Root of all randomness."),
]
_WEIGHTS: list[Decorator] = [
    click.option(
        "--weights",
        help="Begin with these in place of random weights: a file (.safetensors, .pth), torchvision:NAME or timm:NAME.",
    ),
    click.option("--weights-for", help="Trainings that do: search, retrain (stand-alone ones) or both."),
]
_MACHINE: list[Decorator] = [
    click.option("--device", help="auto, cpu, cuda, cuda:1, mps."),
    click.option(
        "--precision",
        help="Number format: float32, bfloat16 or tf32, each alone or with +channels_last; auto takes the fastest by"
        " measurement. By default it follows from the device.",
    ),
    click.option(
        "--compile", help="off, default (torch.compile of each layer) or cuda-graphs; not part of the measuring."
    ),
    click.option(
        "--threads",
        type=int,
        help="CPU threads of each process; part of the result's last bits.",
    ),
    click.option("--workers", callback=_workers, help="Processes at once: a number, or auto (measured); same results."),
]
_STANDALONE: list[Decorator] = [
    click.option("--retrain-seeds", type=int, help="Stand-alone trainings of each configuration, seeds 1 to N."),
    click.option("--retrain-epochs", type=int, help="Length of a stand-alone training in passes over all images."),
    click.option("--retrain-steps", type=int, help="The same in steps; wins over --retrain-epochs."),
]
_RETRAIN: list[Decorator] = [
    click.option("--top", type=int, help="How many of the ranking are retrained."),
    *_STANDALONE,
    click.option(
        "--until-decided/--fixed-seeds",
        default=None,
        help="Add seeds of the pick and the default until more would not change the verdict.",
    ),
    click.option("--max-seeds", type=int, help="At most so many seeds then (10)."),
    click.option("--margin", type=float, help="Points of accuracy below which a difference does not matter (0.2)."),
    click.option(
        "--equal-cost/--no-equal-cost",
        default=None,
        help="Compare a dearer pick with the default widened, and trained longer, to as many MACs as well.",
    ),
]
_LIMITS: list[Decorator] = [
    click.option("--max-macs", type=float, help="At most so many times the default's MACs, like 1.0."),
    click.option("--max-params", type=float, help="At most so many trainable parameters."),
    click.option("--max-memory", type=float, help="At most so many MiB of float32 activations in a training step."),
    click.option("--max-latency-ms", type=float, help="At most so many ms a forward pass, measured on this device."),
    click.option("--latency-batch", type=int, help="Images of that pass (1)."),
]
_OUTPUT: list[Decorator] = [
    click.option("--quiet", is_flag=True, help="No progress."),
    click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="The result as JSON on standard output; progress goes to standard error.",
    ),
]


def _all(decorators: list[Decorator]) -> Decorator:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


settings_options = _all(
    [*_PROBLEM, *_COUNTS, *_SPACE, *_SEARCH, *_RANKING, *_FUSION, *_TRAINING, *_WEIGHTS, *_LIMITS, *_MACHINE]
)
fusion_options = _all(_FUSION)
counts_options = _all([*_COUNTS, *_SPACE])
standalone_options = _all([*_PROBLEM, *_SPACE, *_STANDALONE, *_TRAINING, *_WEIGHTS, *_MACHINE])
limit_options = _all(_LIMITS)
machine_options = _all(_MACHINE)
retrain_options = _all(_RETRAIN)
retraining_options = _all([*_RETRAIN, *_LIMITS])


def output_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --quiet and --json to a command, and print its first line before PyTorch is loaded, which takes seconds."""

    @functools.wraps(function)
    def announced(*, quiet: bool, as_json: bool, **options: Any) -> Any:
        if not quiet:
            plan = bool(options.get("plan"))
            doing = "timing steps on this machine for the plan" if plan else "loading PyTorch"
            # a plan and JSON are the only lines of standard output
            say(f"{click.get_current_context().info_name}: {doing}", err=plan or as_json)
        return function(quiet=quiet, as_json=as_json, **options)

    return _all(_OUTPUT)(announced)


class Sections(click.Group):
    """A group whose help lists the commands under headings, in the order they are used."""

    SECTIONS: ClassVar[dict[str, tuple[str, ...]]] = {
        "Before training": ("space", "suggest"),
        "Training": ("run", "search", "rank", "refine", "retrain", "exhaustive", "resume"),
        "Evidence": ("compare", "simulate"),
        "Results": ("report", "export", "data"),
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in self.SECTIONS.values() for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, names in self.SECTIONS.items():
            rows = [(name, self.commands[name].get_short_help_str(90)) for name in names]
            with formatter.section(heading):
                formatter.write_dl(rows)
