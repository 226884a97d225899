"""The interface of all methods, their compute, and their registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from poolwise.errors import RequestError
from poolwise.rankings.smoothing import fill
from poolwise.registry import Registry
from poolwise.rng import Streams
from poolwise.spaces import Pooling, PoolingSpace

_SEEDS = 1000  # seeds of trainings that one study may use


class Ask(NamedTuple):
    """A stand-alone training: ``steps`` optimizer steps of ``pooling`` with ``seed``."""

    pooling: Pooling
    steps: int
    seed: int


@dataclass(frozen=True)
class Task:
    """What every method is built from.

    Attributes:
        space: where it chooses.
        seed: root of its choices and, times 1000, of the seeds of its trainings; the n-th training of one configuration
            at one length has the n-th seed.
        macs: multiply-adds that all its trainings may take together.
        steps: length of a full training.
        cost: (pooling, steps) -> multiply-adds of such a training with its test.
        trials: most trainings, a shorter one counting as the part that it is; None for as many as the compute allows.
        default: the configuration that all are compared with, for methods that begin with it.
        hints: name -> what is known of a configuration before it is trained, for methods that use it.
        margin: points of accuracy below which a difference does not matter, for methods that stop by themselves; None
            for those that never do.
    """

    space: PoolingSpace
    seed: int
    macs: int
    steps: int
    cost: Callable[[Pooling, int], int]
    trials: int | None = None
    default: Pooling | None = None
    hints: Mapping[str, Callable[[Pooling], float]] = field(default_factory=dict)
    margin: float | None = None


class Method(ABC):
    """Chooses trainings one after the other until its compute is spent.

    Nothing but what was asked and told is state: a new object that is told the same (``replay``) goes on identically.
    ``accuracies`` says whether the scores of ``ranking`` are accuracies, ``batches`` whether several trainings may be asked
    for before the first is told. ``stream`` names the random streams of a strategy: with the seed it decides every draw, so it
    never changes, whatever the class is called.
    """

    stream: ClassVar[str]
    accuracies: ClassVar[bool] = True
    batches: ClassVar[bool] = False

    def __init__(self, task: Task) -> None:
        self.task = task
        self.space, self.seed, self.macs, self.steps, self.cost = (
            task.space,
            task.seed,
            task.macs,
            task.steps,
            task.cost,
        )
        self.streams = Streams(task.seed).child(self.stream)
        self.spent, self.count = 0, 0.0
        self.told: dict[tuple[Pooling, int], list[float]] = {}
        self.open: deque[Ask] = deque()  # without an answer yet
        self._over = False

    def ask(self) -> Ask | None:
        """The next training, None when none is left to do or the next one does not fit into what is left of the compute.

        Asking again before the answer was told gives the same training.
        """
        asked = self.ask_all(1)
        return asked[0] if asked else None

    def ask_all(self, count: int) -> list[Ask]:
        """Up to ``count`` trainings to be done at once, those that were asked for before among them; one where the method
        takes one at a time. They are told in this order."""
        count = count if self.batches else 1
        while len(self.open) < count and not self._over:
            proposed = self._next()
            if proposed is None or not self._fits(*proposed):
                self._over = True
                break
            self.spent += self.cost(*proposed)
            self.count += proposed[1] / self.steps
            visits = len(self.told.get(proposed, ())) + sum(ask[:2] == proposed for ask in self.open)
            self.open.append(Ask(*proposed, self.seed * _SEEDS + visits + 1))
        return list(self.open)[:count]

    def _fits(self, pooling: Pooling, steps: int) -> bool:
        """Whether a training is within what is left."""
        within = self.task.trials is None or self.count + steps / self.steps < self.task.trials + 1e-6
        return within and self.spent + self.cost(pooling, steps) <= self.macs

    def tell(self, pooling: Pooling, steps: int, seed: int, accuracy: float) -> None:
        """Accuracy (0 to 1) of the earliest training that has none yet; RequestError for any other."""
        given, first = Ask(pooling, steps, seed), self.open[0] if self.open else None
        if given != first:
            waiting = f"{first.pooling}, seed {first.seed}" if first else "nothing"
            raise RequestError(
                f"told of {pooling}, seed {seed}, while {waiting} was asked for: tell what was asked, once"
            )
        self.open.popleft()
        self.told.setdefault((pooling, steps), []).append(float(accuracy))
        self._learn(pooling, steps, float(accuracy))

    def observe(self, pooling: Pooling, steps: int, accuracy: float) -> None:
        """Learn of a training that something else asked for; it counts as one of this method's."""
        self.count += steps / self.steps
        self.told.setdefault((pooling, steps), []).append(float(accuracy))
        self._learn(pooling, steps, float(accuracy))

    def replay(self, trials: Iterable[tuple[Pooling, int, int, float]]) -> None:
        """Be told (pooling, steps, seed, accuracy) of an earlier object of the same arguments, in order."""
        for trial in trials:
            self.ask()
            self.tell(*trial)

    def ranking(self) -> np.ndarray:
        """scores_P in the order of the space, higher is better; zeros before anything was told.

        Trained configurations have the mean of their accuracies, all others the mean over trained ones in their
        neighbourhood (``rankings.smoothing.fill``), which is never above the best trained.
        """
        return fill(self.space, self.means(self.steps))

    def means(self, steps: int) -> dict[int, float]:
        """Place in the space -> mean accuracy of the trainings of this length."""
        return {self.space.index(p): float(np.mean(own)) for (p, length), own in self.told.items() if length == steps}

    def unseen(self, pooling: Pooling) -> bool:
        """Whether no full training of this configuration was told."""
        return (pooling, self.steps) not in self.told

    def uniform(self, generator: np.random.Generator) -> Pooling:
        """A uniform draw among what was never trained in full; among all where nothing is left."""
        if sum(length == self.steps for _, length in self.told) < self.space.size:
            while True:
                (pooling,) = self.space.sample(generator)
                if self.unseen(pooling):
                    return pooling
        return self.space.sample(generator)[0]

    @abstractmethod
    def _next(self) -> tuple[Pooling, int] | None:
        """Configuration and length of the next training, whatever is left of the compute."""

    def _learn(self, pooling: Pooling, steps: int, accuracy: float) -> None:  # noqa: B027 (most have nothing to learn)
        """Called with everything that is told."""


STRATEGIES: Registry[type[Method]] = Registry("method", "poolwise.selection.strategies")
register = STRATEGIES.register
available = STRATEGIES.all


def create(
    name: str,
    space: PoolingSpace,
    *,
    seed: int,
    macs: int,
    steps: int,
    cost: Callable[[Pooling, int], int],
    **more: Any,
) -> Method:
    """Return the strategy called ``name`` for a ``Task`` of the other arguments.

    Raises:
        RequestError: for an unknown name or where the strategy needs a package that is not installed.
    """
    return STRATEGIES.get(name)(Task(space, seed, macs, steps, cost, **more))
