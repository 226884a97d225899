"""Create flags from the settings of ``poolwise.config``, grouped by section in the help of each command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from poolwise.config import AUTO, PRESETS, Config, Setting, load_config, preset, settings
from poolwise.errors import RequestError

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
_TITLES = {"": "Request"}
_REQUEST_TITLES = {"refine": "Refine (stored for a later poolwise refine; not part of poolwise run)"}
_OVERRIDES = {"epochs": "steps", "retrain_epochs": "retrain_steps"}  # settings that another one overrides if it is set
_GROUP = "help_group"


class SettingType(click.ParamType):
    """Click type that parses the value of a setting: a number, text, ``auto``, or a list separated by commas."""

    def __init__(self, setting: Setting):
        self.setting = setting
        self.name = _metavar(setting)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self.setting.parse(value)
        except ValueError:
            flag = self.setting.name.replace("_", "-")
            raise RequestError(f"--{flag} {value[:60]!r}: use {self.setting.allowed}") from None


def _metavar(setting: Setting) -> str:
    if setting.choices or setting.shown:
        return "|".join(setting.choices or setting.shown)
    names = {int: "INTEGER", float: "NUMBER", str: "TEXT"}
    kind = next((names[kind] for kind in setting.kinds if kind in names), "LIST")
    return f"{kind}|auto" if setting.can_be_auto else kind


def _help(setting: Setting) -> str:
    """Return the help text with the default, or the values of all presets if they differ."""
    shown = {name: _shown(setting, name) for name in sorted(PRESETS)}
    known = {name: words for name, words in shown.items() if words}
    if not known:
        return setting.help
    if len(set(shown.values())) == 1:
        return f"{setting.help}  [default: {next(iter(known.values()))}]"
    return f"{setting.help}  [presets: {', '.join(f'{name} {words}' for name, words in known.items())}]"


def _shown(setting: Setting, preset_name: str) -> str:
    """Return the value in a preset as the user would write it; empty if the preset leaves an optional setting unset."""
    values = PRESETS[preset_name]
    longer = _OVERRIDES.get(setting.name)
    if longer in values:
        return f"--{longer.replace('_', '-')} {values[longer]}"
    value = values.get(setting.name, setting.default)
    if value is None:
        return AUTO if setting.name in values else ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _option(setting: Setting, titles: Mapping[str, str] = _TITLES) -> Decorator:
    flag = setting.name.replace("_", "-")
    if bool in setting.kinds:
        off = setting.off_flag or f"no-{flag}"
        option = click.option(f"--{flag}/--{off}", setting.name, default=None, help=_help(setting))
    else:
        kind = SettingType(setting)
        option = click.option(f"--{flag}", setting.name, type=kind, metavar=kind.name, help=_help(setting))
    return grouped(option, titles.get(setting.section, setting.section.capitalize()))


def grouped(option: Decorator, title: str) -> Decorator:
    """Return the option, shown under the heading ``title`` in the help."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        function = option(function)
        parameters = getattr(function, "__click_params__", None) or getattr(function, "params", [])
        setattr(parameters[-1], _GROUP, title)
        return function

    return decorate


def compose(*decorators: Decorator) -> Decorator:
    """Combine decorators so that their options appear in the help in this order."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def chosen(*parts: str) -> list[Setting]:
    """Return settings by section (``retrain``), name (``retrain_epochs``) or path (``model.name``), in this order."""
    every = settings()
    selected: dict[str, Setting] = {}
    for part in parts:
        matches = [
            setting for setting in every.values() if part in (setting.section, f"{setting.section}.{setting.field}")
        ] or [every[part]]
        selected |= {setting.name: setting for setting in matches}
    return list(selected.values())


def setting_options(*parts: str, titles: Mapping[str, str] = _TITLES) -> Decorator:
    """Return a decorator that adds the flags of sections and single settings (see ``chosen``).

    ``titles`` gives headings in the help by section, if they are not the name of the section.
    """
    return compose(*(_option(setting, titles) for setting in chosen(*parts)))


def request_options(*parts: str) -> Decorator:
    """Return a decorator that adds ``--config``, ``--preset``, ``--seed`` and the flags of ``parts``."""
    config = click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        help="Read the configuration from a TOML file or a run folder; flags override it.",
    )
    start = click.option(
        "--preset",
        "preset_name",
        metavar="|".join(sorted(PRESETS)),
        help="Starting point: demo (minutes; a narrow network and few images), default (recommended for results) or"
        " paper (as published).  [default: demo, or that of --config]",
    )
    title = _TITLES[""]
    return compose(
        grouped(config, title),
        grouped(start, title),
        _option(settings()["seed"]),
        setting_options(*parts, titles=_REQUEST_TITLES),
    )


def requested(values: dict[str, Any], **changes: Any) -> Config:
    """Return the request of a command line. Settings are removed from ``values``.

    Raises:
        RequestError: A value is wrong.
    """
    known = settings()
    flags = {name: values.pop(name) for name in list(values) if name in known}
    flags = {name: value for name, value in {**flags, **changes}.items() if value is not None}
    path, name = values.pop("config_path", None), values.pop("preset_name", None)
    if path is None:
        return preset(name or "demo", **flags)
    return load_config(path, preset=name, **flags)


class DescribedArgument(click.Argument):
    """Argument that the help describes under its own heading."""

    def __init__(self, *declarations: Any, description: str, **options: Any):
        super().__init__(*declarations, **options)
        self.description = description
        setattr(self, _GROUP, "Arguments")

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        return self.make_metavar(ctx), self.description


class SectionedCommand(click.Command):
    """Command whose help groups the options by section, and ends with examples if it has any (lines of ``epilog``)."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.strip().splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter, record in self._records(ctx):
            groups.setdefault(getattr(parameter, _GROUP, "Options"), []).append(record)
        for title, rows in groups.items():
            with formatter.section(title):
                formatter.write_dl(rows)

    def _records(self, ctx: click.Context) -> Iterator[tuple[click.Parameter, tuple[str, str]]]:
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                yield parameter, record
