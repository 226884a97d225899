"""The configuration of a run, as nested, validated sections.

``sections.py`` defines every setting once: type, bounds, default, help text and flag. The command line, the TOML format, the JSON
schema and the flat ``settings`` of a run folder all come from there.
"""

from poolwise.config.files import load_config
from poolwise.config.presets import DEMO_NOTICE, PRESETS, preset
from poolwise.config.request import Config, Setting, settings
from poolwise.config.sections import (
    AUTO,
    LIMITS,
    Data,
    Hardware,
    Limits,
    Model,
    Ranking,
    Refine,
    Retrain,
    Search,
    Training,
)

__all__ = [
    "AUTO",
    "DEMO_NOTICE",
    "LIMITS",
    "PRESETS",
    "Config",
    "Data",
    "Hardware",
    "Limits",
    "Model",
    "Ranking",
    "Refine",
    "Retrain",
    "Search",
    "Setting",
    "Training",
    "load_config",
    "preset",
    "settings",
]
