"""Registry of samplers. To add a method, put one file with ``@register(...)`` into this folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from poolwise.config import Config
from poolwise.errors import RequestError
from poolwise.registry import Registry
from poolwise.supernets.samplers.base import Sampler

SAMPLERS: Registry[type[Sampler]] = Registry("method", "poolwise.supernets.samplers")
SamplerClass = TypeVar("SamplerClass", bound=type[Sampler])


def register(name: str, *, summary: str) -> Callable[[SamplerClass], SamplerClass]:
    """Return a decorator that registers a sampler class under ``name`` with a one-line ``summary``."""

    def add(sampler_class: SamplerClass) -> SamplerClass:
        sampler_class.name, sampler_class.about = name, summary
        SAMPLERS.add(name, sampler_class)
        return sampler_class

    return add


def available() -> list[type[Sampler]]:
    """Return all registered sampler classes."""
    return list(SAMPLERS.all().values())


def sampler(name: str) -> type[Sampler]:
    """Return the sampler class called ``name``; call it with a Task.

    Raises:
        RequestError: If the name is unknown. The message lists the known names.
    """
    return SAMPLERS.get(name)


def settled(config: Config) -> Config:
    """Return the config with the number of SuperNets that its method trains, and the warm-up that it always has.

    Raises:
        RequestError: If the method is unknown, or does not support the requested warm-up, branching or number of
            SuperNets.
    """
    method = sampler(config.search.method)
    if config.search.warm_up and not method.warms_up:
        supporting = ", ".join(other.name for other in available() if other.warms_up)
        raise RequestError(
            f"warm_up is {config.search.warm_up} and method {method.name} has no warm-up: set it to 0, or use {supporting}"
        )
    if config.search.warm_up and not method.single and config.search.supernets == 1:
        raise RequestError(
            f"warm_up is {config.search.warm_up} and supernets is 1: use 2 or more SuperNets with a warm-up"
        )
    if config.search.branching == "measured" and not method.doubles:
        supporting = ", ".join(other.name for other in available() if other.doubles)
        raise RequestError(
            f"branching is measured and method {method.name} has a fixed number of SuperNets: use {supporting}"
        )
    if config.search.branching == "measured" and config.search.warm_up:
        raise RequestError(
            f"branching is measured and warm_up is {config.search.warm_up}: they cannot be combined; omit one of them"
        )
    if config.search.branching == "measured" and config.search.supernets not in (None, 1, 2, 4):
        raise RequestError(f"branching is measured and supernets is {config.search.supernets}: use 1, 2, 4 or auto")
    supernets = config.search.supernets
    if supernets is not None or method.single:
        supernets = method.supernets_used(supernets or 1)
    return config.replace(supernets=supernets, warm_up=config.search.warm_up or method.usual_warm_up)


def left_open(config: Config, steps: int, configurations: int, most: int) -> tuple[Config, str]:
    """Choose the number of SuperNets for a config that leaves it open.

    Args:
        config: Config without a number of SuperNets.
        steps: Training steps on SuperNets.
        configurations: Number of configurations in the space.
        most: Number of SuperNets that fit in memory.

    Returns:
        The completed config, and the reason for the choice in a sentence.
    """
    method = sampler(config.search.method)
    count, reason = method.supernets_for(steps, configurations, most)
    if count == 1 or not method.doubles or config.search.warm_up or config.search.branching == "fixed":
        message = f"{'One SuperNet' if count == 1 else f'{count} SuperNets'} ({reason})"
        return config.replace(supernets=count), message
    count = 4 if count >= 4 else 2  # SuperNets are doubled
    message = f"One SuperNet at the start, up to {count} if that lowers the loss ({reason})"
    return config.replace(supernets=count, branching="measured"), message
