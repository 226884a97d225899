"""Commands that measure what is so: stand-alone training of everything, and rankings judged by it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from poolwise.cli import show
from poolwise.cli.options import PATH, machine_options, output_options, standalone_options
from poolwise.cli.work import work
from poolwise.errors import RequestError
from poolwise.sanitize import TABLE_BYTES, read_bytes
from poolwise.settings import preset


@click.command()
@standalone_options
@click.option("--poolings", help="Only these, like 5-3-2,4-3-3; or all of these numbers of downsamplings, like 2,3.")
@click.option("--poolings-file", type=PATH, help="Only those in this file, one a line.")
@click.option("--retry-failed", is_flag=True, help="Repeat trainings that failed before.")
@click.option("--table", type=PATH, help="Folder for a tabular benchmark, named after the folder.")
@click.option("--out", type=PATH, default=Path("runs/exhaustive"), show_default=True, help="Run folder.")
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

    counted, listed = _listed(poolings, poolings_file)
    settings = preset(values.pop("preset_name"), poolings=counted, **values)
    if plan:
        return show.plan(api.plan(settings, ["exhaustive"], poolings=listed), as_json)

    def do(listener: Any) -> dict[str, Any]:
        return dict(api.exhaustive(settings, out, poolings=listed, retry=retry_failed, table=table, listener=listener))

    show.exhaustive(work(out, quiet, as_json, do), as_json)


def _listed(poolings: str | None, file: Path | None) -> tuple[tuple[int, ...] | None, list[str] | None]:
    """Numbers of downsamplings, and names of the listed configurations; each None where it is not given."""
    if poolings is not None and file is not None:
        raise RequestError("--poolings and --poolings-file are two ways to say the same: give one")
    if poolings is not None:
        names = [name.strip() for name in poolings.split(",") if name.strip()]
        numbers = [name for name in names if name.isascii() and name.isdecimal() and len(name) < 5]
        if numbers and len(numbers) < len(names):
            other = next(name for name in names if name not in numbers)
            raise RequestError(
                f"poolings {poolings[:60]!r}: {numbers[0]} is a number of downsamplings and {other[:30]} a configuration: list"
                " one or the other"
            )
        return (tuple(map(int, numbers)), None) if numbers else (None, names)
    if file is None:
        return None, None
    try:
        text = read_bytes(file, TABLE_BYTES, regular=False).decode()
        return None, [line.strip() for line in text.splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise RequestError(f"{file} cannot be read as a list of poolings ({error})") from None


def _names(text: str) -> list[str]:
    """``none`` is an empty list."""
    return [] if text == "none" else [name.strip() for name in text.split(",") if name.strip()]


def _numbers(what: str) -> Callable[[click.Context, click.Parameter, str], list[int]]:
    """Callback for a list of whole numbers."""

    def parse(_context: click.Context, _parameter: click.Parameter, text: str) -> list[int]:
        parts = [part.strip() for part in text.split(",")]
        if not all(part.isascii() and part.isdecimal() and len(part) < 16 for part in parts):
            raise RequestError(f"{what} {text!r}: whole numbers like 0,1,2 are allowed")
        return [int(part) for part in parts]

    return parse


@click.command()
@click.option("--table", required=True, help="The truth: a table of the package, or the folder of one.")
@click.option("--model", help="Network family (the table's).")
@click.option(
    "--methods",
    default="none",
    help="What is trained at equal compute: samplers and methods of stand-alone trials, or all. Variants of a sampler:"
    " mixture@supernets=8;draw=rounds.",
)
@click.option(
    "--budgets",
    callback=_numbers("budgets"),
    default="1500",
    show_default=True,
    help="Compute of each method: what so many steps of a single SuperNet and its ranking take in MACs.",
)
@click.option(
    "--seeds",
    callback=_numbers("seeds"),
    default="0,1,2",
    show_default=True,
    help="Each gives its own split, initial weights and draws; paired tests are over them.",
)
@click.option(
    "--supernets",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="M of samplers that train several SuperNets.",
)
@click.option("--columns", help="Rankings that the table holds, like supernets1,supernets4, or none (all).")
@click.option(
    "--controls",
    default="macs,productive,receptive_field",
    show_default=True,
    help="Rankings without training, or none; naswot and grad_norm run on training images.",
)
@click.option("--recipe", help="Preset that the table's networks were trained with, for tables that do not say it.")
@machine_options
@click.option("--resamples", type=click.IntRange(min=20), default=1000, show_default=True, help="Bootstrap draws.")
@click.option("--out", type=PATH, default=Path("runs/compare"), show_default=True, help="Folder to make.")
@click.option("--plan", is_flag=True, help="Say what would be trained, MACs and time, and do nothing.")
@output_options
def compare(
    table: str,
    methods: str,
    columns: str | None,
    controls: str,
    out: Path,
    plan: bool,
    quiet: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Judge rankings by a table of stand-alone accuracies; train methods at equal compute first.

    Without --methods, what the table holds and what needs no training is judged. With it, every method is trained on the
    table's network, images and recipe, for the same multiply-adds, with every seed and budget; the same command again goes
    on with what is not done. Agreement, regret, intervals and paired tests come as csv, figures and a page.
    """
    from poolwise import api

    config = api.CompareConfig(
        table,
        columns=None if columns is None else _names(columns),
        controls=_names(controls),
        methods=_names(methods),
        **values,
    )
    if plan:
        return show.planned_comparison(api.plan_comparison(config, out).to_json(), as_json)
    value = work(out, quiet, as_json, lambda listener: api.compare(config, out, listener=listener))
    show.compared(dict(value), out, as_json)


@click.command()
@click.option("--table", required=True, help="The truth: a table of the package, or the folder of one.")
@click.option("--model", help="Network family (the table's).")
@click.option(
    "--methods",
    default="refine@productive+macs+last_stage,refine,top@productive,tpe,random",
    show_default=True,
    help="Methods of stand-alone trials; after @ what they are told before, like refine@supernets4+productive+macs: a"
    " ranking of the table, productive, macs, last_stage, the folder of a ranked run, each also with shuffled- before it;"
    " or none.",
)
@click.option("--runs", type=click.IntRange(min=1), default=1000, show_default=True, help="Repetitions.")
@click.option("--trials", type=click.IntRange(min=1), default=10, show_default=True, help="Whole trainings of each.")
@click.option("--tolerance", type=click.FloatRange(min=0), help="Points of regret that count as found (the noise).")
@click.option(
    "--agreement",
    type=click.FloatRange(min=0, max=1),
    default=0.75,
    show_default=True,
    help="Correlation of trainings a third as long with whole ones, which no table holds.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--out", type=PATH, default=Path("runs/simulate"), show_default=True, help="Folder to make.")
@output_options
def simulate(table: str, methods: str, out: Path, quiet: bool, as_json: bool, **values: Any) -> None:
    """Choose trainings on a table of stand-alone accuracies, many times over, and see what is found how soon."""
    from poolwise import api

    asked = {"methods": _names(methods), **values}
    value = work(out, quiet, as_json, lambda listener: api.simulate(table, out, listener=listener, **asked))
    show.simulated(dict(value), out, as_json)
