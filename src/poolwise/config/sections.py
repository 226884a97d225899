"""The sections of a request. Each field is one setting: its type, bounds, default and help text.

The defaults are the published recipe (Javan, Toews, Pedersoli, AutoML 2023). The name of a setting is its name on the command
line, in ``run.json`` and in ``preset(...)``: the name of the field, unless ``name=`` gives another one. Names are unique over
all sections. ``None`` means "choose for me" where the help text says what is chosen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

AUTO = "auto"  # the spelling of None in files and flags, where a setting can be left to poolwise
LIMITS = ("max_macs", "max_params", "max_memory", "max_latency_ms")
_LARGEST = 2**53  # the largest integer that JSON and float64 hold exactly


def _open(value: Any) -> Any:
    """Turn ``auto`` into None."""
    return None if value == AUTO else value


def _names(value: Any) -> Any:
    """Turn a list into a tuple; leave anything else to the type check."""
    return tuple(value) if isinstance(value, list) else value


def _counts(value: Any) -> Any:
    """Sort numbers of downsamplings, each of them once."""
    value = _names(value)
    if not isinstance(value, tuple) or not all(isinstance(count, int) and count >= 0 for count in value):
        return value
    if not value or len(set(value)) < len(value):
        listed = ", ".join(map(str, value)) or "none"
        raise ValueError(f"poolings {listed}: list one or more numbers, each once, like 2,3")
    return tuple(sorted(value))


Text = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]*$")]
Count = Annotated[int, Field(ge=1, le=_LARGEST)]
Batch = Annotated[int, Field(ge=2, le=_LARGEST)]  # BatchNorm needs two images
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
AutoCount = Annotated[Count | None, BeforeValidator(_open)]
AutoShare = Annotated[Share | None, BeforeValidator(_open)]
Configurations = Annotated[tuple[Text, ...], BeforeValidator(_names)]
Names = Annotated[tuple[Text, ...], BeforeValidator(_names)]
Poolings = Annotated[tuple[Annotated[int, Field(ge=0, le=4096)], ...], BeforeValidator(_counts)]


def setting(
    default: Any, text: str, name: str | None = None, *, off_flag: str | None = None, shown: tuple[str, ...] = ()
) -> Any:
    """Define a setting.

    Args:
        default: Value in the published recipe.
        text: Help text.
        name: Name, if it is not the field's.
        off_flag: Flag that turns a switch off, without dashes, if it is not ``--no-NAME``.
        shown: Values that the help lists where others are allowed as well.
    """
    return Field(
        default, description=text, json_schema_extra={"name": name, "off_flag": off_flag, "shown": list(shown)}
    )


class Section(BaseModel):
    """A frozen group of settings."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Model(Section):
    """The network and the configurations to choose from."""

    name: Text = setting(
        "resnet20",
        "Network family (listed by poolwise space --models), torchvision:NAME, timm:NAME or FILE.py:NAME.",
        "model",
    )
    width: Count | None = setting(None, "Base number of channels. If not set: that of the network family.")
    poolings: Poolings | None = setting(
        None, "Numbers of downsamplings, like 2,3.  [default: as many as the network has]"
    )
    max_configs: Annotated[int, Field(ge=2, le=_LARGEST)] | None = setting(
        None, "Use a uniform sample of this many configurations, including the default, if the space is larger."
    )
    weights: Text | None = setting(
        None,
        "Start from these weights instead of random ones: a .safetensors or .pth file, torchvision:NAME or timm:NAME.",
    )
    weights_for: Literal["search", "retrain", "both"] = setting("both", "Which trainings start from --weights.")


class Data(Section):
    """The images."""

    source: Text = setting(
        "cifar10", "Data set: cifar10, cifar100, food101, or folder:PATH with one subfolder for each class.", "data"
    )
    image_size: Count | None = setting(
        None, "Image height and width in pixels, for folders and food101.  [default: 64]"
    )
    images: Count | None = setting(
        None, "Use only this many training images, stratified by class. If not set: all. Fewer change the result."
    )
    flip: bool | None = setting(
        None, "Flip training images horizontally. Turn it off if mirroring can change the class.  [default: on]"
    )
    augment: Literal["crop-flip", "cutout", "trivial", "randaugment", "none"] = setting(
        "crop-flip", "Augmentation of training images; crop-flip is the published one."
    )
    stream: Literal["auto", "on", "off"] = setting(
        "auto", "Read pixels from disk during training (on), keep them in memory (off), or choose by their size (auto)."
    )
    cache_images: bool | None = setting(
        None, "Keep decoded images on disk even if they fit in memory.  [default: only if they do not fit]"
    )
    skip_broken: bool = setting(False, "Skip image files that cannot be read; the report lists them.")
    follow_links: bool = setting(False, "Follow symbolic links to folders and links that leave the data folder.")


