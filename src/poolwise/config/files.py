"""Requests from files: a TOML file, or the request of a run folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from poolwise.config.presets import apply_preset
from poolwise.config.request import Config, settings
from poolwise.config.sections import LIMITS
from poolwise.errors import RequestError, did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_BYTES = 2**20  # a longer file is not a configuration


def load_config(path: str | Path, *, preset: str | None = None, **overrides: Any) -> Config:
    """Read a request from a TOML file or from a run folder.

    A TOML file holds ``preset`` and ``seed`` at the top and one table for each section:

        preset = "default"
        seed = 1
        [search]
        supernets = 4
        [retrain]
        seeds = 3

    Omitted settings come from the preset.

    Args:
        path: a ``.toml`` file, a run folder, or its ``run.json``.
        preset: used in place of the file's preset.
        overrides: settings by name that replace the file's; None keeps the file's value.

    Raises RequestError for a file that cannot be read, an unknown setting or a wrong value.
    """
    path, changes = Path(path), {name: value for name, value in overrides.items() if value is not None}
    if path.is_dir():
        path = path / "run.json"
    if path.suffix == ".json":
        return Config.from_flat({**_from_run(path), **changes})
    values = _from_toml(path)
    name = preset or str(values.pop("preset", "default"))
    values.pop("preset", None)
    return apply_preset(name, {**values, **changes})


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RequestError(f"config {path} cannot be read: {error.strerror}") from None
    if len(data) > _BYTES:
        raise RequestError(f"config {path} has {len(data)} bytes: use a file of at most {_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise RequestError(f"config {path} is not UTF-8 text") from None


def _from_run(path: Path) -> dict[str, Any]:
    """The flat settings of a run folder's request."""
    try:
        value = json.loads(_read(path))
    except (ValueError, RecursionError):
        raise RequestError(f"config {path} is not JSON: use a .toml file or a run folder") from None
    if not isinstance(value, dict) or not isinstance(value.get("settings"), dict):
        raise RequestError(f"config {path} contains no settings: use a .toml file or a run folder")
    flat = dict(value["settings"])
    if any(flat.get(limit) is not None for limit in LIMITS):
        flat["only"] = None  # result of these limits, which are applied again
    return flat


def _from_toml(path: Path) -> dict[str, Any]:
    """The settings of a TOML file by name."""
    try:
        tables = tomllib.loads(_read(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RequestError(f"config {path} is not TOML: {error}") from None
    places = {(setting.section, setting.field): setting.name for setting in settings().values()}
    sections = sorted({section for section, _ in places if section})
    flat: dict[str, Any] = {}
    for key, value in tables.items():
        inner = value if isinstance(value, dict) else {key: value}
        section = key if isinstance(value, dict) else ""
        if section and section not in sections:
            raise RequestError(f"config {path}: unknown section [{section}]{did_you_mean(section, sections)}")
        for field, entry in inner.items():
            if (section, field) not in places:
                names = [name for place, name in places if place == section] if section else ["preset", "seed"]
                where = f" in section [{section}]" if section else " before the first section"
                raise RequestError(f"config {path}: unknown setting {field!r}{where}{did_you_mean(field, names)}")
            flat[places[section, field]] = entry
    return flat
