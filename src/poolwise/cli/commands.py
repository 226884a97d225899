"""Commands. Each parses its arguments, calls the API and prints the result; ``main`` sets the exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from poolwise import __version__
from poolwise.cli import requests, show
from poolwise.cli.examples import EXAMPLES
from poolwise.cli.flags import DescribedArgument
from poolwise.cli.options import (
    PATH,
    Sections,
    every_setting,
    output_options,
    rank_settings,
    refine_settings,
    retrain_settings,
    search_settings,
)
from poolwise.cli.out import say
from poolwise.cli.work import Stopped, interruptible
from poolwise.config import Config, settings
from poolwise.errors import PoolwiseError, out_of_memory


@click.group(
    cls=Sections,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="The terms are explained in docs/glossary.md.",
)
@click.version_option(__version__, prog_name="poolwise")
def cli() -> None:
    """Learn where a CNN should downsample: rank every pooling configuration, retrain the pick, test the gain."""


_OUT = click.option("--out", type=PATH, default=None, help="Run folder to create.  [default: runs/COMMAND]")
_PLAN = click.option("--plan", is_flag=True, help="Dry run: print the estimated steps, MACs, time and memory.")
_BUDGET = click.option(
    "--time-budget",
    help="Choose the steps, the number of SuperNets and of images so that the run takes this long, like 30m or 2h. Fewer images"
    " change the result. --supernets and --images are kept if given; lengths cannot be.",
)
_RUN = click.argument("run", type=PATH, cls=DescribedArgument, description="Run folder (the --out of an earlier run).")


@cli.command(epilog=EXAMPLES["run"])
@every_setting
@_OUT
@_PLAN
@_BUDGET
@output_options
def run(out: Path | None, plan: bool, time_budget: str | None, quiet: bool, as_json: bool, **values: Any) -> None:
    """Search, rank, retrain and report in one command."""
    from poolwise import api

    out = out or Path("runs/run")
    config = requests.fitted(values, time_budget, api.RUN_STAGES, None if plan else out)
    if plan:
        return requests.show_plan(config, api.RUN_STAGES, as_json)
    with interruptible(out, quiet, as_json) as listener:
        api.run(config, out, listener=listener)
    show.result(out, as_json)


@cli.command(epilog=EXAMPLES["search"])
@search_settings
@_OUT
@_PLAN
@_BUDGET
@output_options
def search(out: Path | None, plan: bool, time_budget: str | None, quiet: bool, as_json: bool, **values: Any) -> None:
    """Train the SuperNets, without ranking."""
    from poolwise import api

    out = out or Path("runs/search")
    config = requests.fitted(values, time_budget, ["search"], None if plan else out)
    if plan:
        return requests.show_plan(config, ["search"], as_json)
    with interruptible(out, quiet, as_json) as listener:
        api.search(config, out, listener=listener)
    show.line({"run": str(out), "next": f"poolwise rank {out}"}, as_json, f"search done; next: poolwise rank {out}")


@cli.command(epilog=EXAMPLES["rank"])
@_RUN
@rank_settings
@_PLAN
@output_options
def rank(run: Path, fusion: bool | None, plan: bool, quiet: bool, as_json: bool, **limits: Any) -> None:
    """Score every configuration and write ranking.json. The search must be finished.

    With --fusion, --no-fusion or cost limits, existing scores are reordered without scoring again.
    """
    from poolwise import api
    from poolwise.storage import RunFolder

    if plan:
        return requests.show_plan(Config.from_flat(RunFolder.open(run).request()["settings"]), ["rank"], as_json)
    with interruptible(run, quiet, as_json) as listener:
        value = api.rank(run, fusion=fusion, listener=listener, **limits)
    show.ranking(dict(value), as_json, rows=None)


@cli.command()
@_RUN
@refine_settings
@click.option("--method", "old_method", hidden=True)
@_PLAN
@output_options
def refine(run: Path, old_method: str | None, plan: bool, quiet: bool, as_json: bool, **changes: Any) -> None:
    """Choose three picks with a few stand-alone trainings.

    The configurations that are expected to tell most about the best one are trained.
    """
    from poolwise import api
    from poolwise.storage import RunFolder

    if old_method is not None:
        say("poolwise: --method is now --refiner; the old form will be removed in the next release", err=True)
        changes["refiner"] = changes["refiner"] or old_method

    if plan:
        config = Config.from_flat(RunFolder.open(run).request()["settings"])
        return requests.show_plan(api.changed(config, changes, api.REFINE_SETTINGS), ["refine"], as_json)
    with interruptible(run, quiet, as_json) as listener:
        value = api.refine(run, listener=listener, **changes)
    show.refined(dict(value), as_json)


@cli.command(epilog=EXAMPLES["retrain"])
@_RUN
@retrain_settings
@_PLAN
@output_options
def retrain(run: Path, plan: bool, quiet: bool, as_json: bool, **changes: Any) -> None:
    """Retrain the picks and the default, and compare them.

    The top of the ranking and the default are trained stand-alone with several seeds each.
    """
    from poolwise import api
    from poolwise.storage import RunFolder

    if plan:
        config = Config.from_flat(RunFolder.open(run).request()["settings"])
        return requests.show_plan(api.changed(config, changes), ["retrain"], as_json)
    with interruptible(run, quiet, as_json) as listener:
        value = api.retrain(run, listener=listener, **changes)
    show.retrained(dict(value), as_json)


@cli.command()
@_RUN
@_PLAN
@output_options
def resume(run: Path, plan: bool, quiet: bool, as_json: bool) -> None:
    """Resume a run that was stopped."""
    from poolwise import api

    if plan:
        left = api.plan_left(run)
        return (
            show.plan(left, as_json) if left else show.line({"left": []}, as_json, "nothing is left to train or rank")
        )
    with interruptible(run, quiet, as_json) as listener:
        folder = api.resume(run, listener=listener)
    show.result(folder.path, as_json)


@cli.command()
@_RUN
@click.option("--json", "as_json", is_flag=True, help="Print the path as JSON.")
def report(run: Path, as_json: bool) -> None:
    """Write report.html from the files of a run.

    The page is self-contained.
    """
    from poolwise import api

    path = api.report(run)
    show.line({"report": str(path)}, as_json, str(path))


@cli.command(epilog=EXAMPLES["export"])
@_RUN
@click.option(
    "--pooling",
    default="best",
    show_default=True,
    help="best, cheap (best within the default's MACs), default, or a retrained configuration like 5-3-2; for the pick with"
    " the best gain for its cost, give its configuration.",
)
@click.option("--seed", type=click.IntRange(min=1), default=1, show_default=True, help="Seed of the exported training.")
@click.option(
    "--to", required=True, help="A .safetensors or .onnx file, or python to print code that builds the network."
)
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def export(run: Path, pooling: str, seed: int, to: str, as_json: bool) -> None:
    """Export a retrained configuration as weights, ONNX or code."""
    from poolwise import api

    if to == "python":
        code = api.python_code(run, pooling=pooling, seed=seed)
        return show.line({"to": to, "code": code}, as_json, code.rstrip())
    exported = api.export(run, to, pooling=pooling, seed=seed)
    show.line({**asdict(exported), "path": to}, as_json, str(exported))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. Exit codes: 0 success, 1 failure, 2 wrong request, 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP."""
    debug = bool(os.environ.get("POOLWISE_DEBUG"))
    try:
        cli.main(arguments, prog_name="poolwise", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "poolwise"
        _end(f"{error.format_message()} See: {where} --help", 2)
    except click.ClickException as error:
        _end(error.format_message(), 2)
    except PoolwiseError as error:
        if debug:
            raise
        _end(_with_flag(str(error)), error.exit_code)
    except Stopped as error:
        _end(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _end("stopped", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if debug:
            raise
        _end(f"{error.filename or 'a file'}: {error.strerror or error}", 1)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        _end("out of memory: use fewer --images, a smaller --batch-size or fewer --supernets", 1)


def _with_flag(message: str) -> str:
    """Return a message about the value of a setting with the name of its flag: ``--max-macs is 0``."""
    name, _, rest = message.partition(" ")
    return f"--{name.replace('_', '-')} {rest}" if name in settings() and rest.startswith("is ") else message


def _end(message: str, code: int) -> None:
    with contextlib.suppress(OSError):  # the terminal may be closed
        say(f"poolwise: {' '.join(message.split())}", err=True)
    sys.exit(code)