class Training(Section):
    """The optimizer, for the search and for stand-alone trainings: SGD with a cosine schedule."""

    batch_size: Batch = setting(128, "Images in a training or scoring batch.")
    lr: Positive = setting(0.1, "Learning rate at the start.")
    lr_end: Amount = setting(0.001, "Learning rate at the end.")
    momentum: Amount = setting(0.9, "Momentum of SGD.")
    weight_decay: Amount = setting(0.0, "Weight decay of SGD.")


class Search(Section):
    """Training the SuperNets."""

    method: Text = setting(
        "mixture",
        "Search method. mixture: the balanced mixture of SuperNets. One SuperNet: spos, fairnas, boltzmann, mcts, iterative-mcts,"
        " learned-hierarchy. Several: unbalanced, partition-first, partition-random.",
    )
    supernets: AutoCount = setting(
        4, "Number of SuperNets M. auto: one, or more in a long search if a measurement favors them."
    )
    branching: Literal["fixed", "measured"] | None = setting(
        None,
        "fixed: train all SuperNets from the end of the warm-up. measured: start with one and double the number where"
        " configurations reach a lower loss in separate SuperNets.",
    )
    epochs: Count = setting(200, "Length of the search in passes over the training half.")
    steps: Count | None = setting(None, "Length of the search in steps; overrides --epochs.")
    macs: Count | None = setting(None, "Length of the search in MACs; overrides --steps.", "search_macs")
    temperature: Amount = setting(100.0, "Temperature of the assignment at the end of the search.")
    temperature_start: Amount = setting(1.0, "Temperature of the assignment at the start of the search.")
    draw: Literal["rounds", "iid"] = setting(
        "iid",
        "rounds: visit every configuration once per round (strict fairness). iid: draw independently, as published.",
    )
    group: Count = setting(
        1,
        "Number of configurations in a step; 1 as published. Several share the first layers, which run once, and the batch.",
    )
    score_on: Literal["held-out", "train"] = setting(
        "held-out",
        "held-out: score on a batch of the scoring half after the step, as published. train: on the training batch before the"
        " step, which costs nothing and is optimistic.",
    )
    block: Count | None = setting(
        None,
        "Update the sampling scores every N steps; 1 as published. If not set: chosen for the device and --workers.",
    )
    norm: Literal["batch", "affine", "recalibrated"] = setting(
        "batch",
        "BatchNorm of the SuperNets: batch (as published), affine (scale and shift for each resolution) or recalibrated.",
    )
    sharing: Literal["full", "resolution"] = setting(
        "full", "full: one set of weights for all configurations. resolution: one set for each resolution."
    )
    warm_up: Share = setting(
        0.0,
        "Share of the search for a warm-up: uniform draws (boltzmann and tree searches), or one SuperNet that is then copied"
        " to the others (mixture, partitions). 0: as the method has by default.",
    )
    proxy: AutoShare = setting(
        0.0, "Share of the steps for proxy trainings: a short stand-alone training of every configuration.", "short"
    )
    checkpoint_minutes: Positive = setting(5.0, "Minutes between two checkpoints of the search.")

    @property
    def max_supernets(self) -> int:
        """M once it is decided; with measured branching, the largest number that the search may reach."""
        assert self.supernets is not None, "the number of SuperNets is decided when the experiment is resolved"
        return self.supernets

    @property
    def parallel_supernets(self) -> int:
        """SuperNets that can train in separate processes: M, or one while the number is still open."""
        return 1 if self.branching == "measured" else self.supernets or 1


class Ranking(Section):
    """Scoring and ordering the configurations."""

    eval_batch_size: Batch = setting(500, "Images in an evaluation batch; it affects the scores.")
    rank_on: Literal["assigned", "all"] = setting(
        "assigned",
        "Score a configuration on its most probable SuperNet (assigned, as published) or on all of them, weighted by the"
        " probabilities of assignment.",
    )
    beam: Count | None = setting(
        None, "Rank only the configurations that a beam search of this width reaches.", "rank_beam"
    )
    proxy_loss: Literal["half", "sum", "ema"] = setting(
        "half",
        "Score of a proxy training: mean training loss of the second half (half), of all steps (sum), or an exponentially"
        " weighted one that ends at the last step (ema).",
        "short_loss",
    )
    fusion: bool | None = setting(
        False,
        "Rank by scores combined with productive convolutions, or by scores only (as published). auto: combined if the proxy"
        " trainings are more than noise.",
    )


