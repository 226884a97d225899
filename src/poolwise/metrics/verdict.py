"""A configuration against the default, paired by seed. Accuracies are shares (0 to 1); differences are told in points (x 100)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Comparison:
    """A configuration against the default, paired by seed.

    Attributes:
        difference, deviation: mean and standard deviation of the paired differences in points.
        interval: 95 % t-interval of the mean difference in points, None for fewer than two seeds.
        verdict: ``gain``, ``loss`` or ``no gain shown``.
    """

    n: int
    difference: float
    deviation: float | None
    interval: tuple[float, float] | None
    verdict: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare_paired(candidate: Sequence[float], default: Sequence[float]) -> Comparison:
    """Compare accuracies that were measured with the same seeds in the same order."""
    assert len(candidate) == len(default) > 0, "paired accuracies of one length are needed"
    points = 100 * (np.asarray(candidate, float) - np.asarray(default, float))
    n, mean = len(points), float(points.mean())
    if n < 2:
        return Comparison(n, mean, None, None, "no gain shown")
    deviation = float(points.std(ddof=1))
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * deviation / n**0.5
    low, high = mean - half, mean + half
    shown = deviation > 0  # equal differences of a few seeds are a coincidence, not certainty
    verdict = "gain" if shown and low > 0 else "loss" if shown and high < 0 else "no gain shown"
    return Comparison(n, mean, deviation, (low, high), verdict)


def sentence(pooling: str, default: str, comparison: Comparison, macs_ratio: float) -> str:
    """The verdict in one sentence that does not overstate."""
    head = f"{pooling} against the default {default}: {comparison.difference:+.2f} points"
    if comparison.interval is None:
        told = f"{head} on one seed, which shows nothing; retrain with more seeds"
    else:
        low, high = comparison.interval
        between = f"(95 % interval {low:+.2f} to {high:+.2f}, {comparison.n} paired seeds)"
        words = {"gain": "a gain", "loss": "a loss", "no gain shown": "no gain shown"}[comparison.verdict]
        told = f"{head} {between}: {words}"
    return f"{told}. {cost_words(macs_ratio, gain=comparison.verdict == 'gain')}."


def cost_words(macs_ratio: float, gain: bool = False) -> str:
    """What the configuration costs beside the default."""
    if abs(macs_ratio - 1) < 0.005:
        return "It costs the same number of MACs"
    change = "so it is cheaper" if macs_ratio < 1 else "and the cost grew with it" if gain else "so it costs more"
    return f"It takes {macs_ratio:.2f} times the default's MACs, {change}"
