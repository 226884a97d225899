"""The experiment: everything that search, ranking and stand-alone training share, resolved once and then frozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from poolwise.config import AUTO, Config, settings
from poolwise.datasets.augment import Augmentation, Normalize, PerImage, augmentation, named, to_tensor
from poolwise.datasets.batches import Batches
from poolwise.datasets.loading import load_requested
from poolwise.datasets.packed import Packed
from poolwise.datasets.shared_memory import SharedSource
from poolwise.datasets.sources import ImageSet, Source
from poolwise.datasets.split import mixed, stratified_halves, stratified_subset
from poolwise.errors import RequestError
from poolwise.models import Family, family, requested_space, sharing
from poolwise.models.chain import Chain, Norm, batch_norm, create, running_norm
from poolwise.models.cost import CostModel
from poolwise.models.external import networks
from poolwise.models.external.chain_adapter import check_settings
from poolwise.models.supernet import SwitchableNet, plain_model
from poolwise.models.weights import Weights, load_into
from poolwise.models.weights import load as load_weights
from poolwise.process import free_bytes
from poolwise.progress import Listener
from poolwise.rng import Streams
from poolwise.spaces import Pooling, PoolingSpace
from poolwise.training import Precision, choose_device, device_precision
from poolwise.training.calibration import Parallel, cpu_threads
from poolwise.training.workers import check_sendable

RECALIBRATION_BATCHES = 8  # of ``eval_batch_size`` images each
_OF_IMAGES = ("training_images", "in_use", "halves", "normalize", "_ranking_order")  # depend on images and seed


def resolve(
    config: Config,
    source: Source | None = None,
    choices: dict[str, Any] | None = None,
    *,
    weights: Weights | None = None,
    normalize: Normalize | None = None,
    listener: Listener | None = None,
) -> Experiment:
    """Resolve the device, network, space, images and number format of a request. Nothing is timed.

    Args:
        config: The request.
        source: A loaded data set (default: load the one that ``config`` names).
        choices: Choices recorded earlier in the run (``Experiment.describe_choices``).
        weights: Initial weights of trainings (default: load and check those that ``config`` names).
        normalize: Normalization of the training images, if known (default: computed when first needed).
        listener: Receives messages about loading images.

    Raises:
        RequestError: The request is wrong, or its parts are inconsistent.
    """
    device, known = choose_device(config.hardware.device), family(config.model.name)
    if known.external:
        check_settings(config)
    space, precision = requested_space(config), _precision(config, device, choices)
    parallel = Parallel(**choices["parallel"]) if choices else Parallel(1, config.hardware.threads or cpu_threads())
    loaded = load_weights(config.model.weights) if weights is None and config.model.weights is not None else None
    if source is None:
        on_device = device.type == "cuda"  # then images are kept in device memory
        room = min(free_bytes(torch.device("cpu")), free_bytes(device)) // 4 if on_device else None
        source = load_requested(config, room, listener or Listener())
    experiment = Experiment(config, source, device, known, space, precision, parallel, weights or loaded)
    if choices:
        seconds, block = choices.get("seconds_per_step", {}), choices.get("block")
        experiment = replace(experiment, precision_seconds=seconds, recorded_block=block)
    if loaded is not None:
        _check_fit(experiment, loaded)
    if normalize is not None:
        vars(experiment)["normalize"] = normalize  # fills the cached property
    experiment.cost  # noqa: B018 (raises if the images are too small for the configurations)
    return experiment


def _precision(config: Config, device: torch.device, choices: dict[str, Any] | None) -> Precision:
    """Return the recorded or requested number format; the device's default if none is set or it is ``auto``."""
    if choices:
        return Precision.parse(choices["precision"])
    if config.hardware.precision in (None, AUTO):
        return device_precision(device)
    return Precision.parse(config.hardware.precision)


def _check_fit(experiment: Experiment, weights: Weights) -> None:
    """Raise RequestError if weights do not fit every network that starts from them."""
    config = experiment.config
    norms: dict[str, list[Norm]] = {"search": [sharing.NORMS[config.search.norm]], "retrain": [running_norm]}
    if config.search.proxy != 0:
        norms["search"].append(running_norm)
    for norm in [
        norm for weights_for in norms if config.starts_from_weights(weights_for) for norm in norms[weights_for]
    ]:
        load_into(experiment.build(norm, "weights", Streams(0)), weights)


