"""Convert a user's ``torch.utils.data.Dataset`` to a Source: every item is read once and stored as uint8."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset

from poolwise.datasets import picture
from poolwise.datasets.decoding import Reading, cannot_write, check_disk
from poolwise.datasets.packed import Packed, store
from poolwise.datasets.sources import HELD_OUT, ImageSet, Source
from poolwise.datasets.split import check_counts, stratified_halves
from poolwise.errors import PoolwiseError, RequestError
from poolwise.rng import Streams
from poolwise.storage import cache_folder

_WHAT = (
    "an item must be (image, label): a PIL image, a uint8 tensor CHW, a uint8 array HWC or a float tensor CHW in 0 to 1, and"
    " an integer of at least 0"
)


def dataset(
    train: Any,
    test: Any = None,
    *,
    image_size: int | None = None,
    name: str = "dataset",
    classes: Sequence[str] | None = None,
    flip: bool = True,
    augment: Callable[[Any], Any] | None = None,
    stream: str = "auto",
    seed: int = 0,
) -> Source:
    """Convert map-style data sets to a Source, which ``search`` and the other functions accept as ``source``.

    Args:
        train, test: data sets of (image, label). An image is a PIL image of any mode, a uint8 tensor_CHW or array_HWC,
            or a float tensor_CHW in 0 to 1, with 1, 3 or 4 channels; a label is an integer from 0. If ``test`` is None,
            a stratified fifth of ``train`` is held out. Each item is read once: put random transforms in ``augment``.
        image_size: pixels along one side to resize and crop to (None: all images must be square and of one size).
        name: name of the data set.
        classes: names of the classes (None: the ``classes`` attribute of ``train``, or the label numbers).
        flip: whether a mirrored image keeps its class.
        augment: see ``Source.augment``.
        stream: ``on`` (pixels on disk), ``off`` (in memory), ``auto``.
        seed: determines which images are held out.

    Raises:
        RequestError: an item is of another type or shape; the message names the item.
    """
    if stream not in ("auto", "on", "off"):
        raise RequestError(f"unknown stream {stream!r}: use auto, on or off")
    training = _read("train", train, image_size, None, stream)
    named = _classes(train, classes, int(training.labels.max()) + 1)
    check_counts(training.labels, named, 2 if test is not None else 3)
    size, note = int(training.images.shape[1]), ""
    if test is None:
        held_out, kept = stratified_halves(training.labels, HELD_OUT, Streams(seed)["test"])
        note = f"{len(held_out)} of {len(training)} images, stratified by class, are held out as the test set"
        training, testing = training.subset(kept), training.subset(held_out)
    else:
        testing = _read("test", test, image_size, size, stream)
    if testing.labels.max() >= len(named):
        raise RequestError(
            f"test has the label {testing.labels.max()}, but train has {len(named)} classes: number the classes from 0"
        )
    return Source(name, training, testing, named, flip, note, augment=augment)


def _classes(train: Any, names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    data: Any = train
    while names is None and data is not None:  # torch's Subset keeps the original data set in .dataset
        names, data = getattr(data, "classes", None), getattr(data, "dataset", None)
    named = tuple(map(str, names)) if names is not None else tuple(map(str, range(count)))
    if len(named) < count:
        raise RequestError(
            f"the label {count - 1} occurs, but there are {len(named)} classes: number the classes from 0"
        )
    if len(named) < 2:
        raise RequestError("the data set has one class: at least two are needed")
    return named


def _read(part: str, items: Any, size: int | None, expected: int | None, stream: str) -> ImageSet:
    """Read all items of one part. Without ``size``, images must be ``expected`` pixels square, or of one size."""
    count = _length(part, items)
    labels = np.empty(count, np.int64)
    first, _ = _item(part, items, 0, size)
    if first.shape[0] != first.shape[1] or expected not in (None, first.shape[0], size):
        wanted = f"{expected} pixels square, as in train" if expected else "square"
        raise RequestError(
            f"image 0 of {part} is {first.shape[1]} x {first.shape[0]} pixels and must be {wanted}: set image_size"
        )

    def images() -> Iterator[np.ndarray]:
        for i in range(count):
            image_HWC, labels[i] = _item(part, items, i, size)
            if image_HWC.shape != first.shape:
                raise RequestError(
                    f"image {i} of {part} is {image_HWC.shape[1]} x {image_HWC.shape[0]} pixels and image 0 is"
                    f" {first.shape[1]} x {first.shape[0]}: set image_size"
                )
            yield image_HWC

    if Reading(first.shape[0], stream).streams(count * first.size):
        return ImageSet(_stored(images(), count, first.shape), labels)
    held_NHWC = np.empty((count, *first.shape), np.uint8)
    for i, image_HWC in enumerate(images()):
        held_NHWC[i] = image_HWC
    return ImageSet(held_NHWC, labels)


def _stored(images: Iterator[np.ndarray], count: int, shape: tuple[int, ...]) -> Packed:
    """Store images in a file of the cache whose name is the hash of its content."""
    folder = cache_folder() / "images"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_disk(folder, count * int(np.prod(shape)), count, shape[0])
        with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as temporary:
            made = Path(temporary) / "new.rgb"
            path = folder / f"dataset-{store(images, made)[:32]}.rgb"
            os.replace(made, path)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return Packed(path, (shape[0], shape[1], shape[2]), np.arange(count))


def _length(part: str, items: Any) -> int:
    if isinstance(items, DataLoader):
        raise RequestError(f"{part} is a DataLoader: pass its data set, loader.dataset")
    if isinstance(items, IterableDataset):
        raise RequestError(f"{part} is an IterableDataset, which has no random access: pass a map-style data set")
    if not hasattr(items, "__getitem__") or not hasattr(items, "__len__"):
        raise RequestError(f"{part} is a {type(items).__name__}: pass a torch.utils.data.Dataset with a length")
    if len(items) < 2:
        raise RequestError(f"{part} has {len(items)} items: at least two per class are needed")
    return len(items)


def _item(part: str, items: Any, i: int, size: int | None) -> tuple[np.ndarray, int]:
    """Return image_HWC (uint8, RGB) and label of one item."""
    try:
        item = items[i]
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise picture.Unreadable(f"is {type(item).__name__}")
        return _pixels(item[0], size), _label(item[1])
    except PoolwiseError:
        raise
    except picture.Unreadable as error:
        raise RequestError(f"item {i} of {part} {error}: {_WHAT}") from None
    except Exception as error:  # the user's code can raise anything
        raise RequestError(f"item {i} of {part} raised {type(error).__name__}: {error}") from error


def _label(label: Any) -> int:
    if isinstance(label, (torch.Tensor, np.ndarray)) and label.ndim == 0:
        label = label.item()
    if isinstance(label, bool) or not isinstance(label, (int, np.integer)) or label < 0:
        raise picture.Unreadable(f"has the label {label!r}")
    return int(label)


def _pixels(image: Any, size: int | None) -> np.ndarray:
    return picture.fitted(image if isinstance(image, Image.Image) else _from_array(image), size)


def _from_array(image: Any) -> Image.Image:
    if isinstance(image, torch.Tensor):
        if image.is_floating_point():
            if not bool(((image >= 0) & (image <= 1)).all()):
                raise picture.Unreadable("has values outside 0 to 1; remove the normalization")
            image = (image * 255).round().to(torch.uint8)
        array = image.permute(1, 2, 0).cpu().numpy() if image.ndim == 3 else image.cpu().numpy()
    else:
        array = image
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
        raise picture.Unreadable(f"has an image of {getattr(array, 'dtype', type(image).__name__)}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise picture.Unreadable(f"has an image of shape {tuple(image.shape)}")
    return Image.fromarray(np.ascontiguousarray(array))
