"""Compare methods: evaluate rankings against a table of stand-alone accuracies."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, overload

from poolwise.api.results import Comparison
from poolwise.benchmarks.compare import protocol, study
from poolwise.benchmarks.compare.config import CompareConfig, ComparisonPlan
from poolwise.datasets.sources import Source
from poolwise.errors import RequestError
from poolwise.experiment import resolve
from poolwise.progress import Listener
from poolwise.storage import tables
from poolwise.storage.tables import Table


@overload
def compare(
    config: CompareConfig, out: str | Path, *, source: Source | None = None, listener: Listener | None = None
) -> Comparison: ...


@overload
def compare(
    config: str | Path,
    out: str | Path,
    *,
    source: Source | None = None,
    listener: Listener | None = None,
    **fields: Any,
) -> Any: ...


def compare(
    config: CompareConfig | str | Path,
    out: str | Path,
    *,
    source: Source | None = None,
    listener: Listener | None = None,
    **fields: Any,
) -> Any:
    """Evaluate rankings against a table; write CSV, JSON, figures and an HTML page.

    The methods in ``config`` are trained first, at equal compute (docs/comparison.md). Repeating the call continues an
    unfinished comparison.

    Deprecated: passing a table as ``config``, with the fields of ``CompareConfig`` as keyword arguments.

    Args:
        config: What to compare.
        out: Folder for the results.
        source: The table's images (default: the data set that the table names).
        listener: Receives progress, and can stop the work.

    Returns:
        The content of ``compare.json``.

    Raises:
        RequestError: The table is unknown or does not fit the model, there is nothing to compare, or ``out`` holds a
            different comparison.
    """
    if not isinstance(config, CompareConfig):
        config, plan = _config_of(config, fields)
        if plan:
            return plan_comparison(config, out, source=source).to_json()
    elif fields:
        raise TypeError(f"compare() got an unexpected keyword argument {next(iter(fields))!r}")
    from poolwise.reports import comparison  # matplotlib takes a second

    path, table, model, trainings = _open(config, out, source, listener)
    experiment = trainings.experiment if trainings else None
    if source is not None and experiment is None:
        experiment = resolve(study.settings_of(table, model), source)
    entries = study.column_entries(table, config.columns)
    entries += study.control_entries(table, model, config.controls, config.seeds, experiment)
    trained, failed = trainings.run(listener or Listener()) if trainings else ([], [])
    value = study.study([*trained, *entries], table, model, config.resamples, failed)
    study.write(value, path)
    comparison.write(value, path)
    return Comparison(value, path)


def plan_comparison(config: CompareConfig, out: str | Path, *, source: Source | None = None) -> ComparisonPlan:
    """Return what ``compare`` would train, without training. Arguments and errors are those of ``compare``."""
    _, table, _, trainings = _open(config, out, source)
    if trainings is None:
        raise RequestError("nothing to train, so nothing to plan: add --methods")
    study.column_entries(table, config.columns)
    return trainings.plan()


def _open(
    config: CompareConfig, out: str | Path, source: Source | None, listener: Listener | None = None
) -> tuple[Path, Table, str, protocol.Protocol | None]:
    """Check the request against the table and the folder. The last value is None if nothing needs training."""
    path = Path(out)
    study.check_out(path)
    table = tables.load(config.table)
    protocol.check_out(path, table)
    model = study.check_model(table, config.model)
    trainings = protocol.Protocol(config, table, model, path, source, listener) if config.methods else None
    return path, table, model, trainings


def _config_of(table: str | Path, fields: dict[str, Any]) -> tuple[CompareConfig, bool]:
    """Convert the deprecated keyword arguments; the second value is the deprecated flag ``plan``."""
    warnings.warn(
        "poolwise.compare(table, out, ...) is now poolwise.compare(poolwise.CompareConfig(table, ...), out), and"
        " plan=True is poolwise.plan_comparison; this form will be removed in the next release",
        DeprecationWarning,
        stacklevel=3,
    )
    values = dict(fields)
    plan = bool(values.pop("plan", False))
    if "names" in values:
        values["controls"] = values.pop("names")
    values |= values.pop("machine", None) or {}
    return CompareConfig(table, **values), plan
