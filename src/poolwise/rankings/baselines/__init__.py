"""Baselines: rankings that need no training. A search is worth its compute only if it ranks better than these.

Every baseline returns scores_P, one score per configuration in the order of the space; higher is predicted to be better.
"""

from poolwise.rankings.baselines.counted import COUNTED, counted
from poolwise.rankings.baselines.hints import HINTS, hints
from poolwise.rankings.baselines.untrained import UNTRAINED, untrained

__all__ = ["COUNTED", "HINTS", "UNTRAINED", "counted", "hints", "untrained"]
