"""Methods that see nothing but stand-alone trainings: what a practitioner would do instead of training a SuperNet.

Each asks for a training (which configuration, how long, which seed) and is told its accuracy. None knows a network. A
new method is one file in this folder with ``@register(...)`` in it.
"""

from poolwise.selection.strategies.base import STRATEGIES, Ask, Method, Task, available, create, register

__all__ = ["STRATEGIES", "Ask", "Method", "Task", "available", "create", "register"]
