"""The command line: commands and progress; no logic."""

from poolwise.cli.commands import cli, main
from poolwise.cli.evidence import compare, exhaustive, simulate

cli.add_command(exhaustive)
cli.add_command(compare)
cli.add_command(simulate)

__all__ = ["main"]
