"""Print to the terminal. All text passes through here, so that no control sequence or markup in it takes effect."""

from __future__ import annotations

from typing import Any

import click
from rich import table
from rich.console import Console
from rich.text import Text

from poolwise.sanitize import json_text, visible

_PIPE_WIDTH = 140  # width of tables in a file or pipe


def say(text: str, err: bool = False) -> None:
    """Print one or more lines."""
    click.echo(visible(text, keep="\n"), err=err)


def say_json(value: Any) -> None:
    """Print a value as JSON."""
    click.echo(json_text(value))


class Table(table.Table):
    """Table whose title, caption and cells are printed as plain text, without markup."""

    def __init__(self, *headings: str, title: str | None = None, caption: str | None = None, **options: Any):
        above, below = (
            text if text is None else Text(visible(text), style=f"table.{place}")
            for text, place in ((title, "title"), (caption, "caption"))
        )
        super().__init__(*headings, title=above, caption=below, **options)

    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*(Text(visible(str(cell))) for cell in cells), **options)


def show_table(table: Table) -> None:
    """Print a table in the width of the terminal, or in a fixed width otherwise."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPE_WIDTH)
    console.print(table)


def say_line(console: Console, text: str) -> None:
    """Print one line of progress."""
    console.print(visible(text), markup=False, highlight=False, soft_wrap=True)
