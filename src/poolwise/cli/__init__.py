"""The command line: commands and progress; no logic."""

from poolwise.cli.commands import main

__all__ = ["main"]
