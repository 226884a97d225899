"""From the flags of a command to a checked request, with its plan and its time budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from poolwise.cli import show
from poolwise.cli.flags import requested
from poolwise.cli.out import say
from poolwise.config import AUTO, Config
from poolwise.errors import RequestError

# flags that set a length, and the flag of the length that a time budget chooses
_LENGTHS = {
    **dict.fromkeys(("steps", "epochs", "search_macs"), "--steps"),
    **dict.fromkeys(("retrain_steps", "retrain_epochs"), "--retrain-steps"),
}


def request(values: dict[str, Any]) -> Config:
    """Return the request of a command line, checked as far as possible without loading images."""
    from poolwise.supernets import samplers

    supernets = values.get("supernets")
    config = samplers.settled(requested(values))
    if supernets not in (None, AUTO, config.search.supernets):
        raise RequestError(f"--method {config.search.method} uses one SuperNet; omit --supernets {supernets}")
    return config


def show_plan(config: Config, stages: Sequence[str], as_json: bool) -> None:
    """Estimate the cost of stages and print it."""
    from poolwise import api

    show.plan(api.plan(config, stages), as_json)


def fitted(values: dict[str, Any], budget: str | None, stages: Sequence[str], out: Path | None = None) -> Config:
    """Return the request of a command line, fitted to ``--time-budget``.

    ``--supernets`` and ``--images`` keep the values that they are given. ``out`` is the folder to create, if any.

    Raises:
        RequestError: A length is given as well, which the budget chooses; a value is wrong; or ``out`` is in use.
    """
    names = [name for name, value in values.items() if value is not None]
    if budget is None:
        return request(values)
    for name in names:
        chosen_by_budget = _LENGTHS.get(name)
        if chosen_by_budget:
            flag = f"--{name.replace('_', '-')}"
            raise RequestError(f"--time-budget chooses {chosen_by_budget}: omit {flag} or --time-budget")
    config = request(values)
    from poolwise import api
    from poolwise.pipeline.estimates import parse_time
    from poolwise.storage import RunFolder

    seconds = parse_time(budget)
    if out is not None:
        RunFolder.check_free(out)
    say("timing steps on this machine to fit the time budget", err=True)
    config = api.fit(config, seconds, stages, names)
    chosen = {"steps": config.search.steps, "supernets": config.search.supernets, "images": config.data.images}
    if "retrain" in stages:
        chosen["retrain-steps"] = config.retrain.steps
    flags = " ".join(f"--{name} {value}" for name, value in chosen.items() if value is not None)
    say(f"time budget {budget}: {flags} (to repeat this run on another machine, use these flags instead)", err=True)
    return config
