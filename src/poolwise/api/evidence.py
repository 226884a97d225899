"""Evidence: train every configuration stand-alone, and simulate methods on a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from poolwise.api.results import Exhaustive, Simulation
from poolwise.api.running import listed_configs
from poolwise.config import Config
from poolwise.datasets.sources import Source
from poolwise.errors import RequestError
from poolwise.models import requested_space
from poolwise.pipeline import graph, runner
from poolwise.progress import Listener
from poolwise.spaces import Pooling
from poolwise.storage import RunFolder, exclusive, tables
from poolwise.storage.schemas import ExhaustiveFile
from poolwise.supernets import samplers


def exhaustive(
    config: Config,
    out: str | Path,
    *,
    configs: Sequence[Pooling | str] | None = None,
    retry: bool = False,
    table: str | Path | None = None,
    source: Source | None = None,
    listener: Listener | None = None,
    poolings: Sequence[Pooling | str] | None = None,
) -> Exhaustive:
    """Train every configuration stand-alone.

    ``config.retrain`` sets the number of seeds and the training length. If the folder holds the same request, the call
    continues with the missing trainings (``workers`` may differ).

    Args:
        config: The request.
        out: Run folder.
        configs: Train only these configurations.
        retry: Repeat the trainings that failed.
        table: Folder to write the tabular benchmark to; the benchmark is named after the folder.
        source: The images (default: the data set that ``config`` names).
        listener: Receives progress, and can stop the work.
        poolings: Deprecated name of ``configs``.

    Returns:
        The content of ``exhaustive.json``.

    Raises:
        RequestError: The folder holds a different request, or the list of configurations is wrong.
    """
    space = requested_space(config)
    configs = listed_configs(configs, poolings)
    if configs is not None and config.model.max_configs is not None:
        raise RequestError("configs and max_configs both choose configurations: use only one")
    listed = None if configs is None else [str(space.full.check(config)) for config in configs]
    if listed is not None and (not listed or len(set(listed)) < len(listed)):
        twice = next((name for name in listed if listed.count(name) > 1), None)
        raise RequestError(
            f"configuration {twice} is listed twice" if twice else "no configuration is listed: list at least one"
        )
    name = None if table is None else tables.check_name(Path(table).absolute().name)
    count, all_of_them = space.size if listed is None else len(listed), space.full.size
    if name and count < all_of_them:
        raise RequestError(
            f"a table needs all {all_of_them} configurations and {count} are listed: omit the table or list all"
        )
    path = Path(out)
    if (path / "run.json").exists():
        folder, experiment, planned = RunFolder.open(path), None, None
        _check_same_request(folder, config, listed)
    else:
        folder, experiment, planned = runner.create(config, path, ["exhaustive"], source, listed, listener)
    if retry and folder.has(ExhaustiveFile.FILE) and folder.read(ExhaustiveFile.FILE, "")["failed"]:
        with exclusive(folder.path):
            graph.remove(folder, graph.invalidated("exhaustive"))
    runner.carry_out(folder, ["exhaustive"], source, listener, experiment, retry, planned)
    value = folder.read(ExhaustiveFile.FILE, "")
    if table is not None and name:
        tables.write(table, name, value, command="; ".join(folder.request()["commands"]))
    return Exhaustive(value, folder.path)


def _check_same_request(folder: RunFolder, config: Config, configs: list[str] | None) -> None:
    """Raise RequestError if the run holds a different request; save a changed number of workers."""
    request, wanted = folder.request(), samplers.settled(runner.with_absolute_paths(config)).to_flat()
    kept = Config.from_flat(request["settings"]).to_flat()  # fills settings that are newer than the run with defaults
    if "exhaustive" not in request["stages"]:
        raise RequestError(f"{folder.path} holds a run of another kind: use another --out")
    listed = request.get("poolings")  # the key for configurations in run folders of format 1
    changes = [("configs", listed, configs), *((name, kept.get(name), value) for name, value in wanted.items())]
    for name, had, value in changes:
        if name == "precision" and value is None:
            continue  # the run keeps the number format that it started with
        if value != had and name not in ("workers", "checkpoint_minutes"):
            raise RequestError(
                f"{folder.path} holds another request ({name} {had}, now {value}):"
                f" continue it (poolwise resume {folder.path}) or use another --out"
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
    source: Source | None = None,
    listener: Listener | None = None,
) -> Simulation:
    """Simulate methods that choose stand-alone trainings, many times, with accuracies from a table.

    Args:
        table: Name of a table, or its folder.
        out: Folder for JSON, CSV and a figure; None writes nothing.
        methods: Methods with their hints, such as ``refine@supernets4+productive+macs`` (see ``benchmarks.simulate``).
        model: Network family (default: that of the table).
        runs: Number of repetitions.
        trials: Full-length trainings of each method.
        tolerance: Regret in points that counts as success (default: the noise of the table).
        agreement: Correlation between full-length trainings and trainings a third as long.
        seed: Seed of the simulation.
        source: Images for hints from zero-cost proxies (default: the data set that the table names).
        listener: Receives progress, and can stop the work.

    Returns:
        The content of ``simulate.json``.

    Raises:
        RequestError: The table, a method or a hint is unknown, or the table has no noise between seeds.
    """
    from poolwise.benchmarks import simulate as simulating
    from poolwise.benchmarks.compare import study

    truth = tables.load(table)
    known = study.check_model(truth, model)
    players = simulating.parse(methods, truth, known, source)
    if out is not None:
        simulating.check_out(Path(out))
    arguments: dict[str, Any] = {
        "runs": runs,
        "trials": trials,
        "tolerance": tolerance,
        "seed": seed,
        "listener": listener,
    }
    value = simulating.simulate(truth, known, players, agreement=agreement or simulating.AGREEMENT, **arguments)
    if out is not None:
        simulating.write(value, Path(out))
    return Simulation(value, None if out is None else Path(out))
