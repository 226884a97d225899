"""Commands for evidence: exhaustive stand-alone training, comparison of methods, and simulation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from poolwise.cli import show, show_evidence
from poolwise.cli.examples import EXAMPLES
from poolwise.cli.flags import SectionedCommand, requested
from poolwise.cli.options import PATH, counts, machine_settings, output_options, standalone_settings
from poolwise.cli.out import say
from poolwise.cli.work import interruptible
from poolwise.errors import RequestError
from poolwise.sanitize import TABLE_BYTES, read_bytes

# deprecated flag names of exhaustive, to be removed in the next release
_OLD_FLAGS = {
    "epochs": "retrain_epochs",
    "steps": "retrain_steps",
    "seeds": "retrain_seeds",
    "poolings_file": "configs_file",
}


@click.command(cls=SectionedCommand)
@standalone_settings
@click.option("--poolings", help="Numbers of downsamplings, like 2,3.  [default: as many as the network has]")
@click.option("--configs", help="Train only these configurations, like 5-3-2,4-3-3.")
@click.option("--configs-file", type=PATH, help="Train only the configurations in this file, one per line.")
@click.option("--retry-failed", is_flag=True, help="Repeat failed trainings.")
@click.option(
    "--table", type=PATH, help="Also write a tabular benchmark to this folder; its name is that of the folder."
)
@click.option("--out", type=PATH, default=Path("runs/exhaustive"), show_default=True, help="Run folder.")
@click.option("--plan", is_flag=True, help="Dry run: print the estimated steps, MACs, time and memory.")
@click.option("--epochs", "old_epochs", type=int, hidden=True)
@click.option("--steps", "old_steps", type=int, hidden=True)
@click.option("--seeds", "old_seeds", type=int, hidden=True)
@click.option("--poolings-file", "old_poolings_file", type=PATH, hidden=True)
@output_options
def exhaustive(
    retry_failed: bool,
    table: Path | None,
    out: Path,
    plan: bool,
    quiet: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Train every configuration stand-alone.

    Each one is trained with several seeds. Repeat the command to continue.
    """
    from poolwise import api

    values = _renamed(values)
    configs = _configs(values.pop("configs"), values.pop("configs_file"))
    poolings = counts(click.get_current_context(), None, values.pop("poolings"))
    config = requested(values, poolings=poolings)
    if plan:
        return show.plan(api.plan(config, ["exhaustive"], configs=configs), as_json)

    with interruptible(out, quiet, as_json) as listener:
        value = api.exhaustive(config, out, configs=configs, retry=retry_failed, table=table, listener=listener)
    show.exhaustive(dict(value), as_json)


