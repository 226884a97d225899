"""Measure how many configurations a second are trained and scored if a step holds one or several that share a prefix.

Every turn takes the same number of steps with each size of the group, on one SuperNet and prepared draws: training batch,
optimizer step, scoring batch. The sizes take turns in one process, in alternating order, so that a ratio to size 1 belongs to one
turn. Beside it stands the ratio of MACs for each configuration, in the mean over all groups.

    python benchmarks/shared_prefix.py --turns 20
    python benchmarks/shared_prefix.py --quick     # a few steps on random images, to see that it works; records nothing
"""

from __future__ import annotations

import time
from typing import Any

import click
import numpy as np
import torch
from common import record, spread

import poolwise
from poolwise.config import Config
from poolwise.datasets.sources import ImageSet, Source
from poolwise.experiment import Experiment, resolve
from poolwise.supernets.budget import mean_step_macs
from poolwise.supernets.mixture import Job
from poolwise.supernets.samplers.draws import group_sizes
from poolwise.supernets.state import SearchState
from poolwise.training.workers import keep_memory

GROUPS = (1, 3, 6, 12)
CASES = {"demo": {"width": 8, "batch_size": 64}, "published": {"width": 16, "batch_size": 128}}
STEPS, WARM = 12, 1  # steps of each size a turn, turns that are not counted


class Lane:
    """A search with one size of the group."""

    def __init__(self, experiment: Experiment):
        self.state = SearchState(experiment)

    @property
    def macs(self) -> float:
        """Mean MACs of a step for each of its configurations."""
        experiment = self.state.experiment
        space, config = experiment.space, experiment.config
        total = sum(experiment.cost(pooling).macs for pooling in space)
        sizes = group_sizes(space.size, config.search.group)
        return mean_step_macs(experiment, config, space.size, total) * sum(sizes.values()) / space.size**2

    def turn(self, steps: int) -> float:
        """Return the configurations a second of ``steps`` steps."""
        sampler, mixture, jobs = self.state.sampler, self.state.mixture, list[Job]()
        for _ in range(steps):
            poolings, m = sampler.ask_group()
            scoring = mixture.scoring.draw() if self.state.experiment.config.search.score_on == "held-out" else None
            jobs.append(Job(poolings, m, 0.01, mixture.training.draw(), scoring))
        started = time.perf_counter()
        results = mixture.train_and_score(jobs)
        seconds = time.perf_counter() - started
        for job, result in zip(jobs, results, strict=True):
            sampler.tell_group(job.poolings, job.supernet, result.accuracies)
        return sum(len(job.poolings) for job in jobs) / seconds


def measured(config: Config, source: Source | None, turns: int, steps: int) -> list[dict[str, Any]]:
    """Return one row for each size of the group and each place of scoring."""
    lanes = {
        (group, score_on): Lane(resolve(config.replace(group=group, score_on=score_on), source))
        for group in GROUPS
        for score_on in ("held-out", "train")
    }
    rates: dict[tuple[int, str], list[float]] = {key: [] for key in lanes}
    for turn in range(WARM + turns):
        for key in list(lanes)[:: 1 if turn % 2 else -1]:
            rate = lanes[key].turn(steps)
            if turn >= WARM:
                rates[key].append(rate)
    one = GROUPS[0], "held-out"
    return [
        {
            "group": group,
            "score_on": score_on,
            "turns": turns,
            "steps": steps,
            "configurations_a_second": round(float(np.median(rates[group, score_on])), 2),
            "macs_ratio": round(lanes[group, score_on].macs / lanes[one].macs, 4),
            **spread(np.divide(rates[group, score_on], rates[one]).tolist()),
        }
        for group, score_on in lanes
    ]


def random_images(count: int, size: int) -> Source:
    """Return images without content, which cost as much as others."""
    generator = np.random.Generator(np.random.PCG64(0))
    train, test = (
        ImageSet(generator.integers(0, 256, (n, size, size, 3), np.uint8), np.arange(n, dtype=np.int64) % 10)
        for n in (count, 100)
    )
    return Source("random", train, test, tuple(f"class{i}" for i in range(10)))


@click.command()
@click.option("--turns", default=20, show_default=True)
@click.option("--quick", is_flag=True, help="A few steps on random images; records nothing.")
def main(turns: int, quick: bool) -> None:
    rows: list[dict[str, Any]] = []
    keep_memory()
    cases: dict[str, dict[str, Any]] = {"quick": {"width": 2, "batch_size": 8}} if quick else CASES
    for case, changes in cases.items():
        config = poolwise.preset("demo", supernets=1, norm="affine", draw="rounds", steps=100_000, short=0.0, **changes)
        source = random_images(200, 8) if quick else None
        if quick:
            config = config.replace(images=None, precision="float32")
        setting = {"case": case, **changes, "threads": torch.get_num_threads()}
        for row in measured(config, source, 1 if quick else turns, 2 if quick else STEPS):
            rows.append({**setting, **row})
            click.echo(
                f"{case}: group {row['group']}, score on {row['score_on']}: {row['median']} times the configurations a second"
                f" of one a step ({row['minimum']} to {row['maximum']}); MACs for each {row['macs_ratio']}"
            )
    if not quick:
        record("shared-prefix", rows)


if __name__ == "__main__":
    main()
