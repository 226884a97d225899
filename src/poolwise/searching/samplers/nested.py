"""Two levels of sharing: one SuperNet for all configurations, the others for small parts of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from poolwise.metrics import signal
from poolwise.searching.samplers.base import Sampler, Task
from poolwise.searching.samplers.draws import DRAWS
from poolwise.searching.samplers.registry import register
from poolwise.space import Pooling

CYCLE = 3  # of so many rounds the last is trained on the SuperNet of all
SCORED = 4  # of so many rounds one is scored, for the curves and the leaders: draws do not depend on scores
SMALL = 1000  # configurations; of larger spaces what is ranked is chosen by scores, and every step is scored
LOOK = 25  # steps of each configuration's own SuperNet after which its scores have to say something
FEWEST = 8  # configurations, below which hardly any agreement is more than chance
LEAST = 50  # steps of a part's SuperNet, below which its scores are noise (docs/results.md)


@register("nested", summary="one SuperNet for all configurations and one for each small part of them; both score")
class Nested(Sampler):
    """Every configuration trains on the first SuperNet in a third of the rounds and on its part's in the others.

    Sharing is precise and biased: a configuration is as good on common weights as others made them. Alone it is the other way
    round: unbiased, but a few steps of its own say little. So the errors of the two have little in common, and a ranking by
    both is better than either. Parts are M - 1 pieces of equal size of the space in its order, that of the first pooling, then
    the next ones; with M - 1 = P, or more, each is one configuration, which then shares nothing. Ours.

    Whether own steps are enough shows on the way: where own scores are noise after LOOK steps of each (``metrics.signal``), all
    that is left goes to the shared SuperNet.
    """

    both = True

    def __init__(self, task: Task):
        super().__init__(task)
        self._draw = DRAWS[task.draw](self.space.size, task.draws)
        self._parts = min(self.supernets - 1, self.space.size)
        self._drawn = 0
        self._given_up = False

    @classmethod
    def supernets_for(cls, steps: int, configurations: int, most: int) -> tuple[int, str]:
        own = steps * (CYCLE - 1) // CYCLE
        told = f"{own} of {steps} steps are {own // configurations} for each of {configurations} configurations"
        if own < LEAST * configurations:
            return 1, f"{told}, and {LEAST} are needed"
        if most <= configurations:
            return 1, f"memory is enough for {most}, and each of {configurations} configurations needs its own"
        return 1 + configurations, told

    @classmethod
    def scored_one_in(cls, configurations: int) -> int:
        return SCORED if configurations <= SMALL else 1

    @property
    def scored(self) -> bool:
        return self._drawn // self.space.size % self.scored_one_in(self.space.size) == 0

    def group(self, a: int) -> int:
        """SuperNet of the part of configuration ``a``."""
        return 1 + a * self._parts // self.space.size if self._parts else 0

    def _own_turn(self) -> bool:
        """The round that the next configuration is drawn in is trained on the SuperNets of parts."""
        return not self._given_up and (self._drawn // self.space.size + 1) % CYCLE != 0

    @property
    def again(self) -> bool:
        """All parts train on the same images in a round, and began with the same weights: what differs is the configuration."""
        rounds = self.task.draw == "rounds" and self._parts > 0
        return rounds and self._own_turn() and self._drawn % self.space.size > 0

    def _choose(self) -> tuple[int, int]:
        a = self._draw.next()
        if self.task.draw == "rounds":
            own = self._own_turn()
        else:
            own = not self._given_up and self.task.assigns.random() >= 1 / CYCLE
        self._drawn += 1
        return a, self.group(a) if own else 0

    @property
    def look(self) -> int:
        apart = self._parts == self.space.size >= FEWEST
        return LOOK * CYCLE // (CYCLE - 1) * self.space.size if apart else 0

    def looked(self, accuracy_TP: np.ndarray) -> None:
        """Give the own SuperNets up where their scores are noise."""
        shared_P, own_P = accuracy_TP
        found = signal(list(self.space), own_P, shared_P)
        self._given_up = not found.found
        on = f"{self.supernets} SuperNets train on" if found.found else "they are noise, and one SuperNet trains on"
        self.remark = f"scores on own weights after {LOOK} steps of each: {found}; {on}"

    def _assignment(self, indices: Sequence[int]) -> np.ndarray:
        if self._given_up:
            return np.eye(self.supernets)[[0] * len(indices)]
        own_NM = np.eye(self.supernets)[[self.group(a) for a in indices]]
        return (np.eye(self.supernets)[[0] * len(indices)] + (CYCLE - 1) * own_NM) / CYCLE

    def judges_of(self, poolings: Sequence[Pooling], rank_on: str) -> tuple[np.ndarray, np.ndarray]:
        if self.supernets == 1 or self._given_up:
            return super().judges_of(poolings, "assigned")
        own_N = [self.group(self.space.index(pooling)) for pooling in poolings]
        return np.array([[0] * len(own_N), own_N], np.int64), np.full((2, len(own_N)), 0.5)

    def _own_state(self) -> dict[str, Any]:
        return {
            "draw": self._draw.state(),
            "drawn": self._drawn,
            "given_up": self._given_up,
            "remark": self.remark,
        }

    def _restore_own(self, state: dict[str, Any]) -> None:
        self._draw.restore(state["draw"])
        self._drawn = int(state["drawn"])
        self._given_up, self.remark = bool(state["given_up"]), state["remark"]
