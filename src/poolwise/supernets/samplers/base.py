"""The interface of every sampler: ask for a configuration and its SuperNet, train them, tell the accuracy.

Legend: N configurations that are asked about, M SuperNets.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from poolwise.errors import RequestError
from poolwise.spaces import Pooling, PoolingSpace
from poolwise.supernets import assignment as soft
from poolwise.supernets.samplers.scores import Scores

STEPS_PER_SUPERNET = 2000  # with fewer steps the assignment is decided by chance (docs/algorithm.md)
_USUAL = 4  # SuperNets of the published recipe


class OutOfTurn(RuntimeError):
    """A mistake of the program that calls: every ``tell`` answers the earliest ``ask`` that has no answer yet."""


@dataclass(frozen=True)
class Task:
    """What every sampler is built from.

    Attributes:
        space: configurations.
        supernets: M that was asked for; methods with one SuperNet train one.
        steps: length of the search, over which the temperature rises.
        temperature: start and end.
        draw: ``rounds`` visits every configuration once before any a second time; ``iid`` draws independently.
        draws, assigns: generators of the configuration and of the SuperNet.
        warm_up: share of the steps (0 to 1) that draw uniformly first, in methods that otherwise prefer; with several
            SuperNets, share of the steps that the first one trains alone before all others begin as copies of it.
        grows: begin with one SuperNet and ``double`` when told to, up to ``supernets``.
    """

    space: PoolingSpace
    supernets: int
    steps: int
    temperature: tuple[float, float]
    draw: str
    draws: np.random.Generator
    assigns: np.random.Generator
    warm_up: float = 0.0
    grows: bool = False


class Sampler:
    """Decides which configuration trains on which SuperNet. Knows no network.

    Scores (moving averages of scoring accuracy, from 1) are kept for visited configurations only, so a space of 10^6
    members costs what is visited. A method defines ``_draw_configuration``, with several SuperNets ``_draw_supernet`` and
    ``_assignment``, and, where it needs them, ``_learn``, ``_own_state`` and ``_restore_own``.

    Attributes:
        name, about: what ``--method`` takes, and one line on it; the registry sets both.
        single: the method trains one SuperNet.
        prefers: configurations are not drawn equally often, so steps may cost more, or less, than the mean of the space.
        warms_up: the method knows ``warm_up``, by itself or by having several SuperNets.
        doubles: the method can ``double``.
        supernets, most: M, the SuperNets in use, and how many there can be.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    single: ClassVar[bool] = False
    prefers: ClassVar[bool] = False
    warms_up: ClassVar[bool] = False
    doubles: ClassVar[bool] = False

    def __init__(self, task: Task):
        self.task, self.space = task, task.space
        self.most = self.supernets_used(task.supernets)
        self.supernets = 1 if task.grows else self.most
        self.table = Scores(self.space.size, self.supernets)
        self._step = 0
        self._asked: deque[tuple[int, int]] = deque()  # without an answer yet

    @classmethod
    def supernets_used(cls, asked: int) -> int:
        """How many SuperNets the method trains where ``asked`` are asked for."""
        return 1 if cls.single else asked

    @classmethod
    def supernets_for(cls, steps: int, configurations: int, most: int) -> tuple[int, str]:
        """M for a search of so many steps, at most ``most``, and why."""
        count = max(min(steps // STEPS_PER_SUPERNET, _USUAL, most, configurations // 2), 1)
        return cls.supernets_used(count), f"{steps} steps, and a SuperNet should have {STEPS_PER_SUPERNET}"

    @property
    def temperature(self) -> float:
        """T of the next step."""
        return soft.temperature(self._step, self.task.steps, *self.task.temperature)

    @property
    def warming(self) -> bool:
        """The next step belongs to the uniform start."""
        return self._step < self.task.warm_up * self.task.steps

    @property
    def branch(self) -> int:
        """Number of steps after which all SuperNets go on as copies of the first, which trained alone; 0 for never."""
        return math.ceil(self.task.warm_up * self.task.steps) if self.supernets > 1 else 0

    @property
    def alone(self) -> bool:
        """The next step belongs to the first of several SuperNets, whatever the assignment."""
        return self.supernets > 1 and self.warming

    @property
    def can_double(self) -> bool:
        """There may be twice as many SuperNets."""
        return self.task.grows and 2 * self.supernets <= self.most

    def double(self) -> None:
        """Every SuperNet m is two from here on, m and M + m, with the same scores and equal shares."""
        self.supernets *= 2
        self.table.double()

    def lengthen(self, steps: int) -> None:
        """The search is ``steps`` long, more or fewer than was said before."""
        self.task = replace(self.task, steps=steps)

    def ask(self) -> tuple[Pooling, int]:
        """Draw the next configuration and its SuperNet: steps 1 and 2 of the method.

        A block of asks without tells between them sees the same scores.
        """
        a = self._draw_configuration()
        m = 0 if self.alone else self._draw_supernet(a)
        self._asked.append((a, m))
        return self.space[a], m

    def tell(self, pooling: Pooling, supernet: int, accuracy: float) -> None:
        """Scoring accuracy (0 to 1) after the training step of the earliest open ``ask``. Raises OutOfTurn for another."""
        if not self._asked or (self.space[self._asked[0][0]], self._asked[0][1]) != (pooling, supernet):
            raise OutOfTurn(f"tell: {pooling} on SuperNet {supernet} is not what the earliest open ask returned")
        a, m = self._asked.popleft()
        self.table.update(a, m, accuracy)
        self._learn(a, m, accuracy)
        self._step += 1
        if self._step == self.branch:
            self.table.branch()

    def supernet_of(self, poolings: Sequence[Pooling]) -> np.ndarray:
        """supernet_N int64: the most probable SuperNet of each configuration, which scores it when ranking."""
        return self.assignment_of(poolings).argmax(axis=1).astype(np.int64)

    def assignment_of(self, poolings: Sequence[Pooling]) -> np.ndarray:
        """assignment_NM float64, rows sum to 1: p(m | pooling) at the present temperature."""
        return self._present([self.space.index(pooling) for pooling in poolings])

    def judges_of(self, poolings: Sequence[Pooling], rank_on: str) -> tuple[np.ndarray, np.ndarray]:
        """judge_TN int64, weight_TN float64: the SuperNet that scores each configuration in turn t, and what that counts."""
        assignment_NM = self.assignment_of(poolings)
        if rank_on == "all":
            return np.repeat(np.arange(self.supernets)[:, None], len(poolings), axis=1), assignment_NM.T
        return assignment_NM.argmax(axis=1)[None].astype(np.int64), np.ones((1, len(poolings)))

    def turns(self, rank_on: str) -> int:
        """Turns that share the scoring batches out."""
        return self.supernets if rank_on == "all" else 1

    def scores_of(self, poolings: Sequence[Pooling]) -> np.ndarray:
        """scores_NM float64: moving average of scoring accuracy, 1 where nothing was told."""
        return self.table.of([self.space.index(pooling) for pooling in poolings])

    def visited(self) -> list[int]:
        """Index in the space of every configuration that was told of, in the order of the first time."""
        return self.table.visited()

    def leaders(self, count: int) -> list[tuple[Pooling, float]]:
        """The ``count`` visited configurations with the highest scores on their most probable SuperNet, best first."""
        indices = self.table.visited()
        own_N = self.table.of(indices)[range(len(indices)), self._present(indices).argmax(axis=1)]
        top = np.lexsort((np.arange(len(own_N)), -own_N))[:count]
        return [(self.space[indices[i]], float(own_N[i])) for i in top]

    def summary(self) -> dict[str, float]:
        """Numbers for the log, named: those that the method has."""
        return {}

    def state(self) -> dict[str, Any]:
        """Everything that ``restore`` needs to go on identically, as plain JSON values (generators aside)."""
        asked = [list(pair) for pair in self._asked]
        return {
            "method": self.name,
            "step": self._step,
            "supernets": self.supernets,
            "asked": asked,
            "scores": self.table.state(),
            **self._own_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a ``state()``. RequestError for the state of another method or of an earlier version."""
        if state.get("method") != self.name:
            raise RequestError(
                f"the search was saved by {state.get('method', 'an earlier version of poolwise')} and cannot go on with method"
                f" {self.name}: start it anew"
            )
        self._step = int(state["step"])
        self._asked = deque((int(a), int(m)) for a, m in state["asked"])
        # runs of earlier versions have as many as were asked for
        self.supernets = int(state.get("supernets", self.supernets))
        self.table = Scores(self.space.size, self.supernets)
        self.table.restore(state["scores"])
        self._restore_own(state)

    def _present(self, indices: Sequence[int]) -> np.ndarray:
        """assignment_NM of configurations by index: the method's, or the first SuperNet while it is alone."""
        if self.alone:
            return np.eye(self.supernets)[np.zeros(len(indices), int)]
        return self._assignment(indices)

    def _draw_configuration(self) -> int:
        """Return the index of the next configuration in the space (step 1)."""
        raise NotImplementedError

    def _draw_supernet(self, a: int) -> int:
        """Return the SuperNet that trains configuration ``a`` (step 2); the only one unless a method says otherwise."""
        return 0

    def _learn(self, a: int, m: int, accuracy: float) -> None:
        """What a method keeps of an answer beside the scores."""

    def _assignment(self, indices: Sequence[int]) -> np.ndarray:
        """assignment_NM of configurations by index; all on the one SuperNet unless a method says otherwise."""
        return np.ones((len(indices), 1))

    def _own_state(self) -> dict[str, Any]:
        return {}

    def _restore_own(self, state: dict[str, Any]) -> None:
        """The counterpart of ``_own_state``."""
