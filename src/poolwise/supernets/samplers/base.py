"""Interface of all samplers: ``ask`` for a configuration and its SuperNet, train them, ``tell`` the accuracy.

``ask_group`` and ``tell_group`` do the same for several configurations that train in one step. A sampler may also declare
``surveys``: at given steps the trainer then scores all configurations and calls ``learn_survey``.

Legend: N configurations passed as an argument, G configurations of a group, M SuperNets.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from poolwise.errors import RequestError
from poolwise.spaces import Pooling, uniform_below
from poolwise.supernets import assignment as soft
from poolwise.supernets.samplers.draws import GroupRounds, consecutive
from poolwise.supernets.samplers.scores import Scores
from poolwise.supernets.samplers.task import OutOfTurn, Survey, Surveys, Task

STEPS_PER_SUPERNET = 2000  # with fewer steps the assignment is mostly noise (docs/algorithm.md)
_USUAL = 4  # SuperNets in the published recipe


class Sampler:
    """Base class of samplers, which choose the configuration and the SuperNet of each step without access to networks.

    Scores are moving averages of scoring accuracy that start at 1. They are stored for visited configurations only, so
    memory does not grow with the size of the space. A subclass implements ``_draw_configuration``; with several SuperNets
    also ``_draw_supernet`` and ``_assignment``; and, if needed, ``_learn``, ``_extra_state`` and ``_restore_extra``. Groups
    follow from these (``_draw_group``, ``_draw_group_supernet``).

    Attributes:
        name, about: Value of ``--method`` and a one-line description. Both are set by the registry.
        single: Whether the method trains a single SuperNet.
        prefers: Whether configurations are drawn unequally often. The mean step may then cost more or less MACs than the
            mean of the space.
        warms_up: Whether the method supports ``warm_up``.
        doubles: Whether the method supports ``double``.
        usual_warm_up: Share of the warm-up if the request sets none.
        surveys: The surveys that the method asks for, if any.
        supernets, most: Current and maximum number of SuperNets.
        branched: Whether all SuperNets became copies of the first at the end of the warm-up, which happens once.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    single: ClassVar[bool] = False
    prefers: ClassVar[bool] = False
    warms_up: ClassVar[bool] = False
    doubles: ClassVar[bool] = False
    usual_warm_up: ClassVar[float] = 0.0
    surveys: ClassVar[Surveys | None] = None

    def __init__(self, task: Task):
        self.check_size(task.space.size)
        self.task, self.space = task, task.space
        self.most = self.supernets_used(task.supernets)
        self.supernets = 1 if task.grows else self.most
        self.table = Scores(self.space.size, self.supernets)
        self.branched = False
        self._surveyed = 0  # surveys so far
        self._step = 0
        self._pending: deque[tuple[tuple[int, ...], int]] = deque()  # pending asks
        self._groups = GroupRounds(self.space.size, task.group, task.draws)

    @classmethod
    def supernets_used(cls, requested: int) -> int:
        """Return how many SuperNets the method trains if ``requested`` are requested."""
        return 1 if cls.single else requested

    @classmethod
    def check_size(cls, configurations: int) -> None:
        """Raise RequestError if the method surveys the space and cannot score this many configurations."""
        if cls.surveys and configurations > cls.surveys.most:
            raise RequestError(
                f"method {cls.name} scores all configurations during the search, at most {cls.surveys.most:,}, and the space has"
                f" {configurations:,}: sample some with --max-configs, or use another --method"
            )

    @classmethod
    def supernets_for(cls, steps: int, configurations: int, most: int) -> tuple[int, str]:
        """Return the default number of SuperNets for a search of ``steps`` steps, at most ``most``, and the reason."""
        count = max(min(steps // STEPS_PER_SUPERNET, _USUAL, most, configurations // 2), 1)
        if steps < 2 * STEPS_PER_SUPERNET:
            reason = f"two need {2 * STEPS_PER_SUPERNET:,}"
        else:
            reason = f"each needs {STEPS_PER_SUPERNET:,}" if count > 1 else "memory and the space allow one"
        return cls.supernets_used(count), f"{steps:,} steps; {reason}"

    @property
    def temperature(self) -> float:
        """Temperature T of the next step."""
        return soft.temperature_at(self._step, self.task.steps, *self.task.temperature)

    @property
    def warm_up_end(self) -> int:
        """Number of steps in the warm-up, which changes with the length of the search; 0 without a warm-up."""
        return math.ceil(self.task.warm_up * self.task.steps)

    @property
    def in_warm_up(self) -> bool:
        """Whether the next step belongs to the warm-up."""
        return self._step < self.warm_up_end

    @property
    def first_trains_alone(self) -> bool:
        """Whether the first of several SuperNets trains alone in the next step, regardless of the assignment."""
        return self.supernets > 1 and self.warm_up_end > 0 and not self.branched

    @property
    def can_double(self) -> bool:
        """Whether ``double`` may be called."""
        return self.task.grows and 2 * self.supernets <= self.most

    @property
    def next_survey(self) -> int | None:
        """Step before which the next survey is due; None if no survey is left."""
        due = self._survey_steps()[self._surveyed :]
        return due[0] if due else None

    def _survey_steps(self) -> list[int]:
        """Return the steps before which the surveys of this search are due, in order."""
        count, start = self.surveys.count if self.surveys else 0, self.warm_up_end
        return [start + i * (self.task.steps - start) // count for i in range(count)]

    def learn_survey(self, survey: Survey) -> None:
        """Receive the survey that is due. One survey serves all that are due at the current step.

        Raises:
            OutOfTurn: If no survey is due, or an ``ask`` is pending.
        """
        if self._pending or not self._survey_due:
            raise OutOfTurn(
                "learn_survey does not match next_survey: call it between tell and ask, when a survey is due"
            )
        while self._survey_due:
            self._surveyed += 1
        self._learn_survey(survey)

    @property
    def _survey_due(self) -> bool:
        return self.next_survey is not None and self.next_survey <= self._step

    def double(self) -> None:
        """Split every SuperNet m into m and M + m, which have the same scores and equal probabilities."""
        self.supernets *= 2
        self.table.double()

    def lengthen(self, steps: int) -> None:
        """Set the length of the search to ``steps``, which may be longer or shorter than before.

        Branch if the warm-up is over with the new length.
        """
        self.task = replace(self.task, steps=steps)
        self._branch_after_warm_up()

    def ask(self) -> tuple[Pooling, int]:
        """Draw the next configuration and its SuperNet (steps 1 and 2 of the method).

        Consecutive asks without a ``tell`` in between use the same scores.

        Raises:
            OutOfTurn: If a survey is due.
        """
        (pooling,), m = self._ask(1)
        return pooling, m

    def ask_group(self) -> tuple[tuple[Pooling, ...], int]:
        """Draw the configurations of the next step, which share a prefix of layers, and their SuperNet.

        Returns:
            At most ``Task.group`` different configurations, and the SuperNet that trains all of them. With a ``Task.group`` of
            1, the draws are those of ``ask``.

        Raises:
            OutOfTurn: If a survey is due.
        """
        return self._ask(self.task.group)

    def _ask(self, most: int) -> tuple[tuple[Pooling, ...], int]:
        """Draw configurations, one or a group, and their SuperNet. Add them to the pending asks."""
        if self._survey_due:
            raise OutOfTurn("a survey is due: call learn_survey before ask")
        indices = [self._draw_configuration()] if most == 1 else self._draw_group()
        for a in indices:
            self._expect(a)
        m = 0
        if not self.first_trains_alone:
            m = self._draw_supernet(indices[0]) if len(indices) == 1 else self._draw_group_supernet(indices)
        self._pending.append((tuple(indices), m))
        return tuple(self.space[a] for a in indices), m

    def tell(self, pooling: Pooling, supernet: int, accuracy: float) -> None:
        """Record the scoring accuracy after the training step of the oldest pending ``ask``.

        Args:
            pooling: The configuration that ``ask`` returned.
            supernet: The SuperNet that ``ask`` returned.
            accuracy: Scoring accuracy, 0 to 1.

        Raises:
            OutOfTurn: If ``pooling`` and ``supernet`` do not match the oldest pending ``ask``.
        """
        self.tell_group([pooling], supernet, [accuracy])

    def tell_group(self, poolings: Sequence[Pooling], supernet: int, accuracies: Sequence[float]) -> None:
        """Record the accuracy of every configuration after the training step of the oldest pending ``ask_group``.

        Args:
            poolings: The G configurations that ``ask_group`` returned.
            supernet: The SuperNet that ``ask_group`` returned.
            accuracies: G scoring accuracies on one batch, 0 to 1.

        Raises:
            OutOfTurn: If ``poolings`` and ``supernet`` do not match the oldest pending ask.
        """
        indices, m = self._pending[0] if self._pending else ((), -1)
        if not self._pending or ([self.space[a] for a in indices], m) != (list(poolings), supernet):
            raise OutOfTurn(
                f"tell({', '.join(map(str, poolings))}, {supernet}) does not match the oldest pending ask: call tell in the"
                " order of ask"
            )
        self._pending.popleft()
        for a, accuracy in zip(indices, accuracies, strict=True):
            self.table.update(a, m, accuracy)
            self._learn(a, m, accuracy)
        self._step += 1
        self._branch_after_warm_up()

    def supernet_of(self, poolings: Sequence[Pooling]) -> np.ndarray:
        """Return supernet_N (int64), the most probable SuperNet of each configuration."""
        return self.assignment_of(poolings).argmax(axis=1).astype(np.int64)

    def assignment_of(self, poolings: Sequence[Pooling]) -> np.ndarray:
        """Return assignment_NM (float64, rows sum to 1), p(m | pooling) at the current temperature."""
        return self._present([self.space.index(pooling) for pooling in poolings])

    def judges_of(self, poolings: Sequence[Pooling], rank_on: str) -> tuple[np.ndarray, np.ndarray]:
        """Return judge_TN (int64), the SuperNet that scores each configuration in turn t, and weight_TN (float64)."""
        assignment_NM = self.assignment_of(poolings)
        if rank_on == "all":
            return np.repeat(np.arange(self.supernets)[:, None], len(poolings), axis=1), assignment_NM.T
        return assignment_NM.argmax(axis=1)[None].astype(np.int64), np.ones((1, len(poolings)))

    def turns(self, rank_on: str) -> int:
        """Return the number of turns, among which the scoring batches are divided."""
        return self.supernets if rank_on == "all" else 1

    def scores_of(self, poolings: Sequence[Pooling]) -> np.ndarray:
        """Return scores_NM (float64), the moving averages of scoring accuracy, 1 for unvisited configurations."""
        return self.table.of([self.space.index(pooling) for pooling in poolings])

    def visited(self) -> list[int]:
        """Return the indices in the space of all visited configurations, in the order of their first visit."""
        return self.table.visited()

    def leaders(self, count: int) -> list[tuple[Pooling, float]]:
        """Return the ``count`` visited configurations that score highest on their most probable SuperNet, best first."""
        indices = self.table.visited()
        score_N = self.table.of(indices)[range(len(indices)), self._present(indices).argmax(axis=1)]
        top = np.lexsort((np.arange(len(score_N)), -score_N))[:count]
        return [(self.space[indices[i]], float(score_N[i])) for i in top]

    def summary(self) -> dict[str, float]:
        """Return the named values that the method adds to the log."""
        return {}

    def state(self) -> dict[str, Any]:
        """Return everything that ``restore`` needs to continue identically, as JSON values. Generators are excluded."""
        pending = [[group[0] if len(group) == 1 else list(group), m] for group, m in self._pending]
        return {
            "method": self.name,
            "step": self._step,
            "supernets": self.supernets,
            "branched": self.branched,
            "asked": pending,
            "scores": self.table.state(),
            **({"groups": self._groups.state()} if self.task.group > 1 else {}),
            **({"surveyed": self._surveyed} if self.surveys else {}),
            **self._extra_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a result of ``state()``.

        Raises:
            RequestError: If the state belongs to another method or to an incompatible earlier version.
        """
        if state.get("method") != self.name:
            raise RequestError(
                f"the search was saved by {state.get('method', 'an earlier version of poolwise')} and cannot continue with method"
                f" {self.name}: start a new run"
            )
        self._step = int(state["step"])
        self._pending = deque((_group_of(asked), int(m)) for asked, m in state["asked"])
        if "groups" in state:
            self._groups.restore(state["groups"])
        # runs of earlier versions use as many as were requested
        self.supernets = int(state.get("supernets", self.supernets))
        self.table = Scores(self.space.size, self.supernets)
        self.table.restore(state["scores"])
        # earlier versions did not save it, but only the first SuperNet has scores before the branching
        self.branched = bool(state.get("branched", self.table.used() > 1))
        self._surveyed = int(state.get("surveyed", 0))
        self._restore_extra(state)

    def _branch_after_warm_up(self) -> None:
        """Give all SuperNets the scores of the first, which trained alone, if the warm-up is over."""
        if self.first_trains_alone and not self.in_warm_up:
            self.table.copy_first()
            self.branched = True

    def _present(self, indices: Sequence[int]) -> np.ndarray:
        """Return assignment_NM of configurations by index. All are on the first SuperNet while it trains alone."""
        if self.first_trains_alone:
            return np.eye(self.supernets)[np.zeros(len(indices), int)]
        return self._assignment(indices)

    def _draw_configuration(self) -> int:
        """Return the index of the next configuration in the space (step 1)."""
        raise NotImplementedError

    def _draw_supernet(self, a: int) -> int:
        """Return the SuperNet that trains configuration ``a`` (step 2). The default is for methods with one SuperNet."""
        return 0

    @property
    def in_rounds(self) -> bool:
        """Whether the method visits every configuration once before any is repeated. Its groups then do so too."""
        return False

    def _draw_group(self) -> list[int]:
        """Return the indices of the next group.

        In rounds, every configuration is in one group of each round. Otherwise the group is a random one of those around a
        draw of ``_draw_configuration``: uniform draws then visit all configurations equally often, and a method that
        prefers some configurations visits their neighbors too.
        """
        if self.in_rounds:
            return self._groups.next()
        count = min(self.task.group, self.space.size)
        a = self._draw_configuration()
        return consecutive(a - uniform_below(self.task.draws, count), count, self.space.size)

    def _draw_group_supernet(self, indices: Sequence[int]) -> int:
        """Return the SuperNet that trains a group, drawn from the mean of its members' rows of the assignment.

        Every configuration is in one group of a round. The mean over configurations of their groups' probabilities is
        therefore the mean over configurations of their own: if it is 1/M for each SuperNet, groups keep it so.
        """
        return draw_from(self._assignment(indices).mean(axis=0), self.task.assigns) if self.supernets > 1 else 0

    def _expect(self, a: int) -> None:
        """Record that configuration ``a`` was drawn, alone or in a group, and that its accuracy will be learned."""

    def _learn(self, a: int, m: int, accuracy: float) -> None:
        """Update what the method stores besides the scores."""

    def _learn_survey(self, survey: Survey) -> None:
        """Use the result of a survey."""

    def _assignment(self, indices: Sequence[int]) -> np.ndarray:
        """Return assignment_NM of configurations by index. The default is for methods with one SuperNet."""
        return np.ones((len(indices), 1))

    def _extra_state(self) -> dict[str, Any]:
        return {}

    def _restore_extra(self, state: dict[str, Any]) -> None:
        """Restore the result of ``_extra_state``."""


def _group_of(asked: Any) -> tuple[int, ...]:
    """Return the indices of a saved ask: one index, or a list of those of a group."""
    return tuple(int(a) for a in (asked if isinstance(asked, list) else [asked]))


def draw_from(chances_M: np.ndarray, generator: np.random.Generator) -> int:
    """Draw an index with these probabilities, which need not sum to exactly 1."""
    drawn = int(np.searchsorted(np.cumsum(chances_M) / chances_M.sum(), generator.random(), side="right"))
    return min(drawn, len(chances_M) - 1)
