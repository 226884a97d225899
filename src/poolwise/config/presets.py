"""Presets: named starting points of a request."""

from __future__ import annotations

from typing import Any

from poolwise.config.request import Config
from poolwise.config.sections import AUTO
from poolwise.errors import RequestError, did_you_mean

# chosen by experiments (docs/results.md)
_DEFAULT: dict[str, Any] = {
    "method": "mixture",
    "supernets": None,
    "norm": "affine",
    "draw": "rounds",
    "rank_on": "all",
    "short": None,
    "fusion": None,
}

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"block": 1},
    "default": _DEFAULT,
    "demo": {
        **_DEFAULT,
        "width": 8,
        "images": 10_000,
        "steps": 2160,
        "batch_size": 64,
        "lr": 0.05,
        "retrain_seeds": 3,
        "retrain_steps": 150,
        "short": 0.0,  # 40 steps of half a batch for each configuration did not improve the ranking (docs/results.md)
    },
}

DEMO_NOTICE = (
    "This was a demonstration: a narrow network, a fifth of the images and minutes of training. It is not the published"
    " experiment (--preset paper), and its accuracies are far below what these networks can reach."
)


def preset(name: str, **overrides: Any) -> Config:
    """Return the preset called ``name`` with some settings changed, by name.

    An override of None keeps the preset's value; ``"auto"`` leaves a setting open that can be decided later.

    Raises RequestError for an unknown preset, an unknown setting or a wrong value.
    """
    return apply_preset(name, {key: value for key, value in overrides.items() if value is not None})


def apply_preset(name: str, changes: dict[str, Any]) -> Config:
    """Return the preset called ``name`` with ``changes``; a change that makes a preset's value meaningless drops it."""
    if name not in PRESETS:
        raise RequestError(
            f"unknown preset {name!r}{did_you_mean(name, PRESETS, '.')} Allowed are {', '.join(PRESETS)}"
        )
    base = dict(PRESETS[name])
    if changes.get("norm") == "recalibrated" or changes.get("method", base.get("method")) != base.get("method"):
        base.pop("rank_on", None)  # other methods and recalibrated norms score on one SuperNet, as published
    if ":" in str(changes.get("model", "")):  # networks from other libraries have their own width and norms
        base.pop("width", None)
        base.pop("norm", None)
    if ("epochs" in changes and "steps" not in changes) or "search_macs" in changes:
        base.pop("steps", None)
    if "retrain_epochs" in changes and "retrain_steps" not in changes:
        base.pop("retrain_steps", None)
    return Config.from_flat({"preset": name, **base, **changes})


__all__ = ["AUTO", "DEMO_NOTICE", "PRESETS", "apply_preset", "preset"]
