"""Long work at the terminal: progress, and signals that stop it where the run can go on."""

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

# Ctrl-C, a request to end, a closed terminal
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_PIPE = 13  # SIGPIPE where there is one
_HANGUP = getattr(signal, "SIGHUP", None)


class _Read:
    """A stream that says when nobody reads it any more, as in ``poolwise run | head`` or where the terminal was closed.

    It is silent from then on.
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
            with contextlib.suppress(OSError, ValueError):  # what is still buffered is written when Python ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            self._unread()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Stopped(Exception):
    """Stopped by a signal; the message says how to go on, the exit code which signal it was."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


@contextlib.contextmanager
def interruptible(out: Path, quiet: bool, as_json: bool) -> Iterator[Listener]:
    """Yield the listener of long work, which the first signal stops at the next safe point and a second one at once.

    The work also stops where nobody reads its output any more.

    Raises:
        Stopped: the work was stopped; the message says how to go on.
    """
    from poolwise.training.workers import keep_memory

    keep_memory()
    received: list[int] = []

    def stop(number: int, _frame: Any) -> None:
        # a terminal that is closed may tell twice, by itself and by its shell
        if received and number != _HANGUP:
            raise KeyboardInterrupt
        received.append(number)
        listener.stopping = True

    def unread() -> None:
        listener.stopping = True

    stream: Any = _Read(sys.stderr if as_json else sys.stdout, unread)
    listener = make_listener(quiet, Console(file=stream))
    for one in _SIGNALS:
        signal.signal(one, stop)
    try:
        yield listener
    except (Interrupted, KeyboardInterrupt):
        tell = "nothing had been started"
        if (out / "run.json").exists():
            tell = f"go on with: poolwise resume {out}"
        elif (out / "study.json").exists():
            tell = "what is finished is kept; go on with the same command"
        raise Stopped(f"stopped; {tell}", 128 + (received[0] if received else _PIPE)) from None
    finally:
        listener.close()
