"""What a run is about: a network family and its space, images and their split, a device and what it does fastest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from poolwise import calibration
from poolwise.calibration import Choice, Parallel, Timing, cpu_threads
from poolwise.errors import RequestError
from poolwise.images.augment import Augmentation, Normalise, PerImage, augmentation, named, to_tensor
from poolwise.images.batches import Batches, Shuffled
from poolwise.images.loading import load
from poolwise.images.packed import Packed
from poolwise.images.shared_memory import SharedSource
from poolwise.images.sources import ImageSet, Source
from poolwise.images.split import mixed, stratified_halves, stratified_subset
from poolwise.networks import family, others, variants
from poolwise.networks.chain import Chain, Norm, batch_norm, create, running_norm
from poolwise.networks.cost import CostModel
from poolwise.networks.switch import SwitchableNet, plain_model
from poolwise.networks.weights import Weights, begin
from poolwise.networks.weights import load as load_weights
from poolwise.networks.whole import check_settings
from poolwise.rng import Streams
from poolwise.settings import Settings
from poolwise.space import Pooling, PoolingSpace, Subspace, subset
from poolwise.training import Precision, choose_device, count_correct, device_precision
from poolwise.training.workers import check_sendable

_WALKED = 36  # configurations that the time of ranking is measured on
_WALKED_MACS = 4e11  # about a second of 2 cores
RECALIBRATION_BATCHES = 8  # of ``eval_batch_size`` images each


def space_asked(settings: Settings) -> PoolingSpace:
    """Where a request chooses: placements of the numbers asked for, or what was drawn of them, or what limits left."""
    known = family(settings.model)
    space = known.over(settings.poolings)
    if settings.only is not None:
        return Subspace.of(space, sorted({*settings.only, str(known.default)}))
    if settings.max_configs is not None:
        return subset(space, settings.max_configs, Streams(settings.seed)["subset"], [known.default])
    return space


class Experiment:
    """Everything that search, ranking and stand-alone training have in common.

    Args:
        settings: the request.
        source: a loaded data set; by default the one that the settings name.
        chosen: what an earlier part of the run measured and chose (``describe_choices``); by default it is measured
            when first needed.
        weights: what trainings begin with; by default read, and checked, where the settings ask for some.
    """

    def __init__(
        self,
        settings: Settings,
        source: Source | None = None,
        chosen: dict[str, Any] | None = None,
        weights: Weights | None = None,
    ):
        self.settings = settings
        self.why: str | None = None  # the number of SuperNets, where it was decided for the user
        self._on_device: dict[int, tuple[ImageSet, Tensor | Packed, Tensor]] = {}
        self.device = choose_device(settings.device)
        self.family = family(settings.model)
        if self.family.whole:
            check_settings(settings)
        self.width = settings.width or self.family.width
        self.space, self.default = space_asked(settings), self.family.default
        self._precision = chosen["precision"] if chosen else settings.precision or str(device_precision(self.device))
        self.parallel = Parallel(**chosen["parallel"]) if chosen else Parallel(1, settings.threads or cpu_threads())
        if self._precision != "auto":
            Precision.parse(self._precision)
        self.source = source or self._loaded()
        self.weights = weights or self._weights()
        self.cost = CostModel(
            self.build(batch_norm, "cost", Streams(settings.seed)),
            self.source.image_size,
            self.default,
            most=self.space.poolings,
        )

    def _loaded(self) -> Source:
        asked, room = self.settings, None
        if self.device.type == "cuda":  # images in memory lie on the device
            room = min(psutil.virtual_memory().available, torch.cuda.mem_get_info(self.device)[0]) // 4
        return load(
            asked.data,
            image_size=asked.image_size,
            seed=asked.seed,
            stream=asked.stream,
            cache_images=asked.cache_images,
            skip_broken=asked.skip_broken,
            follow_links=asked.follow_links,
            room=room,
        )

    @cached_property
    def training_images(self) -> ImageSet:
        """The full training set: both halves, or the part of it that ``images`` allows.

        That part is the first images of each class in one fixed shuffled order, whatever the seed: runs with other seeds
        see the same images, and fewer images are a part of more.
        """
        return self.in_use.train

    @cached_property
    def in_use(self) -> Source:
        """The data set with no other training images than ``training_images``."""
        train, count, scoring = self.source.train, self.settings.images, self.source.scoring
        if count is None or count >= len(train):
            return self.source
        chosen = stratified_subset(train.labels, count, Streams(0)["images"])
        if scoring is not None:
            scoring = np.flatnonzero(np.isin(chosen, scoring))
        return replace(self.source, train=train.subset(chosen), scoring=scoring)

    @cached_property
    def halves(self) -> tuple[np.ndarray, np.ndarray]:
        """Training half and scoring half of the training images, disjoint, as sorted indices.

        They are drawn by class, or are what the data set itself sets apart for scoring, and the rest.
        """
        labels, scoring = self.training_images.labels, self.in_use.scoring
        if scoring is None:
            return stratified_halves(labels, 0.5, Streams(self.settings.seed)["split"])
        training = np.setdiff1d(np.arange(len(labels)), scoring)
        if min(len(training), len(scoring)) < 2:
            raise RequestError(
                f"{len(labels)} images leave {len(training)} of the training and {len(scoring)} of the val part: use more"
                " --images"
            )
        return training, scoring

    @cached_property
    def normalise(self) -> Normalise:
        return Normalise.of(self.training_images.images)

    @property
    def augmentation(self) -> Augmentation:
        asked, own = self.settings.augment, self.source.augment
        if own is not None:
            if asked != Settings.augment:
                raise RequestError(
                    f"augment is {asked!r} and the data set brings its own transform: leave one of them out"
                )
            return PerImage(own)
        flip = self.settings.flip if self.settings.flip is not None else self.source.flip
        return augmentation(asked, self.source.image_size, flip)

    def batches(self, data: ImageSet, batch_size: int, indices: np.ndarray | None = None) -> Batches:
        """Batches of a set, or of its images at ``indices``; a set is brought to the device once."""
        if id(data) not in self._on_device:
            self._on_device[id(data)] = (data, self._placed(data.images), self._placed(data.labels))
        _, images_NHWC, labels_N = self._on_device[id(data)]
        return Batches(images_NHWC, labels_N, indices, batch_size, self.normalise)

    def _placed(self, array: np.ndarray | Packed) -> Any:
        return array if isinstance(array, Packed) else to_tensor(array).to(self.device)

    def _weights(self) -> Weights | None:
        """What the settings name, read; RequestError unless it fits all networks that are to begin with it."""
        if self.settings.weights is None:
            return None
        found = load_weights(self.settings.weights)
        norms: dict[str, list[Norm]] = {"search": [variants.NORMS[self.settings.norm]], "retrain": [running_norm]}
        if self.settings.short != 0:
            norms["search"].append(running_norm)
        for norm in [norm for what, own in norms.items() if self.settings.begins(what) for norm in own]:
            begin(self.build(norm, "weights", Streams(0)), found)
        return found

    def build(self, norm: Norm, name: str, streams: Streams, what: str | None = None) -> Chain:
        """The network on the CPU with initial weights from the stream called ``name``.

        ``what`` is ``search`` or ``retrain`` for trainings that may begin with the given weights.
        """
        arguments: dict[str, Any] = {"classes": len(self.source.classes), "width": self.width, "norm": norm}
        chain = create(self.family.build, streams.torch(name), **arguments)
        if what and self.weights and self.settings.begins(what):
            begin(chain, self.weights)
        return chain

    def supernet(self, name: str, streams: Streams) -> SwitchableNet:
        """A SuperNet of the kind that the settings ask for, on the CPU, initial weights as in ``build``."""
        return self._varied(lambda norm: self.build(norm, name, streams, "search"))

    @cached_property
    def supernet_parameters(self) -> int:
        """Trainable numbers of one SuperNet, all copies counted."""

        def build(norm: Norm) -> Chain:
            with torch.device("meta"):
                return self.family.build(classes=len(self.source.classes), width=self.width, norm=norm)

        return sum(parameter.numel() for parameter in self._varied(build).parameters())

    def _varied(self, build: Callable[[Norm], Chain]) -> SwitchableNet:
        return variants.supernet(build, self.space, self.settings.norm, self.settings.sharing)

    def ranked_images(self, settings: Settings | None = None) -> int:
        """Images that ranking runs every configuration on: the scoring half, and what norms are recalibrated on."""
        settings, (training, scoring) = settings or self.settings, map(len, self.halves)
        again = RECALIBRATION_BATCHES * settings.eval_batch_size if settings.norm == "recalibrated" else 0
        return scoring + min(again, training)

    @cached_property
    def calibration_batches(self) -> Batches | None:
        """Images of the training half, drawn once, that recalibrated norms are averaged over; None for other norms."""
        if self.settings.norm != "recalibrated":
            return None
        size, half = self.settings.eval_batch_size, self.halves[0]
        drawn = Streams(self.settings.seed)["recalibration"].permutation(half)[: RECALIBRATION_BATCHES * size]
        return self.batches(self.training_images, size, self._mixed(np.sort(drawn)))

    def ranking_batches(self, turns: int | None = None) -> Batches:
        """The scoring half in the batches that ranking goes through; at least one for each of the turns that share them out.

        ``turns`` are by default as many as the settings allow.
        """
        half, size = self._ranking_order, self.settings.eval_batch_size
        turns = turns or self.settings.ranking_rotation
        if turns > 1:
            size = max(min(size, len(half) // turns), 2)
        return self.batches(self.training_images, size, half)

    @cached_property
    def _ranking_order(self) -> np.ndarray:
        """The scoring half; kept, since every batch of a ranking asks for it."""
        return self._mixed(self.halves[1])

    def _mixed(self, indices: np.ndarray) -> np.ndarray:
        """Places among the training images in an order in which batches hold all classes."""
        return mixed(self.training_images.labels, indices, Streams(self.settings.seed)["mixed"])

    @property
    def retrain_steps(self) -> int:
        images = len(self.training_images)
        return self.settings.retrain_steps or self.settings.retrain_epochs * max(
            images // min(self.settings.batch_size, images), 1
        )

    @property
    def half_steps(self) -> int:
        """Steps of a stand-alone training on the training half: as many epochs as a retraining has on all images."""
        images, half = len(self.training_images), len(self.halves[0])
        batch = min(self.settings.batch_size, half)
        whole = images // min(self.settings.batch_size, images)  # batches in an epoch, as training counts them
        return max(round(self.retrain_steps * (half // batch) / whole), 1)

    @property
    def block(self) -> int:
        """Steps that are drawn with the same scores.

        On CUDA the device is waited for once a block, and SuperNets in worker processes work side by side within one;
        a single SuperNet on a CPU gains nothing by it.
        """
        many = 16 if self.device.type == "cuda" else 8 if self.settings.side_by_side > 1 else 1
        return self.settings.block or many

    def calibration_batch(self) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """One training batch, and what a measurement with it depends on."""
        half = self.batches(self.training_images, self.settings.batch_size, self.halves[0])
        images_BHWC, labels_B = half.take(np.arange(half.batch_size))
        images_BCHW = half.normalise(images_BHWC)
        what = {
            "model": self.settings.model,
            "width": self.width,
            "shape": list(images_BCHW.shape),
            "classes": len(self.source.classes),
        }
        return images_BCHW, labels_B, what

    def plain(self, pooling: Pooling) -> nn.Module:
        """A configuration as it is trained stand-alone, with the same arbitrary weights each time, for measurements."""
        return plain_model(self.build(running_norm, "calibration", Streams(0)), pooling)

    @cached_property
    def calibration(self) -> Choice:
        """Precision and time of a training step of the default configuration, measured once and cached."""
        return calibration.choose(lambda: self.plain(self.default), *self.calibration_batch(), self._precision)

    @cached_property
    def timing(self) -> Timing:
        """What steps and passes cost by MACs, measured once and cached on the cheapest, default and dearest configuration."""
        images_BCHW, labels_B, what = self.calibration_batch()
        members = sorted(
            {self.space[0], self.default, self.space[self.space.size - 1]}, key=lambda p: self.cost(p).macs
        )
        networks = [(self.cost(p).macs, partial(self.plain, p)) for p in members]
        half, batch = self.halves[0], self.settings.batch_size
        order = Streams(0).child("calibration")
        batches = self.batches(self.training_images, batch, half)
        training = Shuffled(batches, order["order"], (self.augmentation, order["augment"]))
        scoring = Shuffled(batches, order["score_order"])
        load = lambda: (training.next(), scoring.next())  # noqa: E731
        return calibration.timing(networks, images_BCHW, labels_B, self.precision, load, self._walked(), what)

    def _walked(self) -> tuple[float, Callable[[], Callable[[], Any]]]:
        """Multiply-adds of a piece of the ranking (some configurations on part of a batch), and a maker of what does it."""
        size = self.space.size
        poolings = [self.space[size * i // min(size, _WALKED)] for i in range(min(size, _WALKED))]
        macs = self.cost.prefix_macs(poolings)
        half = self.halves[1]
        count = max(min(self.settings.eval_batch_size, len(half), int(_WALKED_MACS / macs)), 2)

        def prepare() -> Callable[[], Any]:
            images_BHWC, labels_B = self.batches(self.training_images, count, half).take(np.arange(count))
            network = self.supernet("calibration", Streams(0))
            self.precision.place(network, self.device)
            return partial(count_correct, network, poolings, self.normalise(images_BHWC), labels_B, self.precision)

        return float(count * macs), prepare

    def describe_choices(self) -> dict[str, Any]:
        """What was measured and chosen, for run.json."""
        return {**self.calibration.to_json(), "parallel": asdict(self.parallel), "block": self.block}

    @property
    def precision(self) -> Precision:
        if self._precision != "auto":
            return Precision.parse(self._precision)
        return self.calibration.precision

    def describe_weights(self) -> dict[str, Any]:
        """What is recorded about the weights that trainings begin with; nothing where there are none."""
        if self.weights is None:
            return {}
        anew = begin(self.build(running_norm, "weights", Streams(0)), self.weights)
        told = {"from": self.weights.told, "sha256": self.weights.sha256, "for": self.settings.weights_for}
        return {"weights": {**told, "anew": anew}}

    def describe_data(self) -> dict[str, Any]:
        """What is recorded about the images."""
        first, second = self.halves
        return {
            "name": self.source.name,
            "fingerprint": self.source.fingerprint(),
            "classes": list(self.source.classes),
            "image_size": self.source.image_size,
            "mean": self.normalise.mean.tolist(),
            "std": self.normalise.std.tolist(),
            "training_half": len(first),
            "scoring_half": len(second),
            "test": len(self.source.test),
            "note": self.source.note,
            **({"skipped": list(self.source.skipped)} if self.source.skipped else {}),
            **({"augment": named(self.source.augment)} if self.source.augment else {}),
        }

    def share(self, threads: int) -> Callable[[], Experiment]:
        """Return a picklable function that rebuilds this experiment in a worker process on so many CPU threads.

        The images in use and the initial weights lie in shared memory.

        Raises:
            RequestError: the network or the transform cannot be sent to another process, or shared memory is too small.
        """
        settings, source, network = self.settings, self.in_use, others.given(self.settings.model)
        if source.augment:
            check_sendable(source.augment, f"transform {named(source.augment)}")
        check_sendable(network, f"network {settings.model}")
        weights = (replace(self.weights, tensors={}), self.weights.packed()) if self.weights else None
        return partial(
            _rebuild,
            replace(settings, precision=str(self.precision), device=str(self.device), images=None, threads=threads),
            SharedSource.of(source, weights[1].numel() if weights else 0),
            self.normalise,
            network,
            weights,
        )


def _rebuild(
    settings: Settings,
    source: SharedSource,
    normalise: Normalise,
    network: Any,
    weights: tuple[Weights, Tensor] | None,
) -> Experiment:
    """Return the experiment of ``Experiment.share``, in the worker process."""
    if network is not None:
        others.backbone(settings.model.removeprefix(others.OWN), network)
    opened = weights and weights[0].opened(weights[1])
    experiment = Experiment(settings, source.open(), weights=opened)
    experiment.normalise = normalise  # so that no worker goes through all images
    return experiment
