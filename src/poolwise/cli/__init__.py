"""The command line: commands and progress; no logic."""

from poolwise.cli.commands import cli, main
from poolwise.cli.evidence import exhaustive

cli.add_command(exhaustive)

__all__ = ["main"]
