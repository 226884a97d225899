"""Optuna samplers through ask and tell: tree-structured Parzen estimator and Gaussian process.

Sources: Bergstra et al., "Algorithms for Hyper-Parameter Optimization" (NeurIPS 2011); Akiba et al., "Optuna" (KDD
2019). A configuration is encoded as one integer per pooling, from 0 to the number of free layers. Sorted tuples and
configurations correspond one to one: the i-th smallest integer is the position of pooling i minus its smallest possible
position. In a space with several numbers of poolings, the largest integer marks a missing pooling.
Optuna receives the sorted tuple. Needs the extra ``compare``.
"""

from __future__ import annotations

import warnings
from typing import Any

from poolwise.errors import RequestError
from poolwise.selection.strategies.base import Strategy, StrategyTask, register
from poolwise.spaces import Pooling, PoolingSpace

STARTUP = 5  # uniformly sampled trainings before the sampler is used
_TRIES = 4  # attempts to get a proposal that was not trained before


class _Optuna(Strategy):
    def __init__(self, task: StrategyTask) -> None:
        super().__init__(task)
        try:
            import optuna
        except ImportError:
            raise RequestError("this strategy needs optuna: pip install 'poolwise[compare]'") from None
        self.optuna = optuna
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        full = self.space.full
        spaces = {count: PoolingSpace(full.layers, count, full.min_stage, full.shared_slots) for count in full.counts}
        self._offsets = list(spaces[full.poolings][0].positions)
        free = [_free(space) for space in spaces.values()]
        self._none = max(free) + 1  # code of a missing pooling, where the number of poolings varies
        self._free = self._none if len(free) > 1 else max(free)
        entropy = int(self.streams["optuna"].integers(2**31))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study = optuna.create_study(direction="maximize", sampler=self._sampler(entropy))
        self._distributions: dict[str, Any] = {
            f"pooling{i}": optuna.distributions.IntDistribution(0, self._free) for i in range(self.space.poolings)
        }

    def _sampler(self, seed: int) -> Any:
        raise NotImplementedError

    def _next(self) -> tuple[Pooling, int] | None:
        if len(self.observed) < STARTUP or self.space.size < 2:
            return self.uniform(self.streams["startup"]), self.steps
        for _ in range(_TRIES):
            trial = self._study.ask(self._distributions)
            self._study.tell(trial, state=self.optuna.trial.TrialState.FAIL)  # added later with sorted integers
            pooling = self._member(sorted(trial.params.values()))
            if pooling is not None and pooling in self.space and self.unseen(pooling):
                return pooling, self.steps
        if pooling is None or pooling not in self.space:
            return self.uniform(self.streams["around"]), self.steps
        around = [neighbour for neighbour in self.space.neighbours(pooling) if self.unseen(neighbour)] or [pooling]
        return around[int(self.streams["around"].integers(len(around)))], self.steps

    def _member(self, numbers: list[int]) -> Pooling | None:
        """Return the configuration of sorted integers; None if no layer is left after the last pooling."""
        pairs = zip(numbers, self._offsets, strict=True)
        positions = [number + offset for number, offset in pairs if number < self._none]
        if positions and positions[-1] >= self.space.layers:
            return None
        return Pooling.from_positions(positions, self.space.layers)

    def _learn(self, pooling: Pooling, steps: int, accuracy: float) -> None:
        numbers = [position - offset for position, offset in zip(pooling.positions, self._offsets, strict=False)]
        numbers += [self._none] * (len(self._offsets) - len(numbers))
        params = dict(zip(self._distributions, numbers, strict=True))
        trial = self.optuna.trial.create_trial(params=params, distributions=self._distributions, value=accuracy)
        self._study.add_trial(trial)


def _free(space: PoolingSpace) -> int:
    """Return the largest number of layers that a pooling can be moved by."""
    return space[space.size - 1].positions[-1] - space[0].positions[-1] if space.poolings else 0


@register("tpe")
class Tpe(_Optuna):
    """Multivariate TPESampler. Untrained configurations are preferred."""

    stream = "Tpe"

    def _sampler(self, seed: int) -> Any:
        return self.optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, multivariate=True)


@register("gp")
class GaussianProcess(_Optuna):
    """GPSampler (log expected improvement, noisy objective). Untrained configurations are preferred."""

    stream = "GaussianProcess"

    def _sampler(self, seed: int) -> Any:
        return self.optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP)
