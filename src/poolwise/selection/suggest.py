"""Suggest configurations without training: most productive convolutions first, within cost limits.

Among equals, most MACs come first, or fewest with the rule ``refinement``. The quality of such suggestions is measured: the
same order is evaluated on every bundled table of the same network (``Known``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

from poolwise import constraints, statistics
from poolwise.config import LIMITS, Config
from poolwise.config.checks import check_distinct, check_integer, check_positive
from poolwise.errors import RequestError, did_you_mean
from poolwise.models import requested_space
from poolwise.models.chain import create, running_norm
from poolwise.models.cost import Cost, family_costs, sized, table_costs
from poolwise.models.lookup import default_image_size
from poolwise.models.supernet import plain_model
from poolwise.rankings.baselines import refined
from poolwise.rng import Streams
from poolwise.spaces import LISTED, Pooling
from poolwise.storage import tables
from poolwise.storage.tabular import COST, LATENCY, REACH, Tabular
from poolwise.training import Precision, choose_device

MAX_MACS = 1.0
RULES = ("count", "refinement")
DRAWN = 5000  # configurations sampled from a space that is too large to compute every cost


@dataclass(frozen=True)
class Known:
    """Quality of the suggestion on one table of stand-alone accuracies.

    Attributes:
        table: Name of the table.
        tau_b: Kendall tau-b between the suggested order and the stand-alone accuracies.
        interval: 95 % interval of tau-b (bootstrap over configurations).
        regret: Points of test accuracy that the first suggestion loses to the best configuration within the limits.
        gain: Points of test accuracy that the first suggestion gains over the default.
    """

    table: str
    tau_b: float
    interval: tuple[float, float]
    regret: float
    gain: float


@dataclass(frozen=True)
class Guess(Tabular):
    """Configurations within the limit, best guess first, and how good such guesses are on known tables (not in a file).

    ``size`` is the number of configurations in the space, ``priced`` the number whose cost was computed.
    """

    COLUMNS: ClassVar[dict[str, str]] = {"pooling": "layers at each resolution", **COST, **REACH, **LATENCY}

    model: str
    default: Pooling
    limits: dict[str, float | None]
    latency_ms: dict[Pooling, float]
    costs: dict[Pooling, Cost]
    known: tuple[Known, ...]
    size: int
    priced: int

    @property
    def best(self) -> Pooling:
        return next(iter(self.costs))

    def to_rows(self) -> list[dict[str, Any]]:
        return [
            {"pooling": str(pooling), **cost.to_json(), "latency_ms": self.latency_ms.get(pooling)}
            for pooling, cost in self.costs.items()
        ]

    def to_json(self) -> dict[str, Any]:
        known = [asdict(one) for one in self.known]
        return {
            "guess": True,
            "model": self.model,
            "default": str(self.default),
            "limits": self.limits,
            "size": self.size,
            "priced": self.priced,
            "suggestions": self.to_rows(),
            "known": known,
        }


@dataclass(frozen=True)
class SuggestConfig:
    """Options and limits of ``suggest``.

    Attributes:
        width: Base number of channels; by default that of the family.
        image_size: Image side in pixels; by default 32, or 224 for networks of other libraries.
        classes: Number of classes.
        max_macs: Maximum MACs relative to the default; None for no limit.
        max_params: Maximum number of trainable parameters.
        max_memory: Maximum MiB of activations in a training step of ``batch_size`` images.
        max_latency_ms: Maximum latency in ms of a forward pass of ``latency_batch`` images in float32, measured on
            ``device``.
        batch_size, latency_batch, device: See above.
        rule: Order of the suggestions. ``count``: most productive convolutions, then most MACs. ``refinement``: receptive
            field refinement, the fewest unproductive convolutions, then fewest MACs (``baselines.counted.refined``).
        poolings: Allowed numbers of downsamplings; by default the number that the network has.
        max_configs: Sample this many configurations uniformly from a larger space; by default DRAWN if it has over
            LISTED.

    Raises:
        RequestError: A value is invalid.
    """

    width: int | None = None
    image_size: int | None = None
    classes: int = 10
    max_macs: float | None = MAX_MACS
    max_params: float | None = None
    max_memory: float | None = None
    max_latency_ms: float | None = None
    batch_size: int = 128
    latency_batch: int = 1
    device: str = "auto"
    rule: str = "count"
    poolings: Sequence[int] | None = None
    max_configs: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("width", 1), ("image_size", 1), ("max_configs", 2)):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), least)
        for name, least in (("classes", 2), ("batch_size", 1), ("latency_batch", 1)):
            check_integer(name, getattr(self, name), least)
        for name, limit in self.limits.items():
            if limit is not None:
                check_positive(name, limit)
        if self.rule not in RULES:
            raise RequestError(f"unknown rule {self.rule!r}{did_you_mean(self.rule, RULES)}: use {' or '.join(RULES)}")
        if self.poolings is not None:
            object.__setattr__(self, "poolings", tuple(self.poolings))
            check_distinct("poolings", self.poolings, 0)

    @classmethod
    def of(cls, config: SuggestConfig | None, fields: Mapping[str, Any]) -> SuggestConfig:
        """Return ``config``, or the default config, with ``fields`` changed.

        Raises:
            RequestError: A field is unknown.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in fields:
            if name not in known:
                raise RequestError(
                    f"unknown argument {name!r}{did_you_mean(name, known, '.')} Known: {', '.join(known)}"
                )
        return replace(config or cls(), **fields)

    @property
    def limits(self) -> dict[str, float | None]:
        """Return the cost limits by name; None for no limit."""
        return {name: getattr(self, name) for name in LIMITS}