class Refine(Section):
    """A few well-chosen stand-alone trainings after the ranking."""

    trials: Count = setting(7, "Stand-alone trainings in total, including one of the default.")
    refiner: Text = setting(
        "refine",
        "Strategy that chooses the trainings. refine: a surrogate model. Others: gp, tpe, top, random,"
        " regularised-evolution, successive-halving, short-all.",
    )
    hints: Names = setting(
        ("scores", "productive", "macs", "last_stage"),
        "What refine knows of each configuration before it is trained, each weighed by how well the trainings confirm it:"
        " scores (of the search), last_stage, and the controls of poolwise compare, some of which use training images.",
    )
    at_once: Count | None = setting(
        None,
        "Trainings per batch of choices. Changes the result.  [default: CPU-dependent; ignores --workers]",
    )


class Retrain(Section):
    """Stand-alone training of the picks and the default, and the verdict."""

    top: Count = setting(1, "Retrain this many configurations from the top of the ranking.")
    seeds: Count = setting(5, "Number of seeds for each retrained configuration.", "retrain_seeds")
    epochs: Count = setting(200, "Length of a stand-alone training in passes over all images.", "retrain_epochs")
    steps: Count | None = setting(
        None, "Length of a stand-alone training in steps; overrides --retrain-epochs.", "retrain_steps"
    )
    margin: Amount = setting(0.2, "Smallest accuracy difference that matters, in percentage points.")
    until_decided: bool = setting(
        False,
        "Add seeds of the pick and the default until further seeds would not change the verdict.",
        off_flag="fixed-seeds",
    )
    max_seeds: Count = setting(10, "Largest number of seeds with --until-decided.")
    equal_cost: bool = setting(
        False,
        "If the pick has more MACs, also compare it with a wider default and a longer-trained default of equal MACs.",
    )


class Limits(Section):
    """Which configurations may be picked."""

    max_macs: Positive | None = setting(None, "At most this multiple of the default's MACs, like 1.0.")
    max_params: Positive | None = setting(None, "At most this many trainable parameters.")
    max_memory: Positive | None = setting(None, "At most this many MiB of float32 activations in a training step.")
    max_latency_ms: Positive | None = setting(None, "At most this many ms per forward pass, measured on this device.")
    latency_batch: Count = setting(1, "Batch size of the forward pass that --max-latency-ms limits.")
    only: Configurations | None = setting(None, "Pick only from these configurations, like 5-3-2,4-3-3.")

    def active(self) -> dict[str, float | None]:
        """Return the limits by name, None where there is no limit."""
        return {name: getattr(self, name) for name in LIMITS}


class Hardware(Section):
    """The device and how it is used."""

    device: Text = setting("auto", "Device: auto, cpu, cuda, cuda:1 or mps.")
    precision: Text | None = setting(
        None,
        "Number format: float32, bfloat16 or tf32, optionally with +channels_last. auto: measure and use the fastest."
        "  [default: chosen for the device]",
        shown=("float32", "bfloat16", "tf32", "auto"),
    )
    threads: Count | None = setting(
        None,
        "CPU threads of each process; changes the last bits of results.  [default: chosen by the number of cores]",
    )
    workers: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] | None = setting(
        None,
        "Number of parallel processes. Results do not depend on it. auto: measure which number is fastest.  [default: chosen"
        " by the number of cores and the length of the run]",
    )
    compile: Literal["off", "default", "cuda-graphs"] = setting(
        "off", "Apply torch.compile to each layer (default), on CUDA also with CUDA graphs (cuda-graphs)."
    )
    profile: bool = setting(False, "Measure the time of each part; the report shows it.")


def pickable(limits: Limits, poolings: tuple[int, ...] | None, names: Iterable[str]) -> set[str] | None:
    """Return the configurations among ``names`` that may be picked; None if all may.

    Args:
        limits: with ``only`` set once limits have been applied.
        poolings: numbers of downsamplings that were requested.
        names: configurations like ``5-3-2``.
    """
    if limits.only is None and poolings is None:
        return None
    within = set(names) if limits.only is None else set(names) & set(limits.only)
    return {name for name in within if poolings is None or name.count("-") in poolings}
