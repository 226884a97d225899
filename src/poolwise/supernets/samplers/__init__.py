"""Who is trained next. One method a file; the interface is in ``base``; the registry finds the files by itself."""

from poolwise.supernets.samplers.base import OutOfTurn, Sampler, Task
from poolwise.supernets.samplers.registry import available, left_open, sampler, settled

__all__ = ["OutOfTurn", "Sampler", "Task", "available", "left_open", "sampler", "settled"]
