"""A configuration against the default, paired by seed. Accuracies are shares (0 to 1); differences are told in points (x 100).

Four words. *better*: the interval of the mean difference lies above zero. *worse*: below zero, and not only by less than
the margin. *no worse*: it lies above minus the margin, so whatever is lost does not matter. *not shown*: none of these.

Where seeds are added until it is decided, every look is a chance to be wrong. Each look then has a wider interval, of the
confidence that leaves 5 % over all looks together (Pocock, "Group sequential methods", Biometrika 1977, with t in place of
the normal: ``level`` finds it by playing the looks under no difference).
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
MOST_SEEDS = 1000  # beyond which it is no longer told how many would settle it
_PLAYED = 200_000


@dataclass(frozen=True)
class Comparison:
    """A configuration against the default, paired by seed.

    Attributes:
        difference, deviation: mean and standard deviation of the paired differences in points.
        interval: t-interval of the mean difference in points, None for fewer than two seeds.
        confidence: of the interval; 0.95 for one look, more for each of several.
        margin: points below which a difference does not matter.
        verdict: ``better``, ``no worse``, ``not shown`` or ``worse``.
        more: seeds that would have to be added until it is ``decided``, if difference and deviation stay as they are; 0 where
            it is, None where that cannot be told or takes over MOST_SEEDS.
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
        """More seeds would not change the word: it is better, it is worse, or both differ by less than the margin."""
        return self.more == 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare_paired(
    candidate: Sequence[float],
    default: Sequence[float],
    margin: float = MARGIN,
    looks: tuple[int, int] | None = None,
) -> Comparison:
    """Compare accuracies that were measured with the same seeds in the same order.

    ``looks`` says that one looks after every seed from the first number to the second; None for one look, now.
    """
    assert len(candidate) == len(default) > 0, "paired accuracies of one length are needed"
    points = 100 * (np.asarray(candidate, float) - np.asarray(default, float))
    n, mean = len(points), float(points.mean())
    confidence = CONFIDENCE if looks is None else level(*looks)
    if n < 2:
        return Comparison(n, mean, None, None, confidence, margin, "not shown", None)
    deviation = float(points.std(ddof=1))
    half = _half(n, deviation, confidence)
    # equal differences of a few seeds are a coincidence, not certainty
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
    """Confidence of the interval at each look, where one looks after every seed from ``first`` (at least 2) to ``last``.

    Under no difference, normal differences leave such an interval at one look or more in 5 % of all cases, to a tenth of a
    percent: the 5 % quantile of the smallest p-value on 200,000 paths.
    """
    assert 2 <= first <= last, "a look needs two seeds"
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
    """The verdict in one sentence that does not overstate."""
    head = f"{pooling} against the default {default}: {comparison.difference:+.2f} points"
    if comparison.interval is None:
        return f"{head} on one seed, which shows nothing; retrain with more seeds. {cost_words(macs_ratio)}."
    low, high = comparison.interval
    words = {
        "better": "better",
        "no worse": f"no worse than by {comparison.margin:g} points, a gain not shown",
        "worse": "worse",
        "not shown": "no difference shown",
    }[comparison.verdict]
    between = f"({100 * comparison.confidence:.3g} % interval {low:+.2f} to {high:+.2f}, {comparison.n} paired seeds)"
    told = f"{head} {between}: {words}"
    if not comparison.decided:
        more = "thousands" if comparison.more is None else f"about {comparison.more}"
        told += f"; {more} more seeds would settle it, if difference and noise stay as they are"
    return f"{told}. {cost_words(macs_ratio, better=comparison.verdict == 'better')}."


def cost_words(macs_ratio: float, better: bool = False) -> str:
    """What the configuration costs beside the default."""
    if abs(macs_ratio - 1) < 0.005:
        return "It costs the same number of MACs"
    change = "so it is cheaper" if macs_ratio < 1 else "and the cost grew with it" if better else "so it costs more"
    return f"It takes {macs_ratio:.2f} times the default's MACs, {change}"
