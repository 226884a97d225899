"""What a run is about: a network family and its space, images and their split, a device and what it does fastest."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import nn

from poolwise import calibration
from poolwise.images.augment import Augmentation, Normalise
from poolwise.images.batches import Batches
from poolwise.images.sources import ImageSet, Source, load
from poolwise.images.split import stratified_halves, stratified_subset
from poolwise.networks import family
from poolwise.networks.chain import Chain, Norm, batch_norm, create, running_norm
from poolwise.networks.cost import CostModel
from poolwise.networks.switch import export
from poolwise.rng import Streams
from poolwise.settings import Settings
from poolwise.training import Precision, choose_device


class Problem:
    """Everything that search, ranking and stand-alone training have in common.

    Args:
        settings: the request.
        source: a loaded data set; by default the one that the settings name.
        precision: what an earlier part of the run chose; by default it is measured when first needed.
    """

    def __init__(self, settings: Settings, source: Source | None = None, precision: str | None = None):
        self.settings = settings
        self.device = choose_device(settings.device)
        self.family = family(settings.model)
        self.width = settings.width or self.family.width
        self.space, self.default = self.family.space, self.family.default
        self._precision = precision or settings.precision
        if self._precision != "auto":
            Precision.parse(self._precision)
        self.source = source or load(settings.data, image_size=settings.image_size, seed=settings.seed)
        self.cost = CostModel(
            self.build(batch_norm, "cost", Streams(settings.seed)), self.source.image_size, self.default
        )

    @cached_property
    def training_images(self) -> ImageSet:
        """The full training set: both halves, or the part of it that ``images`` allows.

        That part is the first images of each class in one fixed shuffled order, whatever the seed: runs with other seeds
        see the same images, and fewer images are a part of more.
        """
        train, count = self.source.train, self.settings.images
        if count is None or count >= len(train):
            return train
        return train.subset(stratified_subset(train.labels, count, Streams(0)["images"]))

    @cached_property
    def halves(self) -> tuple[ImageSet, ImageSet]:
        """Training half and scoring half, disjoint and stratified."""
        images = self.training_images
        first, second = stratified_halves(images.labels, 0.5, Streams(self.settings.seed)["split"])
        return images.subset(first), images.subset(second)

    @cached_property
    def normalise(self) -> Normalise:
        return Normalise(self.training_images.images)

    @property
    def augmentation(self) -> Augmentation:
        flip = self.settings.flip if self.settings.flip is not None else self.source.flip
        return Augmentation(pad=max(self.source.image_size // 8, 1), flip=flip)

    def batches(self, data: ImageSet, batch_size: int) -> Batches:
        return Batches(data, batch_size, self.normalise, self.device)

    def build(self, norm: Norm, name: str, streams: Streams) -> Chain:
        """The network on the CPU with initial weights from the stream called ``name``."""
        arguments: dict[str, Any] = {"classes": len(self.source.classes), "width": self.width, "norm": norm}
        return create(self.family.build, streams.torch(name), **arguments)

    @property
    def search_steps(self) -> int:
        half = len(self.halves[0])
        return self.settings.steps or self.settings.epochs * max(half // min(self.settings.batch_size, half), 1)

    @property
    def retrain_steps(self) -> int:
        images = len(self.training_images)
        return self.settings.retrain_steps or self.settings.retrain_epochs * max(
            images // min(self.settings.batch_size, images), 1
        )

    @property
    def threads(self) -> int:
        """CPU threads of each process."""
        return self.settings.threads or torch.get_num_threads()

    @property
    def workers(self) -> int:
        """Processes at once."""
        return self.settings.workers or 1

    @cached_property
    def calibration(self) -> calibration.Choice:
        """Precision and time of a training step of the default configuration, measured once and cached."""
        half = self.batches(self.halves[0], self.settings.batch_size)
        images_BCHW, labels_B = next(half.ordered())
        what = {
            "model": self.settings.model,
            "width": self.width,
            "shape": list(images_BCHW.shape),
            "classes": len(self.source.classes),
        }
        build: Callable[[], nn.Module] = lambda: export(  # noqa: E731
            self.build(running_norm, "calibration", Streams(0)), self.default
        )
        return calibration.choose(build, images_BCHW, labels_B, what, self._precision)

    @property
    def precision(self) -> Precision:
        if self._precision != "auto":
            return Precision.parse(self._precision)
        return self.calibration.precision

    def describe_data(self) -> dict[str, Any]:
        """What is recorded about the images."""
        first, second = self.halves
        return {
            "name": self.source.name,
            "fingerprint": self.source.fingerprint(),
            "classes": list(self.source.classes),
            "image_size": self.source.image_size,
            "training_half": len(first),
            "scoring_half": len(second),
            "test": len(self.source.test),
            "note": self.source.note,
        }
