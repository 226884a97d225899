"""Controls: rankings that need no training. A search is worth its compute where it says more than these.

Every control gives scores_P, one for each configuration in the order of the space; higher is predicted to be better.
"""

from poolwise.rankings.baselines.counted import COUNTED, counted
from poolwise.rankings.baselines.hints import HINTS, hints
from poolwise.rankings.baselines.untrained import UNTRAINED, untrained

__all__ = ["COUNTED", "HINTS", "UNTRAINED", "counted", "hints", "untrained"]
