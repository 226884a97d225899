"""``folder:PATH``: one subfolder a class, or ``train`` and ``test`` (or ``val``) folders of such subfolders.

Images are turned upright, resized so that the shorter side fits, cropped to the centre and held in memory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from poolwise.errors import RequestError
from poolwise.images.sources import ImageSet, Source
from poolwise.images.split import stratified_halves
from poolwise.rng import Streams

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
HELD_OUT = 0.2
_MAX_BYTES = 8 * 2**30


def load(path: Path, image_size: int, seed: int) -> Source:
    """Read the folder. Raises RequestError where it is missing, empty, of one class, or holds a broken image."""
    if not path.is_dir():
        raise RequestError(f"folder {str(path)!r} does not exist: give one with a subfolder of images for each class")
    parts = {name: path / name for name in ("train", "test", "val") if (path / name).is_dir()}
    test_folder = parts.get("test") or parts.get("val")
    if "train" in parts and test_folder is not None:
        classes = _classes(parts["train"])
        return Source(
            f"folder:{path}",
            _read(parts["train"], classes, image_size),
            _read(test_folder, classes, image_size),
            classes,
            note=f"the folder's own {test_folder.name} part is the test set",
        )
    classes = _classes(path)
    if "train" in {name.lower() for name in classes}:
        raise RequestError(
            f"folder {str(path)!r} holds {', '.join(map(repr, classes))}: with a 'train' part a 'test' or 'val' part is"
            " needed beside it, spelt so; otherwise one subfolder a class"
        )
    everything = _read(path, classes, image_size)
    held_out, kept = stratified_halves(everything.labels, HELD_OUT, Streams(seed)["test"])
    note = f"{len(held_out)} of {len(everything)} images, drawn by class, are held out as the test set"
    return Source(f"folder:{path}", everything.subset(kept), everything.subset(held_out), classes, note=note)


def _classes(path: Path) -> tuple[str, ...]:
    names = tuple(sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")))
    if not names:
        raise RequestError(f"folder {str(path)!r} has no subfolders: one for each class is needed, with images in it")
    if len(names) == 1:
        raise RequestError(f"folder {str(path)!r} holds the one class {names[0]!r}: at least two are needed")
    return names


def _read(path: Path, classes: tuple[str, ...], image_size: int) -> ImageSet:
    files = []
    for label, name in enumerate(classes):
        found = sorted(f for f in (path / name).rglob("*") if f.suffix.lower() in ENDINGS and f.is_file())
        if not found:
            raise RequestError(f"folder {str(path / name)!r} holds no images: {', '.join(sorted(ENDINGS))} are read")
        files += [(file, label) for file in found]
    if len(files) * image_size**2 * 3 > _MAX_BYTES:
        raise RequestError(
            f"{len(files)} images of {image_size} pixels do not fit into {_MAX_BYTES >> 30} GiB: choose a smaller --image-size"
        )
    images = np.empty((len(files), image_size, image_size, 3), np.uint8)
    for i, (file, _) in enumerate(files):
        images[i] = _picture(file, image_size)
    return ImageSet(images, np.array([label for _, label in files], np.int64))


def _picture(file: Path, image_size: int) -> np.ndarray:
    try:
        with Image.open(file) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
            return np.asarray(ImageOps.fit(upright, (image_size, image_size), Image.Resampling.BILINEAR))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RequestError(f"image {str(file)!r} cannot be read ({error}): repair or remove it") from error
