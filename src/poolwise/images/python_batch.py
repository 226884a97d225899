"""The official Python batches of CIFAR-10 are pickles. They are read here without unpickling: nothing in them is carried out.

The file is a program for a small machine; ``pickletools`` lists its instructions. Those that hold the pixels and the labels
are constants and stand after their names, so that the list alone is enough.
"""

from __future__ import annotations

import pickletools

import numpy as np

_IMAGE = 3 * 32 * 32
_NAMES = (b"data", b"labels", b"batch_label", b"filenames")
_INTS = ("BININT1", "BININT", "BININT2", "INT", "LONG1")


def python_batch(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """images_NHWC uint8 and labels_N uint8 of one batch.

    Raises ValueError where the file is none, or damaged.
    """
    name, pixels, labels = b"", b"", list[int]()
    for operation, argument, _ in pickletools.genops(data):
        if isinstance(argument, (str, bytes)) and operation.name != "GLOBAL":
            text = argument if isinstance(argument, bytes) else argument.encode("latin-1", "replace")
            if text in _NAMES:
                name = text
            elif name == b"data" and len(text) > len(pixels):
                pixels = text
        elif name == b"labels" and operation.name in _INTS and isinstance(argument, int):
            labels.append(argument)
    count = len(labels)
    if not count or len(pixels) != count * _IMAGE or not all(0 <= label < 10 for label in labels):
        raise ValueError(f"{len(pixels)} bytes of pixels and {count} labels are no batch of CIFAR-10")
    images_NCHW = np.frombuffer(pixels, np.uint8).reshape(count, 3, 32, 32)
    return np.ascontiguousarray(images_NCHW.transpose(0, 2, 3, 1)), np.array(labels, np.uint8)
