"""poolwise learns where a CNN should downsample. Names are imported when they are first used."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from poolwise.api import (
        CompareConfig,
        Run,
        SuggestConfig,
        compare,
        costs,
        dataset,
        exhaustive,
        export,
        fit,
        hand_over,
        model,
        network,
        plan,
        plan_comparison,
        python_code,
        rank,
        refine,
        report,
        resume,
        retrain,
        run,
        search,
        simulate,
        source,
        suggest,
    )
    from poolwise.config import Config, load_config, preset
    from poolwise.config.legacy import Settings
    from poolwise.errors import PoolwiseError
    from poolwise.models.external.networks import backbone
    from poolwise.models.external.slots import apply, slots
    from poolwise.models.supernet import SwitchableNet, plain_model
    from poolwise.progress import Interrupted, Listener
    from poolwise.selection.optuna_sampler import optuna_sampler
    from poolwise.spaces import Pooling, PoolingSpace
    from poolwise.storage import tables

__version__ = "0.1.0"

_HOMES = {
    "Pooling": "spaces",
    "PoolingSpace": "spaces",
    "PoolwiseError": "errors",
    "Interrupted": "progress",
    "Listener": "progress",
    "Run": "api",
    "Config": "config",
    "Settings": "config.legacy",
    "load_config": "config",
    "preset": "config",
    "SwitchableNet": "models.supernet",
    "export": "api",
    "plain_model": "models.supernet",
    "python_code": "api",
    "apply": "models.external.slots",
    "backbone": "models.external.networks",
    "slots": "models.external.slots",
    "CompareConfig": "api",
    "compare": "api",
    "plan_comparison": "api",
    "costs": "api",
    "plan": "api",
    "fit": "api",
    "exhaustive": "api",
    "dataset": "api",
    "source": "api",
    "search": "api",
    "simulate": "api",
    "SuggestConfig": "api",
    "suggest": "api",
    "rank": "api",
    "refine": "api",
    "retrain": "api",
    "report": "api",
    "run": "api",
    "resume": "api",
    "model": "api",
    "network": "api",
    "hand_over": "api",
    "optuna_sampler": "selection.optuna_sampler",
}
__all__ = [
    "CompareConfig",
    "Config",
    "Interrupted",
    "Listener",
    "Pooling",
    "PoolingSpace",
    "PoolwiseError",
    "Run",
    "Settings",
    "SuggestConfig",
    "SwitchableNet",
    "apply",
    "backbone",
    "compare",
    "costs",
    "dataset",
    "exhaustive",
    "export",
    "fit",
    "hand_over",
    "load_config",
    "model",
    "network",
    "optuna_sampler",
    "plain_model",
    "plan",
    "plan_comparison",
    "preset",
    "python_code",
    "rank",
    "refine",
    "report",
    "resume",
    "retrain",
    "run",
    "search",
    "simulate",
    "slots",
    "source",
    "suggest",
    "tables",
]


def __getattr__(name: str) -> Any:
    if name == "tables":
        return import_module("poolwise.storage.tables")
    if name == "Settings":
        warnings.warn(
            "poolwise.Settings is now poolwise.Config; Config.from_flat(steps=100) takes the same names",
            DeprecationWarning,
            stacklevel=2,
        )
    if name not in _HOMES:
        raise AttributeError(f"module 'poolwise' has no attribute {name!r}")
    return getattr(import_module(f"poolwise.{_HOMES[name]}"), name)
