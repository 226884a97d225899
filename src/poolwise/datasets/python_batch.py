"""Read the official Python batches of CIFAR, which are pickles, without unpickling: no code in them is executed.

A pickle is a program for a stack machine; ``pickletools`` lists its instructions. Pixels, labels and class names are
constants that follow their keys, so the list of instructions is enough to read them.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator

import numpy as np

_IMAGE = 3 * 32 * 32
_KEYS = {b"data", b"labels", b"fine_labels", b"coarse_labels", b"batch_label", b"filenames"}
_KEYS |= {b"label_names", b"fine_label_names", b"coarse_label_names", b"num_cases_per_batch", b"num_vis"}
_INTS = ("BININT1", "BININT", "BININT2", "INT", "LONG1")


def _constants(data: bytes) -> Iterator[tuple[bytes, bytes | int]]:
    """Yield (key, constant) for each string or integer constant, with the last key before it."""
    key = b""
    for operation, argument, _ in pickletools.genops(data):
        if isinstance(argument, (str, bytes)) and operation.name != "GLOBAL":
            text = argument if isinstance(argument, bytes) else argument.encode("latin-1", "replace")
            if text in _KEYS:
                key = text
            else:
                yield key, text
        elif operation.name in _INTS and isinstance(argument, int):
            yield key, argument


def python_batch(data: bytes, labelled: bytes = b"labels", classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Return images_NHWC (uint8) and labels_N (uint8) of one batch.

    Args:
        data: content of the file.
        labelled: key of the labels.
        classes: number of classes.

    Raises:
        ValueError: the file is not a CIFAR batch or is damaged.
    """
    pixels, labels = b"", list[int]()
    for key, value in _constants(data):
        if key == b"data" and isinstance(value, bytes) and len(value) > len(pixels):
            pixels = value
        elif key == labelled and isinstance(value, int):
            labels.append(value)
    count = len(labels)
    if not count or len(pixels) != count * _IMAGE or not all(0 <= label < classes for label in labels):
        raise ValueError(f"{len(pixels)} bytes of pixels and {count} labels are not a CIFAR batch")
    images_NCHW = np.frombuffer(pixels, np.uint8).reshape(count, 3, 32, 32)
    return np.ascontiguousarray(images_NCHW.transpose(0, 2, 3, 1)), np.array(labels, np.uint8)


def class_names(data: bytes, named: bytes) -> tuple[str, ...]:
    """Return the class names under the key ``named``. Raises ValueError if there are none."""
    names = [value for key, value in _constants(data) if key == named and isinstance(value, bytes)]
    if not names:
        raise ValueError(f"it contains no {named.decode()}")
    return tuple(name.decode("ascii", "replace") for name in names)