# Frozen: only cached properties fill in later. They keep their values in vars(), where variants of an experiment copy them.
@dataclass(frozen=True, eq=False)
class Experiment:
    """Everything that search, ranking and stand-alone training share. Create one with ``resolve``.

    Attributes:
        config: The request.
        source: The data set.
        device, family, space: The device, the network family, and the configurations to choose from.
        precision: Number format and memory order of all training.
        parallel: Processes, and CPU threads of each, for stand-alone trainings.
        weights: Initial weights of trainings; None for random weights.
        supernets_reason: Reason for the number of SuperNets, if the request did not set it.
        precision_seconds: Seconds of a training step by number format, if measured.
        recorded_block: The block that the run started with, if it is resumed; None for a new run.
    """

    config: Config
    source: Source
    device: torch.device
    family: Family
    space: PoolingSpace
    precision: Precision
    parallel: Parallel
    weights: Weights | None = None
    supernets_reason: str | None = None
    precision_seconds: dict[str, float] = field(default_factory=dict)
    recorded_block: int | None = None
    _on_device: dict[int, tuple[ImageSet, Tensor | Packed, Tensor]] = field(default_factory=dict, repr=False)

    def with_settings(self, **changes: Any) -> Experiment:
        """Return this experiment with changed settings and the same images, weights and number format."""
        config = self.config.replace(**changes)
        varied = resolve(config, self.source, self.describe_choices(), weights=self.weights)
        varied = varied.with_choices(
            supernets_reason=self.supernets_reason, recorded_block=self.recorded_block, _on_device=self._on_device
        )
        if not {"images", "seed"} & set(changes):
            vars(varied).update({name: vars(self)[name] for name in _OF_IMAGES if name in vars(self)})
        return varied

    def with_choices(self, **choices: Any) -> Experiment:
        """Return this experiment with other values of fields on which no cached property depends.

        They are precision, parallel, supernets_reason, precision_seconds, recorded_block and _on_device.
        """
        varied = replace(self, **choices)
        cached = set(vars(self)) - set(vars(varied))
        vars(varied).update({name: vars(self)[name] for name in cached})
        return varied

    @property
    def default(self) -> Pooling:
        """The default configuration of the network family, as published."""
        return self.family.default

    @property
    def width(self) -> int | None:
        """Base number of channels; None for networks whose width cannot be set."""
        return self.config.model.width or self.family.width

    @cached_property
    def cost(self) -> CostModel:
        """Cost model of the configurations. Raises RequestError if the images are too small for them."""
        chain = self.build(batch_norm, "cost", Streams(self.config.seed))
        return CostModel(chain, self.source.image_size, self.default, most=self.space.poolings)

    @cached_property
    def training_images(self) -> ImageSet:
        """The training images of both halves: all of them, or as many as the ``images`` setting allows.

        A subset has the first images of each class in a fixed shuffled order that does not depend on the seed. Larger
        subsets contain smaller ones.
        """
        return self.in_use.train

    @cached_property
    def in_use(self) -> Source:
        """The data set with its training images reduced to ``training_images``."""
        train, count, scoring = self.source.train, self.config.data.images, self.source.scoring
        if count is None or count >= len(train):
            return self.source
        chosen = stratified_subset(train.labels, count, Streams(0)["images"])
        if scoring is not None:
            scoring = np.flatnonzero(np.isin(chosen, scoring))
        return replace(self.source, train=train.subset(chosen), scoring=scoring)

    @cached_property
    def halves(self) -> tuple[np.ndarray, np.ndarray]:
        """Sorted indices of the training half and the scoring half of the training images, which are disjoint.

        The split is stratified by class, or the one that the data set defines.
        """
        labels, scoring = self.training_images.labels, self.in_use.scoring
        if scoring is None:
            return stratified_halves(labels, 0.5, Streams(self.config.seed)["split"])
        training = np.setdiff1d(np.arange(len(labels)), scoring)
        if min(len(training), len(scoring)) < 2:
            raise RequestError(
                f"{len(labels)} images leave {len(training)} for training and {len(scoring)} for scoring: use more --images"
            )
        return training, scoring

    @cached_property
    def normalize(self) -> Normalize:
        """Normalization of images by the mean and deviation of the training images."""
        return Normalize.of(self.training_images.images)

    @property
    def augmentation(self) -> Augmentation:
        """Augmentation of training images. Raises RequestError if both the request and the data set have one."""
        requested, transform = self.config.data.augment, self.source.augment
        if transform is not None:
            if requested != settings()["augment"].default:
                raise RequestError(f"augment is {requested!r} and the data set has a transform: omit one of them")
            return PerImage(transform)
        flip = self.config.data.flip if self.config.data.flip is not None else self.source.flip
        return augmentation(requested, self.source.image_size, flip)

    def batches(self, data: ImageSet, batch_size: int, indices: np.ndarray | None = None) -> Batches:
        """Return batches of a set, or of its images at ``indices``. Each set is copied to the device once."""
        if id(data) not in self._on_device:
            self._on_device[id(data)] = (data, self._placed(data.images), self._placed(data.labels))
        _, images_NHWC, labels_N = self._on_device[id(data)]
        return Batches(images_NHWC, labels_N, indices, batch_size, self.normalize)

    def _placed(self, array: np.ndarray | Packed) -> Any:
        return array if isinstance(array, Packed) else to_tensor(array).to(self.device)

    def build(self, norm: Norm, name: str, streams: Streams, weights_for: str | None = None) -> Chain:
        """Build the network on the CPU with initial weights from the stream called ``name``.

        ``weights_for`` is ``search`` or ``retrain`` for trainings that may start from the requested weights.
        """
        arguments: dict[str, Any] = {"classes": len(self.source.classes), "width": self.width, "norm": norm}
        chain = create(self.family.build, streams.torch(name), **arguments)
        if weights_for and self.weights and self.config.starts_from_weights(weights_for):
            load_into(chain, self.weights)
        return chain

    def supernet(self, name: str, streams: Streams) -> SwitchableNet:
        """Build a SuperNet of the requested kind on the CPU, with initial weights as in ``build``."""
        return self._supernet(lambda norm: self.build(norm, name, streams, "search"))

    @cached_property
    def supernet_parameters(self) -> int:
        """Number of trainable parameters of one SuperNet, including all copies."""

        def build(norm: Norm) -> Chain:
            with torch.device("meta"):
                return self.family.build(classes=len(self.source.classes), width=self.width, norm=norm)

        return sum(parameter.numel() for parameter in self._supernet(build).parameters())

    def _supernet(self, build: Callable[[Norm], Chain]) -> SwitchableNet:
        return sharing.supernet(build, self.space, self.config.search.norm, self.config.search.sharing)

    def ranked_images(self, config: Config | None = None) -> int:
        """Return how many images ranking evaluates: the scoring half, plus images for recalibrating norms."""
        config, (training, scoring) = config or self.config, map(len, self.halves)
        extra = RECALIBRATION_BATCHES * config.ranking.eval_batch_size if config.search.norm == "recalibrated" else 0
        return scoring + min(extra, training)

    @cached_property
    def calibration_batches(self) -> Batches | None:
        """Fixed batches of the training half for recalibrating norms; None for other norms."""
        if self.config.search.norm != "recalibrated":
            return None
        size, half = self.config.ranking.eval_batch_size, self.halves[0]
        drawn = Streams(self.config.seed)["recalibration"].permutation(half)[: RECALIBRATION_BATCHES * size]
        return self.batches(self.training_images, size, self._mixed(np.sort(drawn)))

    def ranking_batches(self, turns: int | None = None) -> Batches:
        """Return the scoring half in the batches used for ranking, at least one for each turn.

        Args:
            turns: Number of turns that share the batches (default: ``config.ranking_turns``).
        """
        half, size = self._ranking_order, self.config.ranking.eval_batch_size
        turns = turns or self.config.ranking_turns
        if turns > 1:
            size = max(min(size, len(half) // turns), 2)
        return self.batches(self.training_images, size, half)

    @cached_property
    def _ranking_order(self) -> np.ndarray:
        """Indices of the scoring half in mixed order. Cached because every batch of a ranking needs them."""
        return self._mixed(self.halves[1])

    def _mixed(self, indices: np.ndarray) -> np.ndarray:
        """Return indices of training images in an order that mixes the classes in each batch."""
        return mixed(self.training_images.labels, indices, Streams(self.config.seed)["mixed"])

    @property
    def _epoch_batches(self) -> int:
        """Full batches in a pass over all training images, as in training."""
        images = len(self.training_images)
        return max(images // min(self.config.training.batch_size, images), 1)

    @property
    def retrain_steps(self) -> int:
        """Steps of a stand-alone training on all training images: as requested, or for the requested epochs."""
        return self.config.retrain.steps or self.config.retrain.epochs * self._epoch_batches

    @property
    def half_steps(self) -> int:
        """Steps of a stand-alone training on the training half, for as many epochs as retraining on all images."""
        half = len(self.halves[0])
        batches = half // min(self.config.training.batch_size, half)
        return max(round(self.retrain_steps * batches / self._epoch_batches), 1)

    @property
    def block(self) -> int:
        """Number of consecutive draws that use the same scores.

        The search synchronizes with CUDA once per block, and SuperNets in worker processes train in parallel within a
        block. A single SuperNet on a CPU does not benefit. A resumed run keeps the block that it started with, also on
        another device, since the draws depend on it.
        """
        many = 16 if self.device.type == "cuda" else 8 if self.config.search.parallel_supernets > 1 else 1
        return self.config.search.block or self.recorded_block or many

    def plain(self, pooling: Pooling) -> nn.Module:
        """Build the plain model of a configuration with fixed random weights, for measurements."""
        return plain_model(self.build(running_norm, "calibration", Streams(0)), pooling)

    def describe_choices(self) -> dict[str, Any]:
        """Return the choices made for this machine, for run.json and ``resolve``."""
        measured = {"seconds_per_step": self.precision_seconds} if self.precision_seconds else {}
        return {"precision": str(self.precision), **measured, "parallel": asdict(self.parallel), "block": self.block}

    def describe_weights(self) -> dict[str, Any]:
        """Return the record of the initial weights; empty for random weights."""
        if self.weights is None:
            return {}
        new = load_into(self.build(running_norm, "weights", Streams(0)), self.weights)
        record = {"from": self.weights.source, "sha256": self.weights.sha256, "for": self.config.model.weights_for}
        return {"weights": {**record, "anew": new}}

    def describe_data(self) -> dict[str, Any]:
        """Return the record of the images."""
        first, second = self.halves
        return {
            "name": self.source.name,
            "fingerprint": self.source.fingerprint(),
            "classes": list(self.source.classes),
            "image_size": self.source.image_size,
            "mean": self.normalize.mean.tolist(),
            "std": self.normalize.std.tolist(),
            "training_half": len(first),
            "scoring_half": len(second),
            "test": len(self.source.test),
            "note": self.source.note,
            **({"skipped": list(self.source.skipped)} if self.source.skipped else {}),
            **({"augment": named(self.source.augment)} if self.source.augment else {}),
        }

    def share(self, threads: int) -> Callable[[], Experiment]:
        """Return a picklable function that rebuilds this experiment in a worker process with ``threads`` CPU threads.

        The images in use and the initial weights are in shared memory.

        Raises:
            RequestError: The network or the transform cannot be pickled, or shared memory is too small.
        """
        config, source, network = self.config, self.in_use, networks.registered(self.config.model.name)
        if source.augment:
            check_sendable(source.augment, f"transform {named(source.augment)}")
        check_sendable(network, f"network {config.model.name}")
        weights = (replace(self.weights, tensors={}), self.weights.packed()) if self.weights else None
        return partial(
            _rebuild,
            config.replace(precision=str(self.precision), device=str(self.device), images=None, threads=threads),
            SharedSource.of(source, weights[1].numel() if weights else 0),
            self.normalize,
            network,
            weights,
        )


def _rebuild(
    config: Config, source: SharedSource, normalize: Normalize, network: Any, weights: tuple[Weights, Tensor] | None
) -> Experiment:
    """Rebuild a shared experiment in a worker process (see ``Experiment.share``)."""
    if network is not None:
        networks.backbone(config.model.name.removeprefix(networks.PREFIX), network)
    opened = weights and weights[0].opened(weights[1])
    return resolve(config, source.open(), weights=opened, normalize=normalize)  # normalization is not recomputed
