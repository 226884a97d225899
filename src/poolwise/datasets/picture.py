"""One image file, of whatever kind, as size x size pixels of RGB; or why it cannot be read."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
# others stay closed whatever a file is called: PostScript, for one, would be handed to another program
_FORMATS = ("PNG", "JPEG", "MPO", "BMP", "WEBP", "GIF", "TIFF", "PPM")
_SEE_THROUGH = ("RGBA", "RGBa", "LA", "La", "PA")
_WHITE_16 = 65535


class Unreadable(Exception):
    """An image that cannot be read; the message is the reason."""


@contextmanager
def strict() -> Iterator[list[str]]:
    """Inside, an image above Pillow's limit of pixels is refused, not warned of; yields the formats that are read.

    To be entered once around many ``read``, in one thread: filters of warnings belong to the whole process.
    """
    Image.init()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")  # of metadata; what matters is raised
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield [name for name in _FORMATS if name in Image.OPEN]


def read(file: Path, size: int, formats: list[str]) -> np.ndarray:
    """The first frame of a file as ``fitted`` does it. Raises Unreadable."""
    try:
        if os.path.getsize(file) == 0:
            raise Unreadable("the file is empty")
        with Image.open(file, formats=formats) as picture:
            return fitted(picture, size)
    except (Unreadable, MemoryError):
        raise
    except Image.UnidentifiedImageError:
        raise Unreadable(f"it is none of {', '.join(formats)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Unreadable(f"it has more pixels than Pillow's limit of {Image.MAX_IMAGE_PIXELS}") from None
    except Exception as error:  # damaged bytes make decoders raise nearly anything
        raise Unreadable(f"{error or type(error).__name__}") from None


def fitted(picture: Image.Image, size: int | None) -> np.ndarray:
    """A picture upright, in RGB, its shorter side resized to ``size`` pixels and its centre cut out (None: as it is)."""
    upright = rgb(ImageOps.exif_transpose(picture))
    if size is not None:
        upright = ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(upright)


def rgb(picture: Image.Image) -> Image.Image:
    """A picture of any mode in 8 bits of RGB.

    16 bits are scaled, the whole range to the whole range, the same for every image. What shines through is white.
    Raises Unreadable for numbers of which no one can tell what is white.
    """
    if picture.mode == "F":
        raise Unreadable("its pixels are floating-point numbers and which is white is unknown: save it in 8 or 16 bits")
    if picture.mode.startswith("I"):  # I;16 and its byte orders; I is what some versions of Pillow make of 16 bits
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > _WHITE_16:
            raise Unreadable(
                "its pixels do not fit into 16 bits and which is white is unknown: save it in 8 or 16 bits"
            )
        picture = Image.fromarray(((values * 255 + _WHITE_16 // 2) // _WHITE_16).astype(np.uint8))
    if picture.mode in _SEE_THROUGH or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")
