"""The command line: commands and progress; no logic."""

from poolwise.cli.commands import cli, main
from poolwise.cli.evidence import compare, exhaustive

cli.add_command(exhaustive)
cli.add_command(compare)

__all__ = ["main"]
