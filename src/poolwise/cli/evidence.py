"""Commands that measure what is so: stand-alone training of everything, and rankings judged by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from poolwise.cli import show
from poolwise.cli.options import output_options, standalone_options
from poolwise.cli.work import work
from poolwise.errors import RequestError
from poolwise.settings import preset


@click.command()
@standalone_options
@click.option("--poolings", help="Only these, like 5-3-2,4-3-3.")
@click.option("--poolings-file", type=click.Path(path_type=Path), help="Only those in this file, one a line.")
@click.option("--retry-failed", is_flag=True, help="Repeat trainings that failed before.")
@click.option(
    "--table", type=click.Path(path_type=Path), help="Folder for a tabular benchmark, named after the folder."
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs/exhaustive"), show_default=True, help="Run folder."
)
@click.option("--plan", is_flag=True, help="Say steps, MACs, time and memory, and do nothing.")
@output_options
def exhaustive(
    poolings: str | None,
    poolings_file: Path | None,
    retry_failed: bool,
    table: Path | None,
    out: Path,
    plan: bool,
    quiet: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Train every configuration stand-alone, several seeds each; the same command again goes on."""
    from poolwise import api

    settings, listed = preset(values.pop("preset_name"), **values), _listed(poolings, poolings_file)
    if plan:
        return show.plan(api.plan(settings, ["exhaustive"], poolings=listed), as_json)

    def do(listener: Any) -> dict[str, Any]:
        return api.exhaustive(settings, out, poolings=listed, retry=retry_failed, table=table, listener=listener)

    show.exhaustive(work(out, quiet, as_json, do), as_json)


def _listed(poolings: str | None, file: Path | None) -> list[str] | None:
    """Names of the listed configurations, None where all are meant."""
    if poolings is not None and file is not None:
        raise RequestError("--poolings and --poolings-file are two ways to say the same: give one")
    if poolings is not None:
        return [name.strip() for name in poolings.split(",") if name.strip()]
    if file is None:
        return None
    try:
        return [line.strip() for line in file.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise RequestError(f"{file} cannot be read as a list of poolings ({error})") from None


def _names(text: str) -> list[str]:
    """``none`` is an empty list."""
    return [] if text == "none" else [name.strip() for name in text.split(",") if name.strip()]


def _seeds(text: str) -> list[int]:
    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise RequestError(f"seeds {text!r}: whole numbers like 0,1,2 are allowed")
    return [int(part) for part in text.split(",")]


@click.command()
@click.option("--table", required=True, help="The truth: a table of the package, or the folder of one.")
@click.option("--model", help="Network family (the table's).")
@click.option("--columns", help="Rankings that the table holds, like supernets1,supernets4, or none (all).")
@click.option(
    "--controls",
    default="macs,productive,receptive_field",
    show_default=True,
    help="Rankings without training, or none; naswot and grad_norm run on training images.",
)
@click.option("--seeds", default="0,1,2", show_default=True, help="Seeds of what is random, for paired tests.")
@click.option("--resamples", type=click.IntRange(min=20), default=1000, show_default=True, help="Bootstrap draws.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs/compare"), show_default=True, help="Folder to make."
)
@output_options
def compare(
    table: str,
    model: str | None,
    columns: str | None,
    controls: str,
    seeds: str,
    resamples: int,
    out: Path,
    quiet: bool,
    as_json: bool,
) -> None:
    """Judge rankings against a table of stand-alone accuracies: agreement, regret, intervals; csv, figures and a page."""
    from poolwise import api

    named = None if columns is None else _names(columns)
    value = api.compare(
        table, out, model=model, columns=named, names=_names(controls), seeds=_seeds(seeds), resamples=resamples
    )
    show.compared(value, out, as_json)
