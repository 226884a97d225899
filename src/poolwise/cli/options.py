"""Flags shared by several commands, and the order of the commands in the help."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import click

from poolwise.cli.flags import SectionedCommand, compose, request_options, setting_options
from poolwise.cli.out import say
from poolwise.config import LIMITS, Config
from poolwise.errors import RequestError

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def counts(_context: click.Context, _parameter: click.Parameter | None, text: str | None) -> tuple[int, ...] | None:
    """Parse numbers of downsamplings. Raises RequestError for other text, including configurations."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and len(part) < 5 for part in parts):
        raise RequestError(
            f"--poolings {text[:60]!r}: use numbers of downsamplings like 2,3, or --configs to list single configurations"
        )
    return tuple(int(part) for part in parts)


class FilePath(click.Path):
    """Click type for a ``pathlib.Path``; rejects names that no file can have."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            valid = b"\0" not in os.fsencode(value)
        except UnicodeError:
            valid = False
        if not valid:
            self.fail(f"{value!r}: this is not a valid file name.", param, ctx)
        return super().convert(value, param, ctx)


PATH = FilePath()

# flags of new runs, of exhaustive, of other commands on spaces, and of stages that follow a search
every_setting = request_options(*(name for name in Config.model_fields if name not in ("preset", "seed")))
search_settings = request_options("model", "data", "training", "search", "ranking", "limits", "hardware")
standalone_settings = request_options(
    *("model.name", "width", "max_configs", "weights", "weights_for", "data", "training"),
    *("retrain_seeds", "retrain_epochs", "retrain_steps", "hardware"),
)
space_settings = setting_options("poolings", "max_configs")
_LIMITS = (*LIMITS, "latency_batch")
rank_settings = setting_options("fusion", *_LIMITS)
refine_settings = setting_options(
    *("trials", "refiner", "hints", "at_once", "margin", "retrain_epochs", "retrain_steps", *_LIMITS)
)
retrain_settings = setting_options("retrain", *_LIMITS)
machine_settings = setting_options("device", "precision", "threads", "workers", "compile")

_OUTPUT: list[Decorator] = [
    click.option("--quiet", is_flag=True, help="Print no progress."),
    click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Print the result as JSON on standard output; progress goes to standard error.",
    ),
]


def output_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --quiet and --json to a command, and print a first line before PyTorch loads, which takes seconds."""

    @functools.wraps(function)
    def announced(*, quiet: bool, as_json: bool, **options: Any) -> Any:
        if not quiet:
            plan = bool(options.get("plan"))
            doing = "loading PyTorch, then timing steps on this machine" if plan else "loading PyTorch"
            # with --plan or --json, standard output has only the result
            say(f"{click.get_current_context().info_name}: {doing}", err=plan or as_json)
        return function(quiet=quiet, as_json=as_json, **options)

    return compose(*_OUTPUT)(announced)


class Sections(click.Group):
    """Group whose help lists the commands under headings, in order of use."""

    command_class = SectionedCommand

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
