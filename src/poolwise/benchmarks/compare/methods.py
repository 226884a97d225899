"""Methods that a comparison can train: samplers with variants, and strategies of stand-alone trainings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from poolwise.config import AUTO, Config, preset, settings
from poolwise.errors import RequestError, did_you_mean
from poolwise.selection import strategies
from poolwise.supernets import samplers

ALL = "all"
# Settings of the search method that a variant may change, in the order used by labels. All other settings
# (network, images, lengths, hardware, space) must be equal for all methods to make the comparison fair.
VARIANT_FIELDS = (
    *("supernets", "branching", "eval_batch_size"),
    *("lr", "lr_end", "momentum", "weight_decay", "temperature", "temperature_start"),
    *("draw", "block", "norm", "sharing", "warm_up", "rank_on", "short", "short_loss", "group", "score_on"),
)
# Search settings taken from the recipe of the table and from the hardware.
_SHARED_FIELDS = (
    *("model", "width", "weights", "weights_for"),
    *("data", "image_size", "images", "flip", "augment"),
    *("batch_size", "eval_batch_size"),
    *("device", "precision", "threads", "workers", "compile"),
)


@dataclass(frozen=True)
class MethodSpec:
    """One method of a comparison.

    Attributes:
        label: Canonical name in all results, independent of how the variant was written:
            ``mixture@supernets=4;draw=rounds``.
        method: Name of the sampler, or of the strategy of stand-alone trainings.
        standalone: Whether it trains configurations stand-alone instead of SuperNets.
        fields: Search settings that differ from the published recipe.
    """

    label: str
    method: str
    standalone: bool
    fields: tuple[tuple[str, Any], ...] = ()


def parse_methods(texts: Sequence[str], supernets: int) -> list[MethodSpec]:
    """Parse methods such as ``mixture``, ``random`` and ``mixture@supernets=8;draw=rounds``.

    Args:
        texts: One method each; ``all`` stands for every sampler and strategy.
        supernets: M of samplers that train several SuperNets, unless the variant sets it.

    Returns:
        One spec per method, in the order of ``texts``.

    Raises:
        RequestError: A method, field or value is unknown, or a method occurs twice.
    """
    known_samplers = {sampler.name: sampler for sampler in samplers.available()}
    known_strategies = strategies.available()
    assert not set(known_samplers) & set(known_strategies), "a sampler and a strategy share a name"
    known = [*known_samplers, *known_strategies]
    specs: list[MethodSpec] = []
    for text in [name for entry in texts for name in (known if entry == ALL else [entry])]:
        name, at, variant = text.partition("@")
        if name not in known:
            raise RequestError(
                f"unknown method {name!r}{did_you_mean(name, known, '.')} Known: {', '.join(known)}; or {ALL}"
            )
        if name in known_samplers:
            spec = _sampler_spec(text, known_samplers[name], variant if at else None, supernets)
        elif at:
            raise RequestError(f"{text}: {name} is not a sampler and has no variants: use {name}")
        else:
            spec = MethodSpec(name, name, True)
        if spec in specs:
            raise RequestError(f"method {spec.label} occurs twice: use each method once")
        specs.append(spec)
    return specs


def _sampler_spec(text: str, sampler: type[samplers.Sampler], variant: str | None, supernets: int) -> MethodSpec:
    name = sampler.name
    values: dict[str, Any] = {} if sampler.single else {"supernets": supernets}
    values |= {} if variant is None else _parse_variant(text, sampler, variant)
    published = preset("paper")
    config = samplers.settled(preset("paper", method=name, **values))
    explicit = ("supernets", "eval_batch_size")  # always part of the label: the published recipe does not fix them
    kept = {field: v for field, v in values.items() if field in explicit or v != published.get(field)}
    varied = tuple((f, AUTO if kept[f] == AUTO else config.get(f)) for f in VARIANT_FIELDS if f in kept)
    label = name + ("@" if varied else "") + ";".join(f"{field}={value}" for field, value in varied)
    return MethodSpec(label, name, False, varied)


def _parse_variant(text: str, sampler: type[samplers.Sampler], variant: str) -> dict[str, Any]:
    """Parse ``field=value;field=value``, the part of ``text`` after the ``@``."""
    settings_names = set(settings())
    values: dict[str, Any] = {}
    for part in variant.split(";"):
        field, equals, value = (piece.strip() for piece in part.partition("="))
        if field in settings_names - set(VARIANT_FIELDS):
            raise RequestError(
                f"{text}: {field} is the same for all methods and cannot be varied. Allowed: {', '.join(VARIANT_FIELDS)}"
            )
        if field not in VARIANT_FIELDS or not equals:
            raise RequestError(
                f"{text}: invalid variant {part!r}{did_you_mean(field, VARIANT_FIELDS, '.')} Write field=value after @, separated"
                f" by ;. Fields: {', '.join(VARIANT_FIELDS)}"
            )
        if field in values:
            raise RequestError(f"{text}: {field} occurs twice: set each field once")
        if field == "supernets" and sampler.single:
            raise RequestError(f"{text}: {sampler.name} trains one SuperNet: omit supernets")
        values[field] = _parse_value(text, field, value)
    return values


def _parse_value(text: str, field: str, value: str) -> Any:
    """Convert the text of a value to the type of its setting."""
    try:
        return settings()[field].parse(value)
    except ValueError:
        raise RequestError(f"{text}: {field} cannot be {value!r}") from None


def search_settings(spec: MethodSpec, recipe: Config, seed: int, steps: int) -> Config:
    """Return the config of one search: the published method with the table's network, images and batches."""
    shared = {name: recipe.get(name) for name in _SHARED_FIELDS}
    values = {**shared, "method": spec.method, "seed": seed, "steps": steps, **dict(spec.fields)}
    return samplers.settled(preset("paper", **values))
