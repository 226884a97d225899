"""The ask/tell interface of all strategies, their compute limits, and the registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, NamedTuple

import numpy as np

from poolwise.errors import RequestError
from poolwise.rankings.smoothing import fill
from poolwise.registry import Registry
from poolwise.rng import Streams
from poolwise.spaces import Pooling, PoolingSpace

_SEEDS = 1000  # training seeds reserved for each strategy seed


class End(Enum):
    """Reason why a strategy proposes no further training."""

    BUDGET = "budget"  # the next training exceeds the remaining trials or compute
    DECISION = "decision"  # the strategy itself wants no further training


class Ask(NamedTuple):
    """A stand-alone training: ``steps`` optimizer steps of ``pooling`` with ``seed``."""

    pooling: Pooling
    steps: int
    seed: int


@dataclass(frozen=True)
class StrategyTask:
    """Arguments that every strategy is built from.

    Attributes:
        space: Pooling space to choose from.
        seed: Seed of the strategy's random choices. Training seeds start at 1000 times this value: the n-th training of
            a configuration at a given length uses the n-th seed.
        macs: Maximum total MACs of all trainings.
        steps: Steps of a full training.
        cost: (pooling, steps) -> MACs of such a training including its evaluation.
        trials: Maximum number of trainings, where a shorter one counts as a fraction; None for no limit besides
            ``macs``.
        default: Baseline configuration, for strategies that start with it.
        hints: Name -> score of a configuration before it is trained, for strategies that use hints.
        margin: Points of accuracy below which a difference does not matter, for strategies that stop early; None to
            never stop early.
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


class Strategy(ABC):
    """Base class of strategies: propose one training after the other until the compute is spent.

    The state depends only on the ``ask`` and ``tell`` calls: a new object that replays them (``replay``) continues
    identically.

    Attributes:
        stream: Name of the random streams of the strategy. With the seed it determines every random choice, so it must
            never change, even if the class is renamed.
        accuracies: Whether the scores of ``ranking`` are accuracies.
        batches: Whether several trainings may be pending at once.
        end: Why no further training is proposed; None before that.
    """

    stream: ClassVar[str]
    accuracies: ClassVar[bool] = True
    batches: ClassVar[bool] = False

    def __init__(self, task: StrategyTask) -> None:
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
        self.observed: dict[tuple[Pooling, int], list[float]] = {}
        self.open: deque[Ask] = deque()  # pending: requested, but without a result yet
        self.end: End | None = None

    def ask(self) -> Ask | None:
        """Return the next training, or None if none is left or the next one exceeds the remaining compute.

        Repeated calls before ``tell`` return the same training.
        """
        pending = self.ask_all(1)
        return pending[0] if pending else None

    def ask_all(self, count: int) -> list[Ask]:
        """Return up to ``count`` trainings to run in parallel, including pending ones; at most one without ``batches``.

        Their results must be passed to ``tell`` in this order.
        """
        count = count if self.batches else 1
        while len(self.open) < count and self.end is None:
            proposed = self._next()
            if proposed is None or not self._fits(*proposed):
                self.end = End.DECISION if proposed is None and not self._all_trials_done else End.BUDGET
                break
            self.spent += self.cost(*proposed)
            self.count += proposed[1] / self.steps
            visits = len(self.observed.get(proposed, ())) + sum(ask[:2] == proposed for ask in self.open)
            self.open.append(Ask(*proposed, self.seed * _SEEDS + visits + 1))
        return list(self.open)[:count]

    @property
    def _all_trials_done(self) -> bool:
        return self.task.trials is not None and self.count > self.task.trials - 1e-6

    def _fits(self, pooling: Pooling, steps: int) -> bool:
        """Return whether a training fits into the remaining compute and trials."""
        within = self.task.trials is None or self.count + steps / self.steps < self.task.trials + 1e-6
        return within and self.spent + self.cost(pooling, steps) <= self.macs

    def tell(self, pooling: Pooling, steps: int, seed: int, accuracy: float) -> None:
        """Record the accuracy (0 to 1) of the oldest pending training.

        Raises:
            RequestError: The arguments do not match the oldest pending training.
        """
        received, expected = Ask(pooling, steps, seed), self.open[0] if self.open else None
        if received != expected:
            oldest = f"{expected.pooling}, seed {expected.seed}" if expected else "none"
            raise RequestError(
                f"tell got {pooling}, seed {seed}, but the oldest pending training is {oldest}: report each one once, in order"
            )
        self.open.popleft()
        self.observed.setdefault((pooling, steps), []).append(float(accuracy))
        self._learn(pooling, steps, float(accuracy))

    def observe(self, pooling: Pooling, steps: int, accuracy: float) -> None:
        """Record a training that this strategy did not ask for; it counts toward ``trials``."""
        self.count += steps / self.steps
        self.observed.setdefault((pooling, steps), []).append(float(accuracy))
        self._learn(pooling, steps, float(accuracy))

    def replay(self, trials: Iterable[tuple[Pooling, int, int, float]]) -> None:
        """Replay (pooling, steps, seed, accuracy) of an earlier object with the same arguments, in order."""
        for trial in trials:
            self.ask()
            self.tell(*trial)

    def ranking(self) -> np.ndarray:
        """Return scores_P in the order of the space, higher is better; zeros before the first result.

        A trained configuration scores its mean accuracy. Others get the mean over trained configurations in their
        neighborhood (``rankings.smoothing.fill``), which never exceeds the best trained one.
        """
        return fill(self.space, self.means(self.steps))

    def means(self, steps: int) -> dict[int, float]:
        """Return index in the space -> mean accuracy of the trainings with this number of steps."""
        return {
            self.space.index(p): float(np.mean(accuracies))
            for (p, length), accuracies in self.observed.items()
            if length == steps
        }

    def unseen(self, pooling: Pooling) -> bool:
        """Return whether no full training of this configuration has been recorded."""
        return (pooling, self.steps) not in self.observed

    def uniform(self, generator: np.random.Generator) -> Pooling:
        """Sample uniformly among configurations without a full training, or among all if none is left."""
        if sum(length == self.steps for _, length in self.observed) < self.space.size:
            while True:
                (pooling,) = self.space.sample(generator)
                if self.unseen(pooling):
                    return pooling
        return self.space.sample(generator)[0]

    @abstractmethod
    def _next(self) -> tuple[Pooling, int] | None:
        """Return configuration and steps of the next training, regardless of the remaining compute."""

    def _learn(self, pooling: Pooling, steps: int, accuracy: float) -> None:  # noqa: B027 (most strategies keep no further state)
        """Update internal state; called with every recorded result."""


STRATEGIES: Registry[type[Strategy]] = Registry("strategy", "poolwise.selection.strategies", plural="strategies")
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
) -> Strategy:
    """Return the strategy called ``name`` for a ``StrategyTask`` with the other arguments.

    Raises:
        RequestError: The name is unknown, or the strategy needs a package that is not installed.
    """
    return STRATEGIES.get(name)(StrategyTask(space, seed, macs, steps, cost, **more))
