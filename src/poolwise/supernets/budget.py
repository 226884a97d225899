"""Length of a search, its split between SuperNets and proxy trainings, and the MACs of its parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from poolwise.config import Config
from poolwise.experiment import Experiment
from poolwise.models.cost import CostModel
from poolwise.spaces import LISTED, Pooling, PoolingSpace
from poolwise.supernets import samplers
from poolwise.supernets.samplers.draws import consecutive, group_sizes

FEWEST_STEPS = 10  # minimum length of a proxy training; shorter ones do not distinguish configurations
FEWEST_CONFIGURATIONS = 8  # minimum for proxy trainings; with fewer, agreement is rarely significant
# shares of a search after which measured branching runs a check; the second only if the first paid
CHECKS = (0.5, 0.75)
TRIALS = 5  # trials per branching check
SCORED = 36  # maximum number of configurations evaluated per trial
_TRIED = 400  # each half trains for 1/400 of the search in a trial
_FEWEST_TRIED = 10
AUTO_SHARE = 0.67  # default share of proxy trainings in the steps, if no share is set
_WORTH = 30  # minimum steps per configuration for proxy trainings by default (docs/results.md)
_GROUPS = 128  # maximum number of groups whose MACs give the mean of a space, evenly spaced in larger ones
_BALANCED = 30  # unit of the number of seeds in ``proxy_budget_of``: sqrt(steps per configuration / 30), rounded


class ProxyBudget(NamedTuple):
    """Proxy trainings per configuration: steps of each, and number of seeds. Both are 0 without proxy trainings."""

    length: int
    seeds: int


def share_of(steps: int, share: float | None, configurations: int) -> float:
    """Return ``share``. If it is None, return AUTO_SHARE, or 0 if that gives too few steps per configuration."""
    if share is not None:
        return share
    return AUTO_SHARE if int(steps * AUTO_SHARE) // configurations >= _WORTH else 0.0


def most_share(share: float | None) -> float:
    """Return ``share``, or its maximum if it is None."""
    return AUTO_SHARE if share is None else share


def proxy_budget_of(steps: int, share: float | None, configurations: int) -> ProxyBudget:
    """Return the length and number of proxy trainings that a share of ``steps`` allows. None is the default share.

    Longer trainings predict better and more seeds reduce noise, so both grow with the square root of the steps.
    """
    each = int(steps * share_of(steps, share, configurations)) // configurations
    if each < FEWEST_STEPS or configurations < FEWEST_CONFIGURATIONS:
        return ProxyBudget(0, 0)
    seeds = max(round(math.sqrt(each / _BALANCED)), 1)
    return ProxyBudget(each // seeds, seeds)


def on_supernets(steps: int, share: float | None, configurations: int) -> int:
    """Return the number of ``steps`` that remain for SuperNets after proxy trainings."""
    length, seeds = proxy_budget_of(steps, share, configurations)
    return steps - configurations * length * seeds


def proxy_budget(experiment: Experiment) -> ProxyBudget:
    """Return the proxy trainings of a run. Spaces too large to list have none."""
    if experiment.space.size > LISTED:
        return ProxyBudget(0, 0)
    return proxy_budget_of(total_steps(experiment), experiment.config.search.proxy, experiment.space.size)


def total_steps(experiment: Experiment) -> int:
    """Return the steps of the search, including proxy trainings.

    A length given in MACs is converted with the mean cost of the space or, if it is too large to list, of the default.
    """
    config, half = experiment.config, len(experiment.halves[0])
    if config.search.macs:
        members, total = _typical(experiment)
        allowed = config.search.macs - measured_macs(experiment) - survey_macs(experiment, config)
        share = most_share(config.search.proxy)
        steps = allowed * members // mean_step_macs(experiment, config, members, total, share)
        # the share is None and the steps are too few for proxy trainings
        if share_of(steps, config.search.proxy, experiment.space.size) < share:
            steps = allowed * members // mean_step_macs(experiment, config, members, total)
        return max(steps, 1)
    return config.search.steps or config.search.epochs * max(half // min(config.training.batch_size, half), 1)


def _typical(experiment: Experiment) -> tuple[int, int]:
    """Return how many configurations represent the mean cost of the space, and the sum of their MACs per image."""
    members = list(experiment.space) if experiment.space.size <= LISTED else [experiment.default]
    return len(members), sum(experiment.cost(pooling).macs for pooling in members)


def search_steps(experiment: Experiment) -> int:
    """Return the number of training steps on SuperNets."""
    length, seeds = proxy_budget(experiment)
    return total_steps(experiment) - experiment.space.size * length * seeds


def step_macs(experiment: Experiment, macs: int, scored: float = 1.0) -> int:
    """Return the MACs of a step at ``macs`` per image.

    A training batch counts as three forward passes, a scoring batch as one. ``scored`` is the share of steps with a
    scoring batch; proxy trainings have none, and neither has a search that scores on training batches.
    """
    training, scoring = (min(experiment.config.training.batch_size, len(half)) for half in experiment.halves)
    return int((3 * training + scored * scoring) * macs)


def scored_share(config: Config) -> float:
    """Return the share of the steps of a search that have a scoring batch: 1, or 0 if it scores on training batches."""
    return 1.0 if config.search.score_on == "held-out" else 0.0


def group_step_macs(experiment: Experiment, poolings: Sequence[Pooling]) -> int:
    """Return the MACs of a search step at these configurations, whose common prefixes run once."""
    return step_macs(experiment, experiment.cost.prefix_macs(poolings), scored_share(experiment.config))


def mean_step_macs(experiment: Experiment, config: Config, members: int, total: int, proxies: float = 0.0) -> int:
    """Return ``members`` times the mean MACs of a step.

    Args:
        experiment: Network, space and batches.
        config: Decides how many configurations train in a step, and how it is scored.
        members, total: How many configurations represent the space, and the sum of their MACs per image.
        proxies: Share of proxy training steps, which train one configuration each and have no scoring batch.
    """
    scored = scored_share(config)
    if config.search.group == 1:
        return step_macs(experiment, total, (1 - proxies) * scored)
    searched = step_macs(experiment, round(members * mean_group_macs(experiment, config)), scored)
    return int((1 - proxies) * searched + proxies * step_macs(experiment, total, 0))


def mean_group_macs(experiment: Experiment, config: Config) -> float:
    """Return the mean MACs per image of the configurations of a step, with common prefixes counted once.

    The mean is over all groups that a sampler without preferences can draw, evenly spaced ones of a large space.
    """
    return _mean_group_macs(experiment.cost, experiment.space, config.search.group, config.search.draw == "rounds")


@lru_cache(maxsize=16)
def _mean_group_macs(cost: CostModel, space: PoolingSpace, group: int, rounds: bool) -> float:
    firsts = [space.size * i // _GROUPS for i in range(_GROUPS)] if space.size > _GROUPS else range(space.size)
    sizes = group_sizes(space.size, group) if rounds else {min(group, space.size): 1}
    total = 0.0
    for size, groups in sizes.items():
        macs = sum(cost.prefix_macs(space[a] for a in consecutive(first, size, space.size)) for first in firsts)
        total += groups * macs / len(firsts)
    return total / sum(sizes.values())


def tried_steps(steps: int) -> int:
    """Return the steps of each half in a branching trial (``branching.measure_gain``) of a search of ``steps`` steps."""
    return max(steps // _TRIED, _FEWEST_TRIED)


def measuring_macs(experiment: Experiment, config: Config, steps: int, macs: int) -> int:
    """Return the maximum MACs of all branching checks in a search of ``steps`` steps, at ``macs`` per image."""
    most = config.search.supernets or 1
    if config.search.branching != "measured" or most == 1:
        return 0
    training, scoring = (min(experiment.config.training.batch_size, len(half)) for half in experiment.halves)
    images = 3 * 4 * tried_steps(steps) * training + 2 * min(SCORED, experiment.space.size) * scoring
    return min(len(CHECKS), most.bit_length() - 1) * TRIALS * images * macs


def measured_macs(experiment: Experiment) -> int:
    """Return the MACs reserved for branching checks if the length of the search is given in MACs, else 0."""
    config = experiment.config
    if not config.search.macs or config.search.branching != "measured":
        return 0
    members, total = _typical(experiment)
    mean = total // members
    step = mean_step_macs(experiment, config, 1, mean)
    return measuring_macs(experiment, config, config.search.macs // step, mean)


def survey_macs(experiment: Experiment, config: Config) -> int:
    """Return the maximum MACs of all surveys (``samplers.Surveys``) in a search with the method of ``config``."""
    surveys = samplers.sampler(config.search.method).surveys
    if surveys is None or experiment.space.size > surveys.most:
        return 0
    per_image = experiment.cost.prefix_macs(experiment.space, config.search.supernets or 1)
    return surveys.count * one_survey_macs(experiment, surveys, per_image)


def one_survey_macs(experiment: Experiment, surveys: samplers.Surveys, per_image: int) -> int:
    """Return the MACs of one survey at ``per_image`` MACs for all configurations.

    Outputs are used for the distances between all pairs of configurations: one multiply-add for each number in an output.
    """
    images = _surveyed_images(experiment, surveys)
    pairs = experiment.space.size * (experiment.space.size - 1) // 2 if surveys.outputs else 0
    return images * (per_image + pairs * len(experiment.source.classes))


def survey_bytes(experiment: Experiment, config: Config) -> int:
    """Return the bytes of the outputs of a survey (two copies in float32, one in float64) and their distances (two copies)."""
    surveys, configurations = samplers.sampler(config.search.method).surveys, experiment.space.size
    if surveys is None or not surveys.outputs or configurations > surveys.most:
        return 0
    numbers = _surveyed_images(experiment, surveys) * len(experiment.source.classes)
    return configurations * (16 * numbers + 8 * configurations)


def _surveyed_images(experiment: Experiment, surveys: samplers.Surveys) -> int:
    return surveys.batches * min(experiment.config.training.batch_size, len(experiment.halves[1]))


def proxy_macs(experiment: Experiment) -> int:
    """Return the MACs of all proxy trainings."""
    length, seeds = proxy_budget(experiment)
    if not seeds:
        return 0
    return length * seeds * step_macs(experiment, sum(experiment.cost(pooling).macs for pooling in experiment.space), 0)


def scoring_macs(experiment: Experiment, poolings: Sequence[Pooling], judge_P: np.ndarray) -> int:
    """Return the MACs of scoring an image at every configuration. Each SuperNet computes a common prefix once."""
    groups = [[p for p, m in zip(poolings, judge_P, strict=True) if m == net] for net in set(judge_P.tolist())]
    return sum(experiment.cost.prefix_macs(group) for group in groups)
