"""Compare a configuration with the default, paired by seed.

Accuracies are fractions (0 to 1); differences are in points (x 100). Verdicts:

- *better*: the interval of the mean difference is above 0.
- *no worse*: the interval is above minus the margin, so any loss does not matter.
- *worse*: the interval is below 0, and not entirely above minus the margin.
- *not shown*: none of these.

If seeds are added until the comparison is decided, every look is a chance of error. Each look then uses a wider
interval, at the confidence that limits the total error over all looks to 5 % (Pocock, "Group sequential methods",
Biometrika 1977, with t instead of the normal; ``level`` computes it by simulating the looks under no difference).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
MARGIN = 0.2  # points
MOST_SEEDS = 1000  # maximum number of seeds considered when predicting how many are needed
_PLAYED = 200_000


@dataclass(frozen=True)
class Comparison:
    """Comparison of a configuration with the default, paired by seed.

    Attributes:
        n: Number of paired seeds.
        difference, deviation: Mean and standard deviation of the paired differences in points.
        interval: t-interval of the mean difference in points; None for fewer than two seeds.
        confidence: Confidence of the interval: 0.95 for one look, higher for several.
        margin: Points below which a difference does not matter.
        verdict: ``better``, ``no worse``, ``not shown`` or ``worse``.
        more: Additional seeds needed until ``decided`` (0 if it is), assuming the same difference and deviation; None
            if unknown or if the total exceeds MOST_SEEDS.
    """

    n: int
    difference: float
    deviation: float | None
    interval: tuple[float, float] | None
    confidence: float
    margin: float
    verdict: str
    more: int | None

    @property
    def decided(self) -> bool:
        """Whether more seeds would not change the verdict: better, worse, or equal within the margin."""
        return self.more == 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare_paired(
    candidate: Sequence[float],
    default: Sequence[float],
    margin: float = MARGIN,
    looks: tuple[int, int] | None = None,
) -> Comparison:
    """Compare accuracies measured with the same seeds in the same order.

    Args:
        candidate: Accuracies of the configuration.
        default: Accuracies of the default.
        margin: Points below which a difference does not matter.
        looks: First and last number of seeds, if the comparison is repeated after every seed; None for a single look.
    """
    assert len(candidate) == len(default) > 0, "paired accuracies must have the same length"
    points = 100 * (np.asarray(candidate, float) - np.asarray(default, float))
    n, mean = len(points), float(points.mean())
    confidence = CONFIDENCE if looks is None else level(*looks)
    if n < 2:
        return Comparison(n, mean, None, None, confidence, margin, "not shown", None)
    deviation = float(points.std(ddof=1))
    half = _half(n, deviation, confidence)
    # identical differences over a few seeds are a coincidence, not certainty
    verdict = _word(mean, half, margin) if deviation > 0 else "not shown"
    more = _more(n, mean, deviation, confidence, margin) if deviation > 0 else None
    return Comparison(n, mean, deviation, (mean - half, mean + half), confidence, margin, verdict, more)


def _half(n: int, deviation: float, confidence: float) -> float:
    return float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * deviation / n**0.5


def _word(mean: float, half: float, margin: float) -> str:
    if mean - half > 0:
        return "better"
    if mean - half > -margin:
        return "no worse"
    return "worse" if mean + half < 0 else "not shown"


def _settled(mean: float, half: float, margin: float) -> bool:
    equal = mean - half > -margin and mean + half < margin
    return equal or _word(mean, half, margin) in ("better", "worse")


def _more(n: int, mean: float, deviation: float, confidence: float, margin: float) -> int | None:
    for count in range(n, MOST_SEEDS + 1):
        if _settled(mean, _half(count, deviation, confidence), margin):
            return count - n
    return None


@lru_cache
def level(first: int, last: int) -> float:
    """Return the confidence of the interval at each look, with looks from ``first`` (at least 2) to ``last`` seeds.

    With normally distributed differences of mean 0, at least one interval excludes 0 in 5 % of all cases, accurate to
    0.1 %. It is computed as the 5 % quantile of the smallest p-value over 200,000 simulated paths.
    """
    assert 2 <= first <= last, "each look needs at least two seeds"
    if first == last:
        return CONFIDENCE
    generator = np.random.default_rng(0)
    drawn = generator.standard_normal((_PLAYED, last))
    total, squares = drawn.cumsum(1), (drawn**2).cumsum(1)
    smallest = np.ones(_PLAYED)
    for n in range(first, last + 1):
        mean = total[:, n - 1] / n
        deviation = np.sqrt((squares[:, n - 1] - n * mean**2) / (n - 1))
        p = 2 * stats.t.sf(np.abs(mean) / deviation * n**0.5, n - 1)
        smallest = np.minimum(smallest, p)
    return 1 - float(np.quantile(smallest, 1 - CONFIDENCE))


def sentence(pooling: str, default: str, comparison: Comparison, macs_ratio: float) -> str:
    """Return the verdict as one sentence that does not overstate it."""
    head = f"{pooling} against the default {default}: {comparison.difference:+.2f} points"
    if comparison.interval is None:
        return f"{head} with one seed, which is no evidence; retrain with more seeds. {cost_words(macs_ratio)}."
    low, high = comparison.interval
    words = {
        "better": "better",
        "no worse": f"at most {comparison.margin:g} points worse, no gain shown",
        "worse": "worse",
        "not shown": "no difference shown",
    }[comparison.verdict]
    between = f"({100 * comparison.confidence:.3g} % interval {low:+.2f} to {high:+.2f}, {comparison.n} paired seeds)"
    text = f"{head} {between}: {words}"
    if not comparison.decided:
        more = "thousands" if comparison.more is None else f"about {comparison.more}"
        text += f"; {more} more seeds would decide it if difference and noise stay the same"
    return f"{text}. {cost_words(macs_ratio, better=comparison.verdict == 'better')}."


def cost_words(macs_ratio: float, better: bool = False) -> str:
    """Describe the MACs of the configuration relative to the default."""
    if abs(macs_ratio - 1) < 0.005:
        return "It needs the same number of MACs"
    change = "so it is cheaper" if macs_ratio < 1 else "so the gain has a cost" if better else "so it is more expensive"
    return f"It needs {macs_ratio:.2f} times the MACs of the default, {change}"
