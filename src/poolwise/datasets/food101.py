"""Food101 in its official layout: ``images/CLASS/ID.jpg``, and ``meta/train.txt`` and ``test.txt`` with lines CLASS/ID.

It is not downloaded, because it is 5 GB and its host does not offer TLS.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from poolwise.datasets import folder, official
from poolwise.datasets.decoding import Reading
from poolwise.datasets.sources import Source
from poolwise.datasets.tree import Listing, Walker
from poolwise.errors import RequestError

_NAME = re.compile(r"[\w-]+", re.ASCII)  # class or image name; excludes path traversal


def load(reading: Reading) -> Source:
    """Load Food101 from torchvision's folder. Raises RequestError if it is missing or incomplete."""
    root = official.root()
    if not (root / "food-101" / "images").is_dir():
        raise RequestError(
            f"food101 is not in {root}: put torchvision's folder food-101 there"
            f" (torchvision.datasets.Food101({str(root)!r}, download=True) downloads it), or set POOLWISE_TORCHVISION_DATA to"
            " the folder that contains it"
        )
    return read(root / "food-101", reading)


def read(root: Path, reading: Reading) -> Source:
    """Load the data set from a folder in the official layout. Raises RequestError if files are missing or damaged."""
    lines = {part: _lines(root / "meta" / f"{part}.txt") for part in ("train", "test")}
    classes = tuple(sorted({line.split("/")[0] for line in lines["train"]}))
    label = {name: i for i, name in enumerate(classes)}
    images = Walker(root / "images", follow=False)
    there = {name for one in images.folders(root / "images") for name in images.images(root / "images" / one)}
    listing, missing = Listing(root / "images"), []
    for part in ("train", "test"):
        for line in lines[part]:
            name = os.path.join(*line.split("/")) + ".jpg"
            if line.split("/")[0] not in label:
                raise RequestError(
                    f"{root / 'meta' / 'test.txt'} contains {line!r}, whose class is missing in train.txt"
                )
            if name not in there:
                missing.append(name)
            listing.names.append(name)
            listing.labels.append(label[line.split("/")[0]])
            listing.parts.append(part)
    if missing:
        raise RequestError(
            f"food101 in {root} lacks {len(missing)} of {len(listing)} images, for example {missing[0]!r}: extract it again"
        )
    return folder.read("food101", listing, classes, reading, 0, "test")


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="ascii").split()
    except (OSError, ValueError) as error:
        raise RequestError(f"food101: {path} cannot be read ({error}): extract it again") from error
    for line in lines:
        parts = line.split("/")
        if len(parts) != 2 or not all(_NAME.fullmatch(part) for part in parts):
            raise RequestError(f"food101: {path} contains {line[:60]!r}, but each line must be CLASS/ID")
    if not lines:
        raise RequestError(f"food101: {path} is empty: extract it again")
    return lines
