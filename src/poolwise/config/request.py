"""``Config``: all sections, the checks across them, and the flat form that run folders and flags use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from poolwise.config import sections
from poolwise.config.sections import Data, Hardware, Limits, Model, Ranking, Refine, Retrain, Search, Training
from poolwise.errors import RequestError, abbreviated, did_you_mean


@dataclass(frozen=True)
class Setting:
    """One setting, as the sections define it.

    Attributes:
        name: unique over all sections; flags replace ``_`` by ``-``.
        section, field: where it stands in ``Config``; section is empty for ``preset`` and ``seed``.
        help: one sentence.
        off_flag: how the flag that turns a switch off is spelled where it is not ``--no-NAME``.
        shown: values that the help lists where others are allowed as well; empty for most settings.
        info: type, bounds and default.
    """

    name: str
    section: str
    field: str
    help: str
    off_flag: str | None
    info: FieldInfo
    shown: tuple[str, ...] = ()

    @property
    def default(self) -> Any:
        """Value in the published recipe."""
        return self.info.default

    @property
    def kinds(self) -> tuple[Any, ...]:
        """Plain types that a value may have, without None."""
        return tuple(kind for kind in _kinds(self.info.annotation) if kind is not type(None))

    @property
    def choices(self) -> tuple[str, ...]:
        """Allowed words; empty for settings with other values."""
        if not all(get_origin(kind) is Literal for kind in self.kinds):
            return ()
        return tuple(word for kind in self.kinds for word in get_args(kind))

    @property
    def can_be_auto(self) -> bool:
        """Whether ``auto`` is allowed beside values of another type."""
        if any(get_origin(kind) is Literal for kind in self.kinds) and not self.choices:
            return True
        return any(getattr(part, "func", None) is sections._open for part in _metadata(self.info))

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        words = _allowed(self)
        return f"auto or {words}" if self.can_be_auto else words

    def parse(self, text: str) -> Any:
        """Return text as a value of this setting: a number, ``auto``, true or false, or a list separated by commas.

        Bounds are checked when a ``Config`` is built. Raises ValueError where the text has another form.
        """
        if self.can_be_auto and text == sections.AUTO:
            return text
        if bool in self.kinds:
            return {"true": True, "false": False}[text] if text in ("true", "false") else _refuse(text)
        for kind in self.kinds:
            if kind in (int, float):
                return _number(kind, text)
            if get_origin(kind) is tuple:
                parts = [part.strip() for part in text.split(",") if part.strip()]
                return tuple(_number(int, part) if self.name == "poolings" else part for part in parts)
        return text


class Config(BaseModel):
    """A validated, frozen request.

    >>> config = poolwise.preset("demo", seed=3)
    >>> config.search.steps, config.training.lr
    (2160, 0.05)
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    preset: sections.Text = Field("paper", description="The preset that the request started from.")
    seed: Annotated[int, Field(ge=0, le=2**53)] = Field(0, description="Root seed of all randomness.")
    model: Model = Model()
    data: Data = Data()
    training: Training = Training()
    search: Search = Search()
    ranking: Ranking = Ranking()
    refine: Refine = Refine()
    retrain: Retrain = Retrain()
    limits: Limits = Limits()
    hardware: Hardware = Hardware()

    @model_validator(mode="after")
    def _check_combinations(self) -> Config:
        if self.training.lr_end > self.training.lr:
            raise ValueError(
                f"lr_end {self.training.lr_end} is above lr {self.training.lr}: the learning rate must fall; use a smaller"
                " --lr-end"
            )
        if self.data.stream == "on" and self.data.cache_images is False:
            raise ValueError("stream on needs the image cache and cache_images is off: omit one of them")
        if self.model.weights is None and self.model.weights_for != "both":
            raise ValueError(f"weights_for is {self.model.weights_for} without weights: add --weights")
        retrain = self.retrain
        if retrain.until_decided and not 2 <= retrain.seeds <= retrain.max_seeds:
            raise ValueError(
                f"retrain_seeds is {retrain.seeds} and max_seeds {retrain.max_seeds}: until_decided needs at least 2"
                " retrain_seeds and at least as many max_seeds"
            )
        if self.search.norm == "recalibrated" and self.hardware.compile != "off":
            raise ValueError("--norm recalibrated does not support --compile: use --compile off or --norm affine")
        if self.search.norm == "recalibrated" and self.ranking.rank_on != "assigned" and self.search.supernets != 1:
            raise ValueError(
                f"norm recalibrated with rank_on {self.ranking.rank_on} would recalibrate every configuration on several"
                " SuperNets: use --rank-on assigned or --norm affine"
            )
        return self

    @classmethod
    def from_flat(cls, values: Mapping[str, Any] | None = None, /, **more: Any) -> Config:
        """Build a request from settings by name, as ``run.json`` holds them. Raises RequestError for unknown or wrong ones."""
        known, nested = settings(), dict[str, Any]()
        for name, value in {**(values or {}), **more}.items():
            if name not in known:
                raise RequestError(f"unknown setting {name!r}{did_you_mean(str(name), known)}")
            one = known[name]
            place = nested.setdefault(one.section, {}) if one.section else nested
            place[one.field] = value
        return cls.from_sections(nested)

    @classmethod
    def from_sections(cls, values: Mapping[str, Any]) -> Config:
        """Build a request from nested sections, as a TOML file holds them. Raises RequestError for unknown or wrong settings."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise RequestError(_message(error)) from None

    def to_flat(self) -> dict[str, Any]:
        """Return the settings by name as JSON values; ``from_flat`` reads them back."""
        flat = {name: self.get(name) for name in settings()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in flat.items()}

    def get(self, name: str) -> Any:
        """Return the value of a setting by its name."""
        one = settings()[name]
        return getattr(getattr(self, one.section) if one.section else self, one.field)

    def replace(self, **changes: Any) -> Config:
        """Return a request with some settings changed, by name. Raises RequestError for unknown or wrong ones."""
        return self.from_flat({**{name: self.get(name) for name in settings()}, **changes})

    def starts_from_weights(self, weights_for: str) -> bool:
        """Whether trainings for ``search`` or for ``retrain`` start from the requested weights."""
        return self.model.weights is not None and self.model.weights_for in (weights_for, "both")

    @property
    def ranking_groups(self) -> list[int]:
        """Number of SuperNets that share the configurations in each turn of the ranking; turns share the scoring batches."""
        count = self.search.max_supernets
        return [1] * count if self.ranking.rank_on == "all" else [count]

    @property
    def ranking_turns(self) -> int:
        """Number of turns that share the scoring batches when ranking."""
        return len(self.ranking_groups)

    def pickable(self, names: Iterable[str]) -> set[str] | None:
        """Return the configurations among ``names`` that may be picked: within the limits and ``poolings``; None for all."""
        return sections.pickable(self.limits, self.model.poolings, names)


@cache
def settings() -> dict[str, Setting]:
    """Return every setting by name, in the order of the sections."""
    by_name: dict[str, Setting] = {}
    for name, info in Config.model_fields.items():
        kind = info.annotation
        section = kind if isinstance(kind, type) and issubclass(kind, sections.Section) else None
        fields = section.model_fields if section else {name: info}
        for field, field_info in fields.items():
            extra = field_info.json_schema_extra if isinstance(field_info.json_schema_extra, dict) else {}
            setting_name, off = extra.get("name") or field, extra.get("off_flag")
            assert setting_name not in by_name, f"two settings are called {setting_name}"
            text = field_info.description or ""
            by_name[str(setting_name)] = Setting(
                str(setting_name),
                name if section else "",
                field,
                text,
                None if off is None else str(off),
                field_info,
                tuple(map(str, listed)) if isinstance(listed := extra.get("shown"), (list, tuple)) else (),
            )
    return by_name


def _number(kind: type, text: str) -> Any:
    """A number in ASCII digits of a sensible length."""
    if not text.isascii() or "_" in text or len(text) > 40:
        raise ValueError(text)
    return kind(text)


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _kinds(annotation: Any) -> list[Any]:
    """Split a type into plain ones: through unions and Annotated."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Literal, tuple):
        return [annotation]
    parts = get_args(annotation)
    return [kind for part in parts for kind in _kinds(part)] if parts else [annotation]


