"""Baselines: rankings that need no training. A search is worth its compute only if it ranks better than these.

Every baseline returns scores_P, one score per configuration in the order of the space; higher is predicted to be better.
"""

from poolwise.rankings.baselines.counted import COUNTED, counted, refined
from poolwise.rankings.baselines.hints import HINTS, Hints, hint_names, hints
from poolwise.rankings.baselines.stochastic_order import stochastic_order
from poolwise.rankings.baselines.untrained import ORDER, draw_scores, untrained, zero_cost_names

__all__ = [
    "COUNTED",
    "HINTS",
    "ORDER",
    "Hints",
    "counted",
    "draw_scores",
    "hint_names",
    "hints",
    "refined",
    "stochastic_order",
    "untrained",
    "zero_cost_names",
]