def _renamed(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values under the current flag names; warn if an old name was used."""
    current = dict(values)
    for old, new in _OLD_FLAGS.items():
        value = current.pop(f"old_{old}")
        if value is not None:
            _set_renamed(current, old, new, value)
    poolings = current["poolings"]
    if poolings is not None and "-" in poolings:  # old form: configurations, which are now listed with --configs
        _set_renamed(current, "poolings", "configs", poolings)
        current["poolings"] = None
    return current


def _set_renamed(current: dict[str, Any], old: str, new: str, value: Any) -> None:
    old_flag, new_flag = (f"--{name.replace('_', '-')}" for name in (old, new))
    if current[new] is not None:
        raise RequestError(f"{old_flag} is the old name of {new_flag}: use only {new_flag}")
    say(f"poolwise: {old_flag} is now {new_flag}; the old form will be removed in the next release", err=True)
    current[new] = value


def _configs(listed: str | None, file: Path | None) -> list[str] | None:
    """Return the names of the listed configurations; None if neither flag is set."""
    if listed is not None and file is not None:
        raise RequestError("--configs and --configs-file both list configurations: use only one")
    if listed is not None:
        return [name.strip() for name in listed.split(",") if name.strip()]
    if file is None:
        return None
    try:
        text = read_bytes(file, TABLE_BYTES, regular=False).decode()
        return [line.strip() for line in text.splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise RequestError(f"{file} cannot be read as a list of configurations ({error})") from None


def _names(text: str) -> list[str]:
    """Parse a list separated by commas; ``none`` is an empty list."""
    return [] if text == "none" else [name.strip() for name in text.split(",") if name.strip()]


def _numbers(what: str) -> Callable[[click.Context, click.Parameter, str], list[int]]:
    """Return a click callback that parses a list of integers."""

    def parse(_context: click.Context, _parameter: click.Parameter, text: str) -> list[int]:
        parts = [part.strip() for part in text.split(",")]
        if not all(part.isascii() and part.isdecimal() and len(part) < 16 for part in parts):
            raise RequestError(f"--{what} {text!r}: use integers like 0,1,2")
        return [int(part) for part in parts]

    return parse


_TABLE = click.option(
    "--table",
    required=True,
    help="Stand-alone accuracies: a table of the package (resnet20-cifar10-published, resnet20w8-cifar10-10k) or a folder.",
)
_MODEL = click.option("--model", help="Network family.  [default: that of the table]")


@click.command(cls=SectionedCommand, epilog=EXAMPLES["compare"])
@_TABLE
@_MODEL
@click.option(
    "--methods",
    default="none",
    show_default=True,
    help="Methods to train at equal compute, or all. Samplers: the methods of poolwise search --method; a variant of one:"
    " mixture@supernets=8;draw=rounds. Strategies of stand-alone trainings: the refiners of poolwise refine --refiner.",
)
@click.option(
    "--budgets",
    callback=_numbers("budgets"),
    default="1500",
    show_default=True,
    help="Compute of each method: the MACs of this many steps of a single SuperNet and of its ranking.",
)
@click.option(
    "--seeds",
    callback=_numbers("seeds"),
    default="0,1,2",
    show_default=True,
    help="Seeds of the split, initial weights and draws; paired tests compare methods over these seeds.",
)
@click.option(
    "--supernets",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Number of SuperNets of samplers that train several.",
)
@click.option(
    "--columns", help="Rankings of the table to evaluate, like supernets1,supernets4, or none.  [default: all]"
)
@click.option(
    "--controls",
    default="macs,productive,receptive_field",
    show_default=True,
    help="Baselines (rankings that need no training) to evaluate, or none: macs, productive, receptive_field, rf_refinement,"
    " and, from training images, naswot, grad_norm, az_nas, swap and zico. The suffix -order compares draws by stochastic order.",
)
@click.option("--recipe", help="Preset that the table's networks were trained with, for tables that do not record it.")
@machine_settings
@click.option(
    "--resamples", type=click.IntRange(min=20), default=1000, show_default=True, help="Number of bootstrap samples."
)
@click.option("--out", type=PATH, default=Path("runs/compare"), show_default=True, help="Folder to create.")
@click.option("--plan", is_flag=True, help="Dry run: print the trainings with their estimated MACs and time.")
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
    """Compare rankings with stand-alone accuracies.

    Without --methods, only rankings in the table and baselines are evaluated. With --methods, every
    method is trained on the network, images and recipe of the table, for the same MACs, with every seed and budget.
    Repeat the command to continue an unfinished comparison. Agreement, regret, intervals and paired tests are written
    as CSV, figures and an HTML page.
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
        return show_evidence.planned_comparison(api.plan_comparison(config, out).to_json(), as_json)
    with interruptible(out, quiet, as_json) as listener:
        value = api.compare(config, out, listener=listener)
    show_evidence.compared(dict(value), out, as_json)


@click.command(cls=SectionedCommand)
@_TABLE
@_MODEL
@click.option(
    "--methods",
    default="refine@productive+macs+last_stage,refine,top@productive,tpe,random",
    show_default=True,
    help="Strategies of stand-alone trainings, with hints after @, like refine@supernets4+productive+macs. A hint is a"
    " ranking of the table, productive, macs, last_stage, a control of poolwise compare or the folder of a ranked run,"
    " optionally with the prefix shuffled-, or none.",
)
@click.option("--runs", type=click.IntRange(min=1), default=1000, show_default=True, help="Repetitions.")
@click.option(
    "--trials", type=click.IntRange(min=1), default=10, show_default=True, help="Full-length trainings of each method."
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    help="Regret in points that counts as success.  [default: the noise between seeds]",
)
@click.option(
    "--agreement",
    type=click.FloatRange(min=0, max=1),
    default=0.75,
    show_default=True,
    help="Assumed correlation between full-length trainings and trainings a third as long.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the simulated runs.")
@click.option("--out", type=PATH, default=Path("runs/simulate"), show_default=True, help="Folder to create.")
@output_options
def simulate(table: str, methods: str, out: Path, quiet: bool, as_json: bool, **values: Any) -> None:
    """Simulate the choice of stand-alone trainings.

    Strategies choose trainings many times; the accuracies come from a table.
    """
    from poolwise import api

    arguments = {"methods": _names(methods), **values}
    with interruptible(out, quiet, as_json) as listener:
        value = api.simulate(table, out, listener=listener, **arguments)
    show_evidence.simulated(dict(value), out, as_json)
