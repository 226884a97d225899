"""How long a search is, and what its steps and scorings cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from poolwise.problem import Problem
from poolwise.searching import samplers
from poolwise.space import LISTED, Pooling


def search_steps(problem: Problem) -> int:
    """Steps of the search; where its length is said in multiply-adds, at the mean of a small space or at the default's."""
    settings, half = problem.settings, len(problem.halves[0])
    if settings.search_macs:
        members = list(problem.space) if problem.space.size <= LISTED else [problem.default]
        total = mean_step_macs(problem, sum(problem.cost(pooling).macs for pooling in members), settings.method)
        return max(settings.search_macs * len(members) // total, 1)
    return settings.steps or settings.epochs * max(half // min(settings.batch_size, half), 1)


def step_macs(problem: Problem, macs: int, scored: bool = True) -> int:
    """Multiply-adds of a search step at ``macs`` an image: a training batch counts three passes, a scoring batch one."""
    training, scoring = (min(problem.settings.batch_size, len(half)) for half in problem.halves)
    return (3 * training + scored * scoring) * macs


def mean_step_macs(problem: Problem, macs: int, method: str) -> int:
    """The same on the average over the steps of a method, which may leave most scoring batches out."""
    left_out = samplers.sampler(method).scored_one_in(problem.space.size) - 1
    return (step_macs(problem, macs) + left_out * step_macs(problem, macs, scored=False)) // (1 + left_out)


def scoring_macs(problem: Problem, poolings: Sequence[Pooling], judge_P: np.ndarray) -> int:
    """Multiply-adds of scoring an image under every configuration, each SuperNet computing the prefixes of its own once."""
    groups = [[p for p, m in zip(poolings, judge_P, strict=True) if m == net] for net in set(judge_P.tolist())]
    return sum(problem.cost.prefix_macs(group) for group in groups)
