"""Decode one image file of any supported format to size x size RGB pixels."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
# other formats are rejected whatever the file name is: Pillow would pass PostScript to an external program
_FORMATS = ("PNG", "JPEG", "MPO", "BMP", "WEBP", "GIF", "TIFF", "PPM")
_SEE_THROUGH = ("RGBA", "RGBa", "LA", "La", "PA")
_WHITE_16 = 65535


class Unreadable(Exception):
    """Raised when an image cannot be read; the message is the reason."""


@contextmanager
def strict() -> Iterator[list[str]]:
    """Reject images above Pillow's pixel limit, instead of warning, within the context. Yields the supported formats.

    Enter it once around all calls of ``read``, in one thread, because warning filters are global to the process.
    """
    Image.init()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")  # about metadata; real errors are exceptions
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield [name for name in _FORMATS if name in Image.OPEN]


def read(file: Path, size: int, formats: list[str]) -> np.ndarray:
    """Decode the first frame of a file and resize it with ``fitted``. Raises Unreadable."""
    try:
        if os.path.getsize(file) == 0:
            raise Unreadable("the file is empty")
        with Image.open(file, formats=formats) as picture:
            return fitted(picture, size)
    except (Unreadable, MemoryError):
        raise
    except Image.UnidentifiedImageError:
        raise Unreadable(f"its format is none of {', '.join(formats)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Unreadable(f"it has more pixels than Pillow's limit of {Image.MAX_IMAGE_PIXELS}") from None
    except Exception as error:  # decoders can raise nearly anything on damaged bytes
        raise Unreadable(f"{error or type(error).__name__}") from None


def fitted(picture: Image.Image, size: int | None) -> np.ndarray:
    """Apply the EXIF orientation, convert to RGB, then resize and center-crop to ``size`` pixels (None: keep the size).

    Returns image_HWC, uint8.
    """
    upright = rgb(ImageOps.exif_transpose(picture))
    if size is not None:
        upright = ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(upright)


def rgb(picture: Image.Image) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB.

    16-bit values are scaled from their full range to the 8-bit range. Transparent pixels are blended with white.
    Raises Unreadable for pixel types whose white level is unknown (floating point, more than 16 bits).
    """
    if picture.mode == "F":
        raise Unreadable("its pixels are floating-point numbers with an unknown white level: save it with 8 or 16 bits")
    if picture.mode.startswith("I"):  # I;16 in any byte order; some Pillow versions open 16-bit images as I
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > _WHITE_16:
            raise Unreadable("its pixels exceed 16 bits and have an unknown white level: save it with 8 or 16 bits")
        picture = Image.fromarray(((values * 255 + _WHITE_16 // 2) // _WHITE_16).astype(np.uint8))
    if picture.mode in _SEE_THROUGH or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")
