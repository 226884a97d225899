"""What can be asked of a run, and the presets. Every field has a flag of the same name."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from poolwise.errors import RequestError, did_you_mean

DRAWS = ("rounds", "iid")
NORMS = ("batch", "affine", "recalibrated")
SHARINGS = ("full", "resolution")
AUTO = "auto"  # SuperNets, short trainings: what the length of the search calls for
STEPS_A_SUPERNET = 2000  # fewer leave the assignment to chance (docs/algorithm.md)
RANKED_ON = ("assigned", "all")
BRANCHINGS = ("fixed", "measured")
LIMITS = ("max_macs", "max_params", "max_memory", "max_latency_ms")
TRIED = 2  # configurations that a beam scores of each node that it opens
AUGMENTS = ("crop-flip", "cutout", "trivial", "randaugment", "none")
STREAMS = ("auto", "on", "off")
BEGINNINGS = ("search", "retrain", "both")
COMPILES = ("off", "default", "cuda-graphs")
_LARGEST = 2**53  # what JSON and floating point still hold exactly
_LONGEST = 4096  # characters of a name or path


@dataclass(frozen=True)
class Settings:
    """One request. The defaults are the published recipe (FIGURES of the paper; ``docs/reproduce.md``).

    Attributes:
        preset: the preset that it began as.
        model, width: network family and base channels (None: the family's own).
        data, image_size: ``cifar10``, ``cifar100``, ``food101`` or ``folder:PATH``; pixels along one side (not for CIFAR).
        images: at most so many training images are used (None: all), drawn by class.
        flip: mirror images while training (None: what the data set says).
        augment: what happens to training images, one of AUGMENTS (``docs/images.md``); ``crop-flip`` as published.
        stream: pixels of image files stay on disk (``on``), in memory (``off``), or on disk where they are many (``auto``).
        cache_images: keep decoded images on disk also where they go to memory (None: no; streaming always does).
        skip_broken: go on without image files that cannot be read.
        follow_links: follow links to folders, and links out of a data folder.
        method: the sampler, which decides what is trained next (``poolwise.supernets.samplers``).
        supernets: M; methods with one SuperNet train one. None for what the method would take (``supernets_for``).
        branching: ``fixed``: as many SuperNets from the end of ``warm_up`` on (without one, from the start); ``measured``: one
            at first, and twice as many, up to ``supernets``, where configurations are better off apart (``supernets.branching``).
            None for measured where ``supernets`` is left open and the method can, else fixed.
        epochs, steps, search_macs: length of the search in passes over the training half, in steps, or in multiply-adds; the
            last that is given wins. In multiply-adds the number of steps follows what is drawn (``loop.Pace``).
        batch_size, eval_batch_size: images a training and scoring batch; images a batch while ranking.
        lr, lr_end, momentum, weight_decay: SGD; the rate falls by half a cosine.
        temperature, temperature_start: end and start of the linear rise.
        block: steps drawn at a time with the same scores (None: as the device needs it, ``Experiment.block``); 1 as published.
        draw: ``rounds`` (every configuration once a round) or ``iid`` (independent, as published).
        norm: BatchNorm of the search, one of NORMS (``poolwise.models.sharing``); ``batch`` as published.
        sharing: ``full`` (one set of weights for all) or ``resolution`` (one for each number of downsamplings passed).
        warm_up: share of the search (from 0 to below 1) that draws uniformly first, in methods that otherwise prefer; with
            several SuperNets, that one trains alone before all go on from it.
        rank_on: which SuperNets score a configuration when ranking: ``assigned``, its most probable one on the whole
            scoring half, as published; ``all``, every one on its share of it, weighted by the assignment.
        short: share of the steps (from 0 to below 1) for short trainings of every configuration on weights of its own
            (``rankings.proxy_training``), which rank together with the SuperNets. None for the share that pays: two thirds where
            that is 30 steps for each, else none.
        fusion: rank by an estimate from scores and productive convolutions (``metrics.fuse``), and not by scores alone; None for
            where short trainings tell how far to trust the count: on where they are more than noise.
        top: how many of the ranking are retrained.
        trials: stand-alone trainings that refining may take, the default's among them.
        refiner: method that chooses them (``poolwise.selection.strategies``).
        margin: points of accuracy below which a difference does not matter: refining stops, and a verdict is equal, within.
        at_once: trainings that refining asks for together (None: as many as processes are fastest); part of its result.
        retrain_seeds: seeds of each retrained configuration.
        retrain_epochs, retrain_steps: length of a stand-alone training.
        until_decided, max_seeds: seeds of the pick and the default are added, one at a time and at most so many in all, until
            more would not change the verdict.
        equal_cost: a pick that takes more MACs is also compared with the default widened, and trained longer, to as many.
        seed, device: root seed; where it computes.
        precision: number format and memory order (``training.PRECISIONS``). None: what the device is made for
            (``training.device_precision``); ``auto``: the fastest by measurement, which is then recorded.
        threads, workers: CPU threads of a process and processes at once (None: by the number of cores and the length of
            the run; workers ``auto``: measured). Threads change the last bits of a result, workers never do.
        compile: ``off``, or torch.compile of each layer (``default``), on CUDA with graphs of it (``cuda-graphs``).
        profile: measure where the time goes.
        checkpoint_minutes: minutes between two checkpoints of a search.
        max_macs, max_params, max_memory, max_latency_ms: limits of what may be chosen: times the default's MACs, trainable
            parameters, MiB of float32 activations in a training step, milliseconds of a forward pass of ``latency_batch``
            images, measured here.
        only: the configurations that limits left; the default is trained beside them in any case.
        poolings: numbers of downsamplings that are placed (None: as many as the default has). Where the default's is not
            among them, it is trained and ranked beside them and never picked.
        max_configs: of a space with more configurations than this, a uniform draw of so many, the default among them.
        weights: what trainings begin with in place of random weights: a file (``.safetensors``, ``.pth``),
            ``torchvision:NAME`` or ``timm:NAME`` (``networks.weights``).
        weights_for: which trainings: those of the SuperNets (``search``), stand-alone ones (``retrain``), or ``both``.
        rank_beam: rank what a beam of this width over pooling positions comes by (``rankings.beam``), not the whole space.
    """

    preset: str = "paper"
    model: str = "resnet20"
    width: int | None = None
    data: str = "cifar10"
    image_size: int | None = None
    images: int | None = None
    flip: bool | None = None
    augment: str = "crop-flip"
    stream: str = "auto"
    cache_images: bool | None = None
    skip_broken: bool = False
    follow_links: bool = False
    method: str = "mixture"
    supernets: int | None = 4
    branching: str | None = None
    epochs: int = 200
    steps: int | None = None
    search_macs: int | None = None
    batch_size: int = 128
    eval_batch_size: int = 500
    lr: float = 0.1
    lr_end: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 0.0
    temperature: float = 100.0
    temperature_start: float = 1.0
    draw: str = "iid"
    block: int | None = None
    norm: str = "batch"
    sharing: str = "full"
    warm_up: float = 0.0
    rank_on: str = "assigned"
    short: float | None = 0.0
    fusion: bool | None = False
    top: int = 1
    trials: int = 7
    refiner: str = "refine"
    margin: float = 0.2
    at_once: int | None = None
    retrain_seeds: int = 5
    retrain_epochs: int = 200
    retrain_steps: int | None = None
    until_decided: bool = False
    max_seeds: int = 10
    equal_cost: bool = False
    seed: int = 0
    device: str = "auto"
    precision: str | None = None
    threads: int | None = None
    workers: int | str | None = None
    compile: str = "off"
    profile: bool = False
    checkpoint_minutes: float = 5.0
    max_macs: float | None = None
    max_params: float | None = None
    max_memory: float | None = None
    max_latency_ms: float | None = None
    latency_batch: int = 1
    only: tuple[str, ...] | None = None
    poolings: tuple[int, ...] | None = None
    max_configs: int | None = None
    rank_beam: int | None = None
    weights: str | None = None
    weights_for: str = "both"

    def __post_init__(self) -> None:
        self._check_kinds()
        for name in (
            "supernets",
            "width",
            "image_size",
            "images",
            "steps",
            "search_macs",
            "retrain_steps",
            "block",
            "threads",
            "workers",
            "at_once",
            "rank_beam",
        ):
            if getattr(self, name) is not None and not (name == "workers" and self.workers == AUTO):
                _whole(name, getattr(self, name), 1)
        for name in (
            "epochs",
            "batch_size",
            "eval_batch_size",
            "top",
            "trials",
            "retrain_seeds",
            "retrain_epochs",
        ):
            _whole(name, getattr(self, name), 1)
        _whole("seed", self.seed, 0)
        if self.only is not None:
            object.__setattr__(self, "only", tuple(self.only))
        if self.max_configs is not None:
            _whole("max_configs", self.max_configs, 2)
        if self.poolings is not None:
            object.__setattr__(self, "poolings", _counts(self.poolings))
        for name in LIMITS:
            if getattr(self, name) is not None:
                _number(name, getattr(self, name), above=0)
        for name in ("batch_size", "eval_batch_size"):
            if getattr(self, name) < 2:
                raise RequestError(f"{name} is {getattr(self, name)}: BatchNorm needs at least 2 images a batch")
        _number("lr", self.lr, above=0)
        _number("checkpoint_minutes", self.checkpoint_minutes, above=0)
        for name in ("lr_end", "momentum", "weight_decay", "temperature", "temperature_start", "margin"):
            _number(name, getattr(self, name))
        for name in ("warm_up", "short") if self.short is not None else ("warm_up",):
            _number(name, getattr(self, name))
            if getattr(self, name) >= 1:
                raise RequestError(
                    f"{name} is {getattr(self, name)}: a share of the search from 0 to below 1 is allowed"
                )
        if self.lr_end > self.lr:
            raise RequestError(
                f"lr_end {self.lr_end} is above lr {self.lr}: the rate falls; give a smaller --lr-end as well"
            )
        named = (
            *(("draw", DRAWS), ("norm", NORMS), ("sharing", SHARINGS), ("rank_on", RANKED_ON), ("compile", COMPILES)),
            *(("augment", AUGMENTS), ("stream", STREAMS), ("weights_for", BEGINNINGS)),
            *((("branching", BRANCHINGS),) if self.branching is not None else ()),
        )
        for name, allowed in named:
            value = getattr(self, name)
            if value not in allowed:
                raise RequestError(
                    f"unknown {name} {value!r}{did_you_mean(str(value), allowed)}. Allowed are {', '.join(allowed)}"
                )
        if self.stream == "on" and self.cache_images is False:
            raise RequestError("stream on keeps images in the cache and cache_images is off: leave one of them out")
        if self.weights is None and self.weights_for != "both":
            raise RequestError(f"weights_for is {self.weights_for} and there are no weights: give --weights as well")
        if self.until_decided and not 2 <= self.retrain_seeds <= self.max_seeds:
            raise RequestError(
                f"retrain_seeds is {self.retrain_seeds} and max_seeds {self.max_seeds}: until_decided looks from the first number"
                " of seeds (at least 2) to the second"
            )
        if self.norm == "recalibrated" and self.compile != "off":
            raise RequestError(
                f"norm recalibrated changes norms while ranking and compile is {self.compile}: set one of them back"
                " (--compile off, or --norm affine)"
            )
        if self.norm == "recalibrated" and self.rank_on != "assigned" and self.supernets != 1:
            raise RequestError(
                f"norm recalibrated and rank_on {self.rank_on} together would recalibrate every configuration on several"
                " SuperNets: set one of them back (--rank-on assigned, or --norm affine)"
            )

    def _check_kinds(self) -> None:
        """Texts are texts and switches are switches, whoever wrote the file that they come from."""
        for field in fields(self):
            value, kind = getattr(self, field.name), str(field.type)
            if kind == "str | None" and value is None:
                continue
            if kind in ("str", "str | None") and (not isinstance(value, str) or "\0" in value or len(value) > _LONGEST):
                raise RequestError(
                    f"{field.name} is {_short(value)}: a text of at most {_LONGEST} characters is allowed"
                )
            if kind in ("bool", "bool | None") and value not in (
                (True, False) if kind == "bool" else (True, False, None)
            ):
                raise RequestError(f"{field.name} is {_short(value)}: true or false is allowed")
        if self.only is not None and not (
            isinstance(self.only, (list, tuple)) and all(isinstance(p, str) for p in self.only)
        ):
            raise RequestError(f"only is {_short(self.only)}: a list of configurations is allowed")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def begins(self, what: str) -> bool:
        """Whether trainings of this kind, ``search`` or ``retrain``, begin with the given weights."""
        return self.weights is not None and self.weights_for in (what, "both")

    @property
    def nets(self) -> int:
        """M, once it is decided; where branching is measured, the most that there can be."""
        assert self.supernets is not None, "the number of SuperNets is decided when a run is created"
        return self.supernets

    @property
    def side_by_side(self) -> int:
        """SuperNets that can train in processes of their own: M, and one where it is not known how many there will be."""
        return 1 if self.branching == "measured" else self.supernets or 1

    @property
    def ranking_nets(self) -> list[int]:
        """How many SuperNets share the configurations out in each turn of the ranking."""
        return [1] * self.nets if self.rank_on == "all" else [self.nets]

    @property
    def ranking_rotation(self) -> int:
        """How many turns share the scoring batches out."""
        return len(self.ranking_nets)

    def pickable(self, poolings: Iterable[str]) -> set[str] | None:
        """Those of ``poolings`` that may be picked: within the limits and of the numbers asked for; None for all."""
        if self.only is None and self.poolings is None:
            return None
        within = set(poolings) if self.only is None else set(poolings) & set(self.only)
        return {name for name in within if self.poolings is None or name.count("-") in self.poolings}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Settings:
        """Read back ``to_json``. RequestError for unknown names."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(value) - known)
        if unknown:
            raise RequestError(f"unknown setting {unknown[0]!r}{did_you_mean(unknown[0], known)}")
        return cls(**value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _whole(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise RequestError(f"{name} is {_short(value)}: a whole number of at least {least} is allowed")
    if value > _LARGEST:
        raise RequestError(f"{name} is {_short(value)}: a whole number of at most {_LARGEST} is allowed")


def _counts(value: Iterable[Any]) -> tuple[int, ...]:
    """Numbers of downsamplings, each once, the fewest first."""
    told = tuple(value)
    for count in told:
        _whole("poolings", count, 0)
    if not told or len(set(told)) < len(told):
        raise RequestError(
            f"poolings {', '.join(map(str, told)) or 'none'}: give one number or several, each once, like 2,3"
        )
    return tuple(sorted(told))


def _number(name: str, value: Any, above: float | None = None) -> None:
    real = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf
    if not real or value < 0 or (above is not None and value <= above):
        allowed = f"above {above}" if above is not None else "of at least 0"
        raise RequestError(f"{name} is {_short(value)}: a finite number {allowed} is allowed")


# what was chosen in the laboratory (docs/results.md)
_FOUND: dict[str, Any] = {
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
    "default": _FOUND,
    "demo": {
        **_FOUND,
        "width": 8,
        "images": 10_000,
        "steps": 2160,
        "batch_size": 64,
        "lr": 0.05,
        "retrain_seeds": 3,
        "retrain_steps": 150,
        "short": 0.0,  # 40 steps of half a batch for each did not pay (docs/results.md)
    },
}


DEMONSTRATION = (
    "This was a demonstration: a narrow network, a fifth of the images and minutes of training. It is not the published"
    " experiment (--preset paper) and its accuracies are far below what these networks reach."
)


def preset(name: str, **overrides: Any) -> Settings:
    """The preset called ``name`` with some values changed; None leaves a value as it is, AUTO one open."""
    if name not in PRESETS:
        raise RequestError(f"unknown preset {name!r}{did_you_mean(name, PRESETS)}. Allowed are {', '.join(PRESETS)}")
    given = {key: value for key, value in overrides.items() if value is not None}
    base = dict(PRESETS[name])
    given |= {key: None for key in ("supernets", "short") if given.get(key) == AUTO}
    if given.get("norm") == "recalibrated" or given.get("method", base.get("method")) != base.get("method"):
        base.pop("rank_on", None)  # these are scored by one SuperNet for each configuration, as published
    if ":" in str(given.get("model", "")):  # a network that is not of this library has its own width and norms
        base.pop("width", None)
        base.pop("norm", None)
    if ("epochs" in given and "steps" not in given) or "search_macs" in given:
        base.pop("steps", None)
    if "retrain_epochs" in given and "retrain_steps" not in given:
        base.pop("retrain_steps", None)
    return Settings.from_json({"preset": name, **base, **given})
