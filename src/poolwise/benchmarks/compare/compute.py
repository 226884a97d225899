"""Compute budgets: MACs of training, scoring, ranking and trials, counted the same way for every method."""

from __future__ import annotations

from functools import cached_property

from poolwise.config import Config
from poolwise.experiment import Experiment
from poolwise.spaces import Pooling
from poolwise.supernets.budget import (
    mean_step_macs,
    measuring_macs,
    most_share,
    on_supernets,
    proxy_budget_of,
    step_macs,
    survey_macs,
)


class Compute:
    """Compute costs of one experiment in MACs.

    A training step counts three forward passes of its batch, a scoring batch one; the shared prefixes of a group that trains
    in one step count once. A ranking evaluates every configuration on the scoring half; shared prefixes count once per
    SuperNet.
    """

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self.training, self.scoring = (len(half) for half in experiment.halves)
        self.batch = min(experiment.config.training.batch_size, self.training)

    @cached_property
    def macs(self) -> dict[Pooling, int]:
        """MACs of one forward pass of one image, for every configuration in the order of the space."""
        return {pooling: self.experiment.cost(pooling).macs for pooling in self.experiment.space}

    def ranking(self, config: Config | None = None) -> int:
        """Return the MACs of ranking all configurations on one SuperNet, or the maximum for the ranking in ``config``.

        With several SuperNets, each computes its own prefixes; recalibrating norms uses additional images.
        """
        images, turns = self.experiment.ranked_images(config), config.ranking_groups if config else [1]
        rotation = config.ranking_turns if config else 1  # each turn sees its share of the images
        return -(-images * sum(self.experiment.cost.prefix_macs(self.macs, nets) for nets in turns) // rotation)

    def budget(self, steps: int) -> int:
        """Return the MACs of ``steps`` steps of a single SuperNet, at the mean MACs of the space, plus its ranking."""
        total = steps * step_macs(self.experiment, sum(self.macs.values()))
        return -(-total // len(self.macs)) + self.ranking()

    def search_steps(self, macs: int, config: Config) -> int:
        """Return the search steps, at the mean MACs of the space, that fit into ``macs`` together with the ranking.

        The result is below 1 if the ranking and the surveys of the method alone exceed ``macs``.
        """
        left, total = macs - self.ranking(config) - survey_macs(self.experiment, config), sum(self.macs.values())
        step = mean_step_macs(self.experiment, config, len(self.macs), total)

        def taken(steps: int) -> int:
            length, seeds = proxy_budget_of(steps, config.search.proxy, len(self.macs))
            searched = on_supernets(steps, config.search.proxy, len(self.macs))
            price = searched * step + measuring_macs(self.experiment, config, searched, total)
            return price // len(self.macs) + length * seeds * step_macs(self.experiment, total, 0)

        mixed = mean_step_macs(self.experiment, config, len(self.macs), total, most_share(config.search.proxy))
        steps = left * len(self.macs) // mixed
        while steps > 0 and taken(steps) > left:  # account for rounding in proxy training and for measuring branching
            steps -= max((taken(steps) - left) * len(self.macs) // (2 * step), 1)
        return steps

    def trial(self, pooling: Pooling, steps: int) -> int:
        """Return the MACs of a stand-alone training on the training half and its evaluation on the scoring half."""
        return (3 * steps * self.batch + self.scoring) * self.macs[pooling]

    @property
    def full_steps(self) -> int:
        """Steps of a full training on the training half: as many epochs as in the table."""
        return self.experiment.half_steps
