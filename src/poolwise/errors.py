"""Errors. Each message is one line: what is wrong, what is allowed, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PoolwiseError(Exception):
    """Base class of all errors meant for the user. ``exit_code`` is the exit code of the command line."""

    exit_code = 1

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


class RequestError(PoolwiseError):
    """Raised for a wrong request: invalid value, missing file, unknown name. Exit code 2."""

    exit_code = 2


class RunFailure(PoolwiseError):
    """Raised when a valid request fails: disk full, loss not finite, no network. Exit code 1."""


class WorkerDied(RunFailure):
    """Raised when a worker process is killed or runs out of memory during a job."""


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, on the host or the device."""
    reported = any(word in str(error) for word in ("allocate memory", "out of memory"))
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and reported)


def did_you_mean(name: str, allowed: Iterable[str], otherwise: str = "") -> str:
    """Return ``; did you mean 'x'?`` if an allowed name is similar to ``name``, or ``otherwise`` if none is."""
    close = difflib.get_close_matches(name.lower(), list(allowed), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else otherwise


def abbreviated(value: object) -> str:
    """Return the repr of a value for a message, truncated to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
