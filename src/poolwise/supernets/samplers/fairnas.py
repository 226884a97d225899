"""Strict fairness (Chu et al., ICCV 2021): one SuperNet, every configuration once per round."""

from __future__ import annotations

from typing import Any

from poolwise.supernets.samplers.base import Sampler
from poolwise.supernets.samplers.draws import Rounds
from poolwise.supernets.samplers.registry import register
from poolwise.supernets.samplers.task import Task


@register("fairnas", summary="strict fairness: one SuperNet, every configuration once per round")
class StrictFairness(Sampler):
    """Train every configuration once before any is repeated. ``Task.draw`` is ignored.

    Chu, Zhang, Xu, *FairNAS: Rethinking Evaluation Fairness of Weight Sharing Neural Architecture Search*, ICCV 2021,
    adapted to this space. In the paper, a round visits every operation of every layer once and takes one optimizer step
    with the summed gradients. Here a round visits every configuration once and takes one step for each.
    """

    single = True

    def __init__(self, task: Task):
        super().__init__(task)
        self._draw = Rounds(self.space.size, task.draws)

    @property
    def in_rounds(self) -> bool:
        return True

    def _draw_configuration(self) -> int:
        return self._draw.next()

    def _extra_state(self) -> dict[str, Any]:
        return {"draw": self._draw.state()}

    def _restore_extra(self, state: dict[str, Any]) -> None:
        self._draw.restore(state["draw"])
