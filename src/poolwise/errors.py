"""What can go wrong. Every message is one line: what was given, what is allowed, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PoolwiseError(Exception):
    """Base of all errors meant for the user. ``exit_code`` is what the command line returns."""

    exit_code = 1

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


class RequestError(PoolwiseError):
    """A wrong request: bad value, missing file, unknown name. Exit code 2."""

    exit_code = 2


class RunFailure(PoolwiseError):
    """A right request that could not be carried out: disk full, loss not finite, no network. Exit code 1."""


class WorkerDied(RunFailure):
    """A worker process was killed or had no memory left while it did one job."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, here or on the device."""
    told = any(word in str(error) for word in ("allocate memory", "out of memory"))
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and told)


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """``; did you mean 'x'`` where something allowed looks like what was given, otherwise an empty string."""
    close = difflib.get_close_matches(given.lower(), list(allowed), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'" if close else ""
