"""Commands before training: ``space`` lists configurations and their costs, ``suggest`` suggests some."""

from __future__ import annotations

import math
from typing import Any

import click

from poolwise.cli import show
from poolwise.cli.flags import SectionedCommand
from poolwise.cli.options import space_settings
from poolwise.errors import RequestError


def _limit(_context: click.Context, _parameter: click.Parameter, text: str) -> float | None:
    """Parse a ratio above 0; return None for ``none``."""
    if text == "none":
        return None
    try:
        ratio = float(text)
    except ValueError:
        ratio = math.nan
    if not 0 < ratio < math.inf:
        raise RequestError(f"--max-macs {text[:40]!r}: use a ratio to the default's MACs, like 0.8, or none")
    return ratio


_MODEL = click.option(
    "--model",
    default="resnet20",
    show_default=True,
    help="Network family, torchvision:NAME, timm:NAME or FILE.py:NAME.",
)
_WIDTH = click.option(
    "--width", type=click.IntRange(min=1), help="Base number of channels. If not set: that of the network family."
)
_SIZE = click.option(
    "--image-size",
    type=click.IntRange(min=1),
    help="Image height and width in pixels.  [default: 32; 224 for networks from other libraries]",
)
_CLASSES = click.option(
    "--classes", type=click.IntRange(min=2), default=10, show_default=True, help="Number of classes of the head."
)


@click.command(cls=SectionedCommand)
@_MODEL
@click.option("--models", is_flag=True, help="List the network families instead.")
@click.option(
    "--slots",
    is_flag=True,
    help="List the slots where the network can downsample instead.",
)
@_WIDTH
@_SIZE
@_CLASSES
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
    """List the configurations of a network with their costs.

    If there are very many, a random sample is listed.
    """
    from poolwise import api
    from poolwise.models import available, family

    if models:
        return show.families(available(), as_json)
    if slots:
        return show.slots(model, api.named_slots(model, width=width, image_size=image_size, classes=classes), as_json)
    priced = api.costs(model, width=width, image_size=image_size, classes=classes, **arguments)
    size = api.placements(model, poolings=arguments["poolings"]).size
    show.costs(priced, family(model).default, size, as_json)


@click.command(cls=SectionedCommand)
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
@_WIDTH
@_SIZE
@_CLASSES
@space_settings
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def suggest(model: str, as_json: bool, **arguments: Any) -> None:
    """Suggest configurations without training.

    The accuracy of such suggestions on known tables is printed as well.
    """
    from poolwise import api

    show.suggested(api.suggest(model, **arguments), as_json)
