"""Command line interface: commands and progress display, without other logic."""

from poolwise.cli.before import space, suggest
from poolwise.cli.commands import cli, main
from poolwise.cli.evidence import compare, exhaustive, simulate
from poolwise.cli.images import data

cli.add_command(space)
cli.add_command(suggest)
cli.add_command(exhaustive)
cli.add_command(compare)
cli.add_command(simulate)
cli.add_command(data)

__all__ = ["main"]
