"""Evidence: everything trained stand-alone, every method on one protocol, and the same on a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from poolwise.api.results import Exhaustive, Simulation
from poolwise.errors import RequestError
from poolwise.experiment import space_asked
from poolwise.images.sources import Source
from poolwise.pipeline import runner
from poolwise.progress import Listener
from poolwise.searching import samplers
from poolwise.settings import Settings
from poolwise.space import Pooling
from poolwise.storage import RunFolder, alone
from poolwise.truth import tables


def exhaustive(
    settings: Settings,
    out: str | Path,
    *,
    poolings: Sequence[Pooling | str] | None = None,
    retry: bool = False,
    table: str | Path | None = None,
    source: Source | None = None,
    listener: Listener | None = None,
) -> Exhaustive:
    """Train every configuration (or the listed ``poolings``) stand-alone; returns the content of ``exhaustive.json``.

    ``retrain_seeds``, ``retrain_epochs`` and ``retrain_steps`` of the settings say how many seeds and how long. On a
    folder that holds the same request it goes on with what is not trained yet (``workers`` may differ); ``retry``
    repeats the trainings that failed. ``table`` is a folder that gets the tabular benchmark, named after the folder.
    Raises RequestError where the folder holds a different request.
    """
    space = space_asked(settings)
    if poolings is not None and settings.max_configs is not None:
        raise RequestError("poolings and max_configs are two ways to say which: give one")
    asked = None if poolings is None else [str(space.whole.check(pooling)) for pooling in poolings]
    if asked is not None and (not asked or len(set(asked)) < len(asked)):
        twice = next((name for name in asked if asked.count(name) > 1), None)
        raise RequestError(f"pooling {twice} is listed twice" if twice else "no pooling is listed: list at least one")
    name = None if table is None else tables.check_name(Path(table).absolute().name)
    count, all_of_them = space.size if asked is None else len(asked), space.whole.size
    if name and count < all_of_them:
        raise RequestError(f"a table needs all {all_of_them} configurations and {count} are listed")
    path = Path(out)
    if (path / "run.json").exists():
        folder, problem = RunFolder.open(path), None
        _same_request(folder, settings, asked)
    else:
        folder, problem = runner.create(settings, path, ["exhaustive"], source, asked)
    if retry and folder.has("exhaustive.json") and folder.read("exhaustive.json", "")["failed"]:
        with alone(folder.path):
            folder.save_request(folder.request(), drop=("exhaustive.json",))
    value = runner.carry_out(folder, ["exhaustive"], source, listener, problem, retry).read("exhaustive.json", "")
    if table is not None and name:
        tables.write(table, name, value, command="; ".join(folder.request()["commands"]))
    return Exhaustive(value, folder.path)


def _same_request(folder: RunFolder, settings: Settings, poolings: list[str] | None) -> None:
    """RequestError where the run was asked for something else; another number of workers is taken over."""
    request, wanted = folder.request(), samplers.settled(runner.rooted(settings)).to_json()
    kept = Settings.from_json(request["settings"]).to_json()  # a run begun before a setting was there has its default
    if "exhaustive" not in request["stages"]:
        raise RequestError(f"{folder.path} holds a run of another kind: give another --out")
    for name, value in {**wanted, "poolings": poolings}.items():
        had = request.get("poolings") if name == "poolings" else kept.get(name)
        if name == "precision" and value is None:
            continue  # the run holds the number format that it began with
        if value != had and name not in ("workers", "checkpoint_minutes"):
            raise RequestError(
                f"{folder.path} holds another request ({name.removeprefix('retrain_')} {had}, now {value}):"
                f" go on with it (poolwise resume {folder.path}) or give another --out"
            )
    if wanted != request["settings"]:
        folder.save_request({**request, "settings": wanted})


def simulate(
    table: str | Path,
    out: str | Path | None = None,
    *,
    methods: Sequence[str],
    model: str | None = None,
    runs: int = 1000,
    trials: int = 10,
    tolerance: float | None = None,
    agreement: float | None = None,
    seed: int = 0,
    listener: Listener | None = None,
) -> Simulation:
    """Play methods of stand-alone trials on a table, many times; returns the content of ``simulate.json``.

    Args:
        methods: with their hints, as ``refine@supernets4+productive+macs``, see ``comparing.simulate``.
        out: folder for json, csv and figure; None writes nothing.
        trials: whole trainings of each method.
        tolerance: points of regret that count as found (the table's noise).
        agreement: correlation of trainings a third as long with whole ones.

    Raises RequestError for an unknown table, method or hint, and for a table without noise between seeds.
    """
    from poolwise.comparing import simulate as simulating
    from poolwise.comparing import study

    truth = tables.load(table)
    known = study.check_model(truth, model)
    players = simulating.parse(methods, truth, known)
    if out is not None:
        simulating.check_out(Path(out))
    asked: dict[str, Any] = {"runs": runs, "trials": trials, "tolerance": tolerance, "seed": seed, "listener": listener}
    value = simulating.simulate(truth, known, players, agreement=agreement or simulating.AGREEMENT, **asked)
    if out is not None:
        simulating.write(value, Path(out))
    return Simulation(value, None if out is None else Path(out))
