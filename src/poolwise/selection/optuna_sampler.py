"""The ``refine`` strategy as an Optuna sampler, for users who run their trainings in an Optuna study.

Needs the extra ``compare``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from poolwise.errors import RequestError
from poolwise.selection.strategies.base import Ask, create
from poolwise.selection.strategies.refine import Refine
from poolwise.spaces import Pooling, PoolingSpace

PARAMETER = "pooling"


def optuna_sampler(
    space: PoolingSpace,
    *,
    trials: int,
    default: Pooling | str | None = None,
    hints: Mapping[str, Callable[[Pooling], float]] | None = None,
    seed: int = 0,
) -> Any:
    """Return an ``optuna.samplers.BaseSampler`` for the parameter ``pooling`` of a study that maximizes accuracy.

        sampler = poolwise.optuna_sampler(space, trials=7, default="4-3-3")
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.optimize(lambda trial: train(trial.suggest_categorical("pooling", sampler.names)), n_trials=7)

    Objective values must be accuracies from 0 to 1. Parallel trials are supported; failed and pruned trials are
    ignored. Other parameters are sampled at random. All state is kept in the study, so several processes can share it.

    Args:
        space: Pooling space to choose from.
        trials: Planned number of trials. The last ones compare the best configuration with its closest rival.
        default: Configuration to train first.
        hints: Name -> function that scores a configuration before it is trained.
        seed: Seed of all random choices.

    Raises:
        RequestError: optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise RequestError("optuna_sampler needs optuna: pip install 'poolwise[compare]'") from None
    first = None if default is None else space.check(default)

    class Sampler(optuna.samplers.BaseSampler):
        def __init__(self) -> None:
            self.names = [str(pooling) for pooling in space]
            self._others = optuna.samplers.RandomSampler(seed=seed)

        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            return {PARAMETER: optuna.distributions.CategoricalDistribution(self.names)}

        def sample_relative(self, study: Any, trial: Any, search_space: dict[str, Any]) -> dict[str, Any]:
            strategy = create(
                "refine",
                space,
                seed=seed,
                macs=2**62,
                steps=1,
                cost=lambda _pooling, steps: steps,
                trials=max(trials, trial.number + 1),
                default=first,
                hints=hints or {},
            )
            assert isinstance(strategy, Refine)
            states = optuna.trial.TrialState
            for earlier in study.get_trials(deepcopy=False, states=(states.COMPLETE, states.RUNNING)):
                if earlier.number >= trial.number or PARAMETER not in earlier.params:
                    continue
                pooling = space.parse(earlier.params[PARAMETER])
                if earlier.state == states.COMPLETE:
                    strategy.observe(pooling, 1, earlier.value)
                else:
                    strategy.open.append(Ask(pooling, 1, 0))
            pending = strategy.ask_all(len(strategy.open) + 1)
            return {PARAMETER: str(pending[-1].pooling)}

        def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
            return self._others.sample_independent(study, trial, name, distribution)

    return Sampler()