def suggest(model: str = "resnet20", config: SuggestConfig | None = None, **fields: Any) -> Guess:
    """Suggest where a network should downsample, without any training.

    >>> poolwise.suggest("resnet20", max_macs=0.8).best

    Args:
        model: Network family, or a network of another library.
        config: Options and limits; by default ``SuggestConfig()``.
        fields: Fields of ``SuggestConfig`` by name; they override those of ``config``.

    Raises:
        RequestError: The model or a field is unknown, a value is invalid, or no configuration satisfies the limits (the
            message names the smallest).
    """
    config = SuggestConfig.of(config, fields)
    family, device = sized(model, config.width), choose_device(config.device)
    image_size = config.image_size or default_image_size(model)
    poolings = None if config.poolings is None else tuple(config.poolings)
    request = Config.from_flat(model=model, poolings=poolings, max_configs=config.max_configs)
    space = requested_space(request)
    if space.size > LISTED:
        space = requested_space(request.replace(max_configs=DRAWN))
    costs = family_costs(model, config.width, image_size, config.classes, space)
    allowed = request.pickable(map(str, costs))
    choices = {p: cost for p, cost in costs.items() if allowed is None or str(p) in allowed}

    def measure(poolings: list[Pooling]) -> dict[Pooling, float]:
        images_BCHW = torch.zeros(config.latency_batch, 3, image_size, image_size)
        arguments = {"classes": config.classes, "width": config.width or family.width, "norm": running_norm}
        chain = create(family.build, Streams(0).torch("init"), **arguments)
        float32 = Precision.parse("float32")
        return constraints.latencies(partial(plain_model, chain), poolings, images_BCHW, float32, device)

    within = constraints.within(choices, config.limits, config.batch_size, measure, config.latency_batch)
    order = _guessed({pooling: costs[pooling] for pooling in within.members}, config.rule)
    known = _known_tables(model, family.default, config)
    latency_ms, size = within.latency_ms, space.full.size
    return Guess(model, family.default, config.limits, latency_ms, order, known, size, space.size)


def _known_tables(model: str, default: Pooling, config: SuggestConfig) -> tuple[Known, ...]:
    """Evaluate the same suggestion on every bundled table of this network."""
    loaded = [tables.load(name) for name in tables.names()]
    limits = {**config.limits, "max_latency_ms": None}  # no table holds latencies
    return tuple(_known(table, default, limits, config) for table in loaded if table.about.get("model") == model)


def _guessed(within: Mapping[Pooling, Cost], rule: str) -> dict[Pooling, Cost]:
    """Sort configurations best first by a rule; ties keep the order of the space."""
    if rule == "refinement":
        return dict(sorted(within.items(), key=lambda item: (-refined(item[1]), item[0])))
    return dict(sorted(within.items(), key=lambda item: (-item[1].productive, -item[1].macs, item[0])))


def _known(table: tables.Table, default: Pooling, limits: dict[str, float | None], config: SuggestConfig) -> Known:
    costs, truth_P = table_costs(table), np.array(table.column(table.truth))
    try:
        members = constraints.within(costs, limits, config.batch_size, lambda _: {}).members
    except RequestError:  # the network of the table has another size: none of its configurations satisfies the limits
        members = tuple(costs)
    within = _guessed({pooling: costs[pooling] for pooling in members}, config.rule)
    order = {pooling: place for place, pooling in enumerate(within)}
    feasible = [i for i, pooling in enumerate(table.space) if pooling in order]
    scores_P = np.array([-order[table.space[i]] for i in feasible], float)
    tau: dict[str, Any] = {"tau_b": statistics.kendall_tau_b}
    interval = statistics.bootstrap_interval(tau, scores_P, truth_P[feasible])["tau_b"]
    first = truth_P[table.space.index(next(iter(within)))]
    return Known(
        table.name,
        float(statistics.kendall_tau_b(scores_P, truth_P[feasible])),
        (float(interval[0]), float(interval[1])),
        statistics.regret(scores_P, truth_P[feasible]),
        float(first - truth_P[table.space.index(default)]),
    )