def _metadata(info: FieldInfo) -> list[Any]:
    """Bounds and validators of a field, those inside unions as well."""

    def inside(annotation: Any) -> list[Any]:
        metadata = list(getattr(annotation, "__metadata__", ()))
        metadata += [part for entry in metadata if isinstance(entry, FieldInfo) for part in entry.metadata]
        return metadata + [part for argument in get_args(annotation) for part in inside(argument)]

    return [*info.metadata, *inside(info.annotation)]


def _bound(info: FieldInfo, name: str) -> Any:
    return next((getattr(part, name) for part in _metadata(info) if getattr(part, name, None) is not None), None)


def _allowed(one: Setting) -> str:
    """The allowed values of a setting, without ``auto``."""
    if one.choices:
        return " or ".join(one.choices)
    if bool in one.kinds:
        return "true or false"
    least, above, below = (_bound(one.info, name) for name in ("ge", "gt", "lt"))
    if int in one.kinds:
        most = _bound(one.info, "le")
        end = f" and at most {most}" if most is not None and most < 2**53 else ""
        return f"an integer of at least {least}{end}"
    if float in one.kinds:
        if below is not None:
            return f"a number in [{least:g}, {below:g})"
        return f"a finite number above {above:g}" if above is not None else f"a finite number of at least {least:g}"
    if any(get_origin(kind) is tuple for kind in one.kinds):
        lists = {"poolings": "integers of at least 0, like 2,3", "hints": "names, like scores,productive"}
        return f"a list of {lists.get(one.name, 'configurations, like 5-3-2,4-3-3')}"
    return "text of at most 4096 characters"


def _message(error: ValidationError) -> str:
    """Return the first error of a ValidationError in one line: what is wrong, and what is allowed."""
    first = error.errors(include_url=False)[0]
    place, value = [part for part in first["loc"] if isinstance(part, str)], first["input"]
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    known = settings()
    section = place[0] if len(place) > 1 and place[0] in Config.model_fields else ""
    one = next(
        (s for s in known.values() if (s.section, s.field) == (section, place[1] if section else place[0])), None
    )
    if first["type"] == "extra_forbidden" or one is None:
        names = [s.field for s in known.values() if s.section == section] or list(Config.model_fields)
        where = f" in section [{section}]" if section else ""
        if not section and place[0] in Config.model_fields:
            return f"section [{place[0]}] is {abbreviated(value)}: use a table of settings"
        return f"unknown setting {place[-1]!r}{where}{did_you_mean(place[-1], names)}"
    if one.choices and isinstance(value, str):
        return f"unknown {one.name} {value!r}{did_you_mean(str(value), one.choices, '.')} Allowed are {', '.join(one.choices)}"
    return f"{one.name} is {abbreviated(value)}: use {one.allowed}"
