"""Commands. Each parses its arguments, calls the API and prints the result; ``main`` sets the exit codes."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from poolwise import __version__
from poolwise.cli import show
from poolwise.cli.flags import requested
from poolwise.cli.options import (
    PATH,
    Sections,
    every_setting,
    output_options,
    rank_settings,
    refine_settings,
    retrain_settings,
    search_settings,
    space_settings,
)
from poolwise.cli.out import say
from poolwise.cli.work import Stopped, interruptible
from poolwise.config import AUTO, Config
from poolwise.errors import PoolwiseError, RequestError, out_of_memory


def _limit(_context: click.Context, _parameter: click.Parameter, text: str) -> float | None:
    """Parse a ratio above 0; return None for ``none``."""
    if text == "none":
        return None
    try:
        ratio = float(text)
    except ValueError:
        ratio = math.nan
    if not 0 < ratio < math.inf:
        raise RequestError(f"max-macs {text[:40]!r}: use a ratio to the default's MACs, like 0.8, or none")
    return ratio


@click.group(cls=Sections, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="poolwise")
def cli() -> None:
    """Learn where a CNN should downsample: rank every pooling configuration, retrain the pick, judge the gain."""


_MODEL = click.option(
    "--model",
    default="resnet20",
    show_default=True,
    help="Network family, torchvision:NAME, timm:NAME or FILE.py:NAME.",
)
_SIZE = click.option(
    "--image-size",
    type=click.IntRange(min=1),
    help="Image height and width in pixels (32; 224 for networks from other libraries).",
)


@cli.command()
@_MODEL
@click.option("--models", is_flag=True, help="List the network families instead.")
@click.option(
    "--slots",
    is_flag=True,
    help="List the slots where the network can downsample instead.",
)
@click.option("--width", type=click.IntRange(min=1), help="Base number of channels.")
@_SIZE
@click.option(
    "--classes", type=click.IntRange(min=2), default=10, show_default=True, help="Number of classes of the head."
)
@space_settings
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def space(
    model: str,
    models: bool,
    slots: bool,
    width: int | None,
    image_size: int | None,
    classes: int,
    as_json: bool,
    **arguments: Any,
) -> None:
    """List the configurations of a network with their costs; a random sample if there are very many."""
    from poolwise import api
    from poolwise.models import available, family

    if models:
        return show.families(available(), as_json)
    if slots:
        return show.slots(model, api.named_slots(model, width=width, image_size=image_size, classes=classes), as_json)
    priced = api.costs(model, width=width, image_size=image_size, classes=classes, **arguments)
    size = api.placements(model, poolings=arguments["poolings"]).size
    show.costs(priced, family(model).default, size, as_json)


@cli.command()
@_MODEL
@click.option(
    "--max-macs",
    default="1.0",
    show_default=True,
    callback=_limit,
    help="At most this multiple of the default's MACs, or none.",
)
@click.option(
    "--rule",
    default="count",
    show_default=True,
    help="Order: most productive convolutions, then most MACs (count), or fewest (refinement: receptive field refinement).",
)
@click.option("--max-params", type=float, help="At most this many trainable parameters.")
@click.option("--max-memory", type=float, help="At most this many MiB of float32 activations in a training step.")
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    help="Batch size of the training step that --max-memory limits.",
)
@click.option(
    "--max-latency-ms", type=float, help="At most this many ms per forward pass in float32, measured on this device."
)
@click.option(
    "--latency-batch",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Batch size of the forward pass that --max-latency-ms limits.",
)
@click.option(
    "--device", default="auto", show_default=True, help="Device for measuring latency: auto, cpu, cuda or mps."
)
@click.option("--width", type=click.IntRange(min=1), help="Base number of channels.")
@_SIZE
@click.option(
    "--classes", type=click.IntRange(min=2), default=10, show_default=True, help="Number of classes of the head."
)
@space_settings
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def suggest(model: str, as_json: bool, **arguments: Any) -> None:
    """Suggest pooling configurations without training, and print the accuracy of such suggestions on known tables."""
    from poolwise import api

    show.suggested(api.suggest(model, **arguments), as_json)


def _request(values: dict[str, Any]) -> Config:
    """Return the request of a command line, checked as far as possible without loading images."""
    from poolwise.supernets import samplers

    supernets, request = values.get("supernets"), requested(values)
    config = samplers.settled(request)
    if supernets not in (None, AUTO, config.search.supernets):
        raise RequestError(
            f"method {config.search.method} trains {config.search.supernets} SuperNet and --supernets is {supernets}: omit"
            " it"
        )
    return config


def _planned(config: Config, stages: Sequence[str], as_json: bool) -> None:
    from poolwise import api

    show.plan(api.plan(config, stages), as_json)


def _fitted(config: Config, budget: str | None, stages: Sequence[str], values: dict[str, Any]) -> Config:
    """Return a config that fits ``--time-budget``; settings from flags do not change."""
    if budget is None:
        return config
    from poolwise import api
    from poolwise.pipeline.estimates import parse_time

    seconds = parse_time(budget)
    kept = [name for name, value in values.items() if value is not None]
    say("timing steps on this machine to fit the time budget", err=True)
    fitted = api.fit(config, seconds, stages, kept)
    chosen = {"steps": fitted.search.steps, "supernets": fitted.search.supernets, "images": fitted.data.images}
    if "retrain" in stages:
        chosen["retrain-steps"] = fitted.retrain.steps
    flags = " ".join(f"--{name} {value}" for name, value in chosen.items() if value is not None)
    say(f"time budget {budget}: {flags} (to repeat this run on another machine, use these flags instead)", err=True)
    return fitted


_OUT = click.option("--out", type=PATH, default=None, help="Run folder to create (runs/<command>).")
_PLAN = click.option("--plan", is_flag=True, help="Dry run: print the estimated steps, MACs, time and memory.")
_BUDGET = click.option(
    "--time-budget",
    help="Choose steps, SuperNets and images so that the run takes this long, like 30m or 2h; other flags do not change.",
)
_RUN = click.argument("run", type=PATH)


@cli.command()
@every_setting
@_OUT
@_PLAN
@_BUDGET
@output_options
def run(out: Path | None, plan: bool, time_budget: str | None, quiet: bool, as_json: bool, **values: Any) -> None:
    """Search, rank, retrain and report in one command."""
    from poolwise import api

    config, out = _fitted(_request(values), time_budget, api.RUN_STAGES, values), out or Path("runs/run")
    if plan:
        return _planned(config, api.RUN_STAGES, as_json)
    with interruptible(out, quiet, as_json) as listener:
        api.run(config, out, listener=listener)
    show.result(out, as_json)


@cli.command()
@search_settings
@_OUT
@_PLAN
@_BUDGET
@output_options
def search(out: Path | None, plan: bool, time_budget: str | None, quiet: bool, as_json: bool, **values: Any) -> None:
    """Train the mixture of SuperNets, without ranking."""
    from poolwise import api

    config, out = _fitted(_request(values), time_budget, ["search"], values), out or Path("runs/search")
    if plan:
        return _planned(config, ["search"], as_json)
    with interruptible(out, quiet, as_json) as listener:
        api.search(config, out, listener=listener)
    show.line({"run": str(out), "next": f"poolwise rank {out}"}, as_json, f"search done; next: poolwise rank {out}")


@cli.command()
@_RUN
@rank_settings
@_PLAN
@output_options
def rank(run: Path, fusion: bool | None, plan: bool, quiet: bool, as_json: bool, **limits: Any) -> None:
    """Score every configuration with a finished search and write ranking.json.

    With --fusion, --no-fusion or cost limits, existing scores are reordered without scoring again.
    """
    from poolwise import api
    from poolwise.storage import RunFolder

    if plan:
        return _planned(Config.from_flat(RunFolder.open(run).request()["settings"]), ["rank"], as_json)
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
    """Train the few most informative configurations stand-alone, and choose three picks."""
    from poolwise import api
    from poolwise.storage import RunFolder

    if old_method is not None:
        say("poolwise: --method is now --refiner; the old form will be removed in the next release", err=True)
        changes["refiner"] = changes["refiner"] or old_method

    if plan:
        config = Config.from_flat(RunFolder.open(run).request()["settings"])
        return _planned(api.changed(config, changes, api.REFINE_SETTINGS), ["refine"], as_json)
    with interruptible(run, quiet, as_json) as listener:
        value = api.refine(run, listener=listener, **changes)
    show.refined(dict(value), as_json)


@cli.command()
@_RUN
@retrain_settings
@_PLAN
@output_options
def retrain(run: Path, plan: bool, quiet: bool, as_json: bool, **changes: Any) -> None:
    """Train the top of the ranking and the default stand-alone with several seeds each, and compare them."""
    from poolwise import api
    from poolwise.storage import RunFolder

    if plan:
        config = Config.from_flat(RunFolder.open(run).request()["settings"])
        return _planned(api.changed(config, changes), ["retrain"], as_json)
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
    """Write report.html, a self-contained page, from the files of a run."""
    from poolwise import api

    path = api.report(run)
    show.line({"report": str(path)}, as_json, str(path))


@cli.command()
@_RUN
@click.option(
    "--pooling",
    default="best",
    show_default=True,
    help="best, cheap (best with at most the default's MACs), default, or a retrained configuration.",
)
@click.option("--seed", type=click.IntRange(min=1), default=1, show_default=True, help="Seed of the exported training.")
@click.option(
    "--to", required=True, help="A .safetensors or .onnx file, or python to print code that builds the network."
)
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def export(run: Path, pooling: str, seed: int, to: str, as_json: bool) -> None:
    """Export a retrained configuration as weights, ONNX or Python code."""
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
        _end(str(error), error.exit_code)
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


def _end(message: str, code: int) -> None:
    with contextlib.suppress(OSError):  # the terminal may be closed
        say(f"poolwise: {' '.join(message.split())}", err=True)
    sys.exit(code)
