"""SWAP: the number of different sample-wise activation patterns."""

from __future__ import annotations

import numpy as np

from poolwise.rankings.baselines.zero_cost.base import Draw, register, relu_codes
from poolwise.spaces import Pooling

_WORD = 64  # bits of an integer that holds a pattern


@register("swap", summary="number of different activation patterns over images", passes=1, images=32)
def swap(draw: Draw, pooling: Pooling) -> float:
    """Return the SWAP-Score: the number of different patterns, one pattern for each ReLU activation of the network.

    The pattern of an activation (a channel at a pixel) has one bit for each image: whether it is above zero. NASWOT
    compares the states of all activations between images; SWAP compares the states for all images between activations.
    Source: Peng et al., "SWAP-NAS: Sample-Wise Activation Patterns for Ultra-Fast NAS" (ICLR 2024), SWAP-Score.

    Choices: all ReLU and ReLU6 modules count, and the patterns of all of them are counted together. With many images
    almost every pattern is unique and the score becomes the number of activations, so a draw has 32 images. The
    regularized score multiplies by a bell-shaped function of the number of parameters. All configurations have equally
    many, so it ranks them as the plain score does, and is left out.

    Raises:
        RequestError: The network has no ReLU module.
    """
    codes_BA = np.concatenate([code.cpu().numpy() for code in relu_codes("swap", draw, pooling)], axis=1)
    return float(unique_patterns(codes_BA))


def unique_patterns(codes_BA: np.ndarray) -> int:
    """Return the number of different columns of a boolean array."""
    bits = -len(codes_BA) % _WORD
    padded_BA = np.concatenate([codes_BA, np.zeros((bits, codes_BA.shape[1]), bool)])
    words_AW = np.ascontiguousarray(np.packbits(padded_BA, axis=0).T).view(np.uint64)
    return len(np.unique(words_AW[:, 0]) if words_AW.shape[1] == 1 else np.unique(words_AW, axis=0))
