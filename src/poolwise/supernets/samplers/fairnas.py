"""Strict fairness (Chu et al., ICCV 2021): one SuperNet, every configuration once a round."""

from __future__ import annotations

from typing import Any

from poolwise.supernets.samplers.base import Sampler, Task
from poolwise.supernets.samplers.draws import Rounds
from poolwise.supernets.samplers.registry import register


@register("fairnas", summary="strict fairness: one SuperNet, every configuration once a round")
class StrictFairness(Sampler):
    """Every configuration is trained once before any a second time, whatever ``draw`` says.

    Chu, Zhang, Xu, *FairNAS: Rethinking Evaluation Fairness of Weight Sharing Neural Architecture Search*, ICCV 2021,
    as adapted to this space: there, a round visits every operation of every layer once and makes one optimizer step of
    the summed gradients; here the choice is the whole configuration, and each makes a step of its own.
    """

    single = True

    def __init__(self, task: Task):
        super().__init__(task)
        self._draw = Rounds(self.space.size, task.draws)

    def _draw_configuration(self) -> int:
        return self._draw.next()

    def _own_state(self) -> dict[str, Any]:
        return {"draw": self._draw.state()}

    def _restore_own(self, state: dict[str, Any]) -> None:
        self._draw.restore(state["draw"])
