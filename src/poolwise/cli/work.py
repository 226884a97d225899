"""Run long work from the command line: progress, and signals that stop it at points that can be resumed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from poolwise.cli.progress import listener as make_listener
from poolwise.progress import Interrupted, Listener

# Ctrl-C, termination, a closed terminal
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_PIPE = 13  # number of SIGPIPE, which not every system defines
_HANGUP = getattr(signal, "SIGHUP", None)


class _Read:
    """Stream that calls ``unread`` when its reader is gone, as in ``poolwise run | head`` or with a closed terminal.

    Afterwards, output is discarded.
    """

    def __init__(self, stream: Any, unread: Callable[[], None]):
        self._stream, self._unread = stream, unread

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, do: Callable[[], Any]) -> None:
        try:
            do()
        except OSError:
            with contextlib.suppress(OSError, ValueError):  # buffered text is still written at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            self._unread()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Stopped(Exception):
    """Raised when a signal stops the work. The message explains how to continue; the exit code gives the signal."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


@contextlib.contextmanager
def interruptible(out: Path, quiet: bool, as_json: bool) -> Iterator[Listener]:
    """Yield a listener for long work. The first signal stops the work at the next safe point, a second one immediately.

    The work also stops when the reader of its output is gone.

    Raises:
        Stopped: The work was stopped. The message explains how to continue.
    """
    from poolwise.training.workers import keep_memory

    keep_memory()
    received: list[int] = []

    def stop(number: int, _frame: Any) -> None:
        # a closed terminal may send SIGHUP twice: itself and through its shell
        if received and number != _HANGUP:
            raise KeyboardInterrupt
        received.append(number)
        listener.stopping = True

    def unread() -> None:
        listener.stopping = True

    stream: Any = _Read(sys.stderr if as_json else sys.stdout, unread)
    listener = make_listener(quiet, Console(file=stream))
    for number in _SIGNALS:
        signal.signal(number, stop)
    try:
        yield listener
    except (Interrupted, KeyboardInterrupt):
        advice = "no run was created"
        if (out / "run.json").exists():
            advice = f"continue with: poolwise resume {out}"
        elif (out / "study.json").exists():
            advice = "finished work is kept; continue with the same command"
        raise Stopped(f"stopped; {advice}", 128 + (received[0] if received else _PIPE)) from None
    finally:
        listener.close()
