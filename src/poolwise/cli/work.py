"""Long work at the terminal: progress, and signals that stop it where the run can go on."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from poolwise.cli.progress import listener as make_listener
from poolwise.progress import Interrupted

# Ctrl-C, a request to end, a closed terminal
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_PIPE = 13  # SIGPIPE where there is one: whoever read the lines has gone


class _Read(Console):
    """A console that says when nobody reads it any more, as in ``poolwise run | head``, and is silent from then on."""

    def __init__(self, unread: Callable[[], None], **options: Any):
        super().__init__(**options)
        self._unread = unread

    def on_broken_pipe(self) -> None:
        self.quiet = True
        with contextlib.suppress(OSError, ValueError):  # what is still buffered is written when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
        self._unread()


class Stopped(Exception):
    """Stopped by a signal; the message says how to go on, the exit code which signal it was."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


def work(out: Path, quiet: bool, as_json: bool, do: Any) -> Any:
    """Run ``do(listener)``; the first signal to end stops at the next safe point, a second at once.

    So does a pipe that is closed at its other end.
    """
    from poolwise.workers import keep_memory

    keep_memory()
    received: int = signal.SIGINT

    def stop(number: int, _frame: Any) -> None:
        nonlocal received
        received = number
        if listener.stopping:
            raise KeyboardInterrupt
        listener.stopping = True

    listener = make_listener(quiet, _Read(lambda: stop(_PIPE, None), stderr=as_json))
    for one in _SIGNALS:
        signal.signal(one, stop)
    try:
        return do(listener)
    except (Interrupted, KeyboardInterrupt):
        tell = "nothing had been started"
        if (out / "run.json").exists():
            tell = f"go on with: poolwise resume {out}"
        elif (out / "study.json").exists():
            tell = "what is finished is kept; go on with the same command"
        raise Stopped(f"stopped; {tell}", 128 + received) from None
    finally:
        listener.close()
