"""Samplers choose the next configuration and SuperNet. Each method is one file, which the registry discovers."""

from poolwise.supernets.samplers.base import Sampler
from poolwise.supernets.samplers.registry import available, left_open, sampler, settled
from poolwise.supernets.samplers.task import OutOfTurn, Survey, Surveys, Task

__all__ = ["OutOfTurn", "Sampler", "Survey", "Surveys", "Task", "available", "left_open", "sampler", "settled"]
