"""Which methods a comparison trains: samplers with their variants, and methods of stand-alone trials."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from poolwise import trialing
from poolwise.errors import RequestError, did_you_mean
from poolwise.settings import AUTO, LIMITS, Settings, preset
from poolwise.supernets import samplers

ALL = "all"
# the same for every method, so no variant may change them
_SHARED = {
    *("preset", "method", "model", "width", "data", "image_size", "images", "flip"),
    *("epochs", "steps", "search_macs", "batch_size"),
    *("trials", "refiner", "margin", "at_once", "until_decided", "max_seeds", "equal_cost"),
    *("top", "retrain_seeds", "retrain_epochs", "retrain_steps", "seed", "device", "precision"),
    *("weights", "weights_for", "threads", "workers", "compile", "profile", "fusion", "latency_batch", "only", *LIMITS),
}
VARIANTS = tuple(field.name for field in dataclasses.fields(Settings) if field.name not in _SHARED)


@dataclass(frozen=True)
class Contender:
    """One method of a comparison.

    Attributes:
        label: name in all results, the same however the variant was written: ``mixture@supernets=4;draw=rounds``.
        method: sampler, or method of stand-alone trials.
        trials: it trains stand-alone, and no SuperNet.
        fields: settings of the search that differ from the published recipe.
    """

    label: str
    method: str
    trials: bool
    fields: tuple[tuple[str, Any], ...] = ()


def parse(words: Sequence[str], supernets: int) -> list[Contender]:
    """Methods by name: ``mixture``, ``random``, ``mixture@supernets=8;draw=rounds``; ``all`` stands for every one.

    ``supernets`` is M of samplers that train several and do not say it. Raises RequestError for unknown names, fields or
    values, and for what comes twice.
    """
    known = {sampler.name: sampler for sampler in samplers.available()}
    alone = trialing.available()
    assert not set(known) & set(alone), "a sampler and a method of trials share a name"
    names = [name for word in words for name in ([*known, *alone] if word == ALL else [word])]
    found = []
    for word in names:
        name, at, variant = word.partition("@")
        if name not in known and name not in alone:
            raise RequestError(
                f"unknown method {name!r}{did_you_mean(name, [*known, *alone])}. Known: {', '.join([*known, *alone])}; or {ALL}"
            )
        if name in alone:
            if at:
                raise RequestError(f"{word}: variants are of samplers, and {name} trains stand-alone: write {name}")
            found.append(Contender(name, name, True))
        else:
            found.append(_searcher(word, known[name], variant if at else None, supernets))
    for i, contender in enumerate(found):
        if contender in found[:i]:
            raise RequestError(f"method {contender.label} is given twice")
    return found


def _searcher(word: str, method: type[samplers.Sampler], variant: str | None, supernets: int) -> Contender:
    name, single = method.name, method.single
    given: dict[str, Any] = {} if single else {"supernets": supernets}
    told = set()
    for part in [] if variant is None else variant.split(";"):
        field, equals, text = (piece.strip() for piece in part.partition("="))
        if field in _SHARED:
            raise RequestError(f"{word}: {field} is the same for all methods and cannot be varied")
        if field not in VARIANTS or not equals:
            raise RequestError(
                f"{word}: no variant {part!r}{did_you_mean(field, VARIANTS)}. After @ stands field=value, several separated"
                f" by ; of {', '.join(VARIANTS)}"
            )
        if field in told:
            raise RequestError(f"{word}: {field} is given twice")
        if field == "supernets" and single:
            raise RequestError(f"{word}: {name} trains one SuperNet, leave supernets out")
        told.add(field)
        given[field] = _value(word, field, text)
    published = preset("paper")
    settings = samplers.settled(preset("paper", method=name, **given))
    always = ("supernets", "eval_batch_size")  # what they are otherwise is not said by the published recipe
    kept = {f: v for f, v in given.items() if f in always or v != getattr(published, f)}
    fields = tuple((f, AUTO if kept[f] == AUTO else getattr(settings, f)) for f in VARIANTS if f in kept)
    label = name + ("@" if fields else "") + ";".join(f"{f}={value}" for f, value in fields)
    return Contender(label, name, False, fields)


def _value(word: str, field: str, text: str) -> Any:
    """The text as the type of this field of Settings."""
    if field in ("supernets", "short") and text == AUTO:
        return text
    hint = get_type_hints(Settings)[field]
    kinds = get_args(hint) or (hint,)
    if bool in kinds and text in ("true", "false"):
        return text == "true"
    for kind in (int, float, str):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                pass
    raise RequestError(f"{word}: {field} cannot be {text!r}")


def search_settings(contender: Contender, recipe: Settings, seed: int, steps: int) -> Settings:
    """The search of a contender: the published recipe on the table's network, images and batches."""
    network, images = ("model", "width", "weights", "weights_for"), ("data", "image_size", "images", "flip")
    machine = ("device", "precision", "threads", "workers", "compile")
    taken = {name: getattr(recipe, name) for name in (*network, *images, "batch_size", "eval_batch_size", *machine)}
    given = {**taken, "method": contender.method, "seed": seed, "steps": steps, **dict(contender.fields)}
    return samplers.settled(preset("paper", **given))
