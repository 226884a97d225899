"""How long a search is, how it is shared out, and what its steps and scorings cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from poolwise.config import Config
from poolwise.experiment import Experiment
from poolwise.spaces import LISTED, Pooling

FEWEST_STEPS = 10  # of a short training, below which losses still say nothing of the configuration
FEWEST_CONFIGURATIONS = 8  # below which hardly any agreement is more than chance
# shares of a search after which a measured branching measures, the second one where the first paid
CHECKS = (0.5, 0.75)
TRIALS = 5  # in each measurement
SCORED = 36  # configurations, at most, whose losses are taken in each
_TRIED = 400  # part of the search that each half trains in a trial
_FEWEST_TRIED = 10
AUTO_SHARE = 0.67  # of the steps, where the share is left open
_WORTH = 30  # steps of each configuration from which short trainings then are worth their share (docs/results.md)
_BALANCED = 30  # steps of a single short training up to which no second one is begun, by the rule below


class Short(NamedTuple):
    """Short trainings of every configuration: steps of each, and how many with seeds of their own. None where 0."""

    length: int
    seeds: int


def share_of(steps: int, share: float | None, configurations: int) -> float:
    """The share itself; where it is left open, AUTO_SHARE or, where that is too little for every configuration, none."""
    if share is not None:
        return share
    return AUTO_SHARE if int(steps * AUTO_SHARE) // configurations >= _WORTH else 0.0


def most_share(share: float | None) -> float:
    """The share, or what it is at most where it is left open."""
    return AUTO_SHARE if share is None else share


def short_of(steps: int, share: float | None, configurations: int) -> Short:
    """How a share of ``steps`` is spent on short trainings of every configuration; None for the share that pays.

    Longer trainings are nearer to the truth, more of them less noisy: both grow with the square root of the steps.
    """
    each = int(steps * share_of(steps, share, configurations)) // configurations
    if each < FEWEST_STEPS or configurations < FEWEST_CONFIGURATIONS:
        return Short(0, 0)
    seeds = max(round(math.sqrt(each / _BALANCED)), 1)
    return Short(each // seeds, seeds)


def on_supernets(steps: int, share: float | None, configurations: int) -> int:
    """What short trainings leave of ``steps``."""
    length, seeds = short_of(steps, share, configurations)
    return steps - configurations * length * seeds


def short_trainings(problem: Experiment) -> Short:
    """The short trainings of a run; none in spaces that are too large to be listed."""
    if problem.space.size > LISTED:
        return Short(0, 0)
    return short_of(whole_steps(problem), problem.config.search.proxy, problem.space.size)


def whole_steps(problem: Experiment) -> int:
    """Steps of the search, those of short trainings among them.

    Where its length is said in multiply-adds, at the mean of a small space or at the default's.
    """
    config, half = problem.config, len(problem.halves[0])
    if config.search.macs:
        members, total = _typical(problem)
        allowed = config.search.macs - measured_macs(problem)
        share = most_share(config.search.proxy)
        steps = allowed * members // step_macs(problem, total, 1 - share)
        if (
            share_of(steps, config.search.proxy, problem.space.size) < share
        ):  # left open, and too little for short trainings
            steps = allowed * members // step_macs(problem, total)
        return max(steps, 1)
    return config.search.steps or config.search.epochs * max(half // min(config.training.batch_size, half), 1)


def _typical(problem: Experiment) -> tuple[int, int]:
    """Configurations whose mean is taken for that of the space, and their multiply-adds an image in all."""
    members = list(problem.space) if problem.space.size <= LISTED else [problem.default]
    return len(members), sum(problem.cost(pooling).macs for pooling in members)


def search_steps(problem: Experiment) -> int:
    """Steps on SuperNets."""
    length, seeds = short_trainings(problem)
    return whole_steps(problem) - problem.space.size * length * seeds


def step_macs(problem: Experiment, macs: int, scored: float = 1.0) -> int:
    """Multiply-adds of a step at ``macs`` an image: a training batch counts three passes, a scoring batch one.

    ``scored`` of the steps are followed by one; those of short trainings are not.
    """
    training, scoring = (min(problem.config.training.batch_size, len(half)) for half in problem.halves)
    return int((3 * training + scored * scoring) * macs)


def tried_steps(steps: int) -> int:
    """Return the steps of each half in a branching trial of a search of so many steps (``branching.measure_gain``)."""
    return max(steps // _TRIED, _FEWEST_TRIED)


def measuring_macs(problem: Experiment, config: Config, steps: int, macs: int) -> int:
    """Multiply-adds, at most, of measuring in a search of ``steps``, at ``macs`` an image: trainings, and losses."""
    most = config.search.supernets or 1
    if config.search.branching != "measured" or most == 1:
        return 0
    training, scoring = (min(problem.config.training.batch_size, len(half)) for half in problem.halves)
    images = 3 * 4 * tried_steps(steps) * training + 2 * min(SCORED, problem.space.size) * scoring
    return min(len(CHECKS), most.bit_length() - 1) * TRIALS * images * macs


def measured_macs(problem: Experiment) -> int:
    """The same of a search whose length is said in multiply-adds: what is set apart of them; 0 of others."""
    config = problem.config
    if not config.search.macs or config.search.branching != "measured":
        return 0
    members, total = _typical(problem)
    mean = total // members
    return measuring_macs(problem, config, config.search.macs // step_macs(problem, mean), mean)


def short_macs(problem: Experiment) -> int:
    """Multiply-adds of all short trainings."""
    length, seeds = short_trainings(problem)
    if not seeds:
        return 0
    return length * seeds * step_macs(problem, sum(problem.cost(pooling).macs for pooling in problem.space), 0)


def scoring_macs(problem: Experiment, poolings: Sequence[Pooling], judge_P: np.ndarray) -> int:
    """Multiply-adds of scoring an image under every configuration, each SuperNet computing the prefixes of its own once."""
    groups = [[p for p, m in zip(poolings, judge_P, strict=True) if m == net] for net in set(judge_P.tolist())]
    return sum(problem.cost.prefix_macs(group) for group in groups)
