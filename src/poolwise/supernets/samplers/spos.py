"""Single path one-shot (Guo et al., ECCV 2020): one SuperNet, uniform and independent draws."""

from __future__ import annotations

from poolwise.supernets.samplers.base import Sampler
from poolwise.supernets.samplers.draws import Independent
from poolwise.supernets.samplers.registry import register
from poolwise.supernets.samplers.task import Task


@register("spos", summary="single path one-shot: one SuperNet, uniform and independent draws")
class SinglePath(Sampler):
    """Draw every configuration uniformly and independently. ``Task.draw`` is ignored.

    Guo, Zhang, Mu, Heng, Liu, Wei, Sun, *Single Path One-Shot Neural Architecture Search with Uniform Sampling*,
    ECCV 2020.
    """

    single = True

    def __init__(self, task: Task):
        super().__init__(task)
        self._draw = Independent(self.space.size, task.draws)

    def _draw_configuration(self) -> int:
        return self._draw.next()
