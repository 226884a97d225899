"""Long work at the terminal: progress, and Ctrl-C that stops where the run can go on."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from rich.console import Console

from poolwise.cli.progress import listener as make_listener
from poolwise.progress import Interrupted


class Stopped(Exception):
    """Stopped by Ctrl-C; the message says how to go on."""


def work(out: Path, quiet: bool, as_json: bool, do: Any) -> Any:
    """Run ``do(listener)``; the first Ctrl-C stops at the next safe point, a second at once."""
    from poolwise.workers import keep_memory

    keep_memory()
    listener = make_listener(quiet, Console(stderr=as_json))

    def stop(*_: Any) -> None:
        if listener.stopping:
            raise KeyboardInterrupt
        listener.stopping = True

    signal.signal(signal.SIGINT, stop)
    try:
        return do(listener)
    except (Interrupted, KeyboardInterrupt):
        tell = "nothing had been started"
        if (out / "run.json").exists():
            tell = f"go on with: poolwise resume {out}"
        elif (out / "study.json").exists():
            tell = "what is finished is kept; go on with the same command"
        raise Stopped(f"stopped; {tell}") from None
    finally:
        listener.close()
