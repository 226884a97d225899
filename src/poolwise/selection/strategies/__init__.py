"""Strategies that choose stand-alone trainings, as a practitioner would do without a SuperNet.

A strategy proposes a training (configuration, steps, seed) and receives its accuracy. It never sees the network. To add
a strategy, add one file to this folder with ``@register(...)`` in it.
"""

from poolwise.selection.strategies.base import STRATEGIES, Ask, End, Strategy, StrategyTask, available, create, register

__all__ = ["STRATEGIES", "Ask", "End", "Strategy", "StrategyTask", "available", "create", "register"]
