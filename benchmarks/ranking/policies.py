"""Measure what the mixture gains from other ways of keeping scores and assigning configurations, in a branched search.

Each is the search of a study's entry, a branched mixture, with one change:

- ``plain``: no change.
- ``posterior``: posterior means of what a configuration gains on a SuperNet, shrunk by how often it was scored there, instead of
  moving averages.
- ``noise``: the temperature is one over the measured noise of a moving average, instead of a linear rise.
- ``posterior-noise``: posterior means, and the temperature is one over their mean error.
- ``paired``: every SuperNet is scored on the same batch after each step, with fewer steps.
- ``first``, ``macs``: the assignment starts from equal parts by the first pooling position, or by MACs, and is then learned.

``coherence`` is how much likelier than chance two configurations that differ by one layer share a SuperNet (0: as by chance,
1: always). Existing results in ``--out`` are reused; writes a CSV under ``benchmarks/results``.

    python benchmarks/ranking/policies.py "benchmarks/results/samplers-own-table/runs/\
mixture_supernets_4_draw_rounds_norm_affine_warm_up_0.5_rank_on_all-1560-0" --out runs/policies
"""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import click
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import record
from tricks import TABLE, judged

from poolwise import tables
from poolwise.config import Config
from poolwise.experiment import Experiment, resolve
from poolwise.progress import Listener
from poolwise.rankings.scoring import Panel, score_all
from poolwise.spaces import Pooling, PoolingSpace
from poolwise.storage import write_atomically
from poolwise.supernets.assignment import MOVING_AVERAGE
from poolwise.supernets.mixture import Job, StepResult
from poolwise.supernets.samplers.mixture import BalancedMixture
from poolwise.supernets.samplers.scores import Scores
from poolwise.supernets.samplers.task import Task
from poolwise.supernets.state import SearchState
from poolwise.supernets.trainer import train_block
from poolwise.training import correct

AHEAD = 0.06  # initial lead of an assigned part, in accuracy: 3 nats at the temperature of half a search
LEAST = 0.005  # lower bound for the standard deviation of gains on a SuperNet, in accuracy
SLOW = 0.99  # decay of moving averages over all configurations


class Noisy(Scores):
    """Moving averages that estimate their noise."""

    def __init__(self, size: int, supernets: int):
        super().__init__(size, supernets)
        self.variance = 0.25 / 100  # of one accuracy

    def update(self, a: int, m: int, accuracy: float) -> None:
        if self.place(a):
            self._measure(accuracy - float(self._rows[self.place(a), m]))
        super().update(a, m, accuracy)

    def _measure(self, surprise: float) -> None:
        """Update the variance; ``surprise`` has the noise of an accuracy and that of the average before it."""
        fresh = surprise**2 / (1 + (1 - MOVING_AVERAGE) / (1 + MOVING_AVERAGE))
        self.variance = SLOW * self.variance + (1 - SLOW) * fresh

    def error(self) -> float:
        """Return the standard deviation of the noise of a moving average."""
        return float(np.sqrt(self.variance * (1 - MOVING_AVERAGE) / (1 + MOVING_AVERAGE)))


class Posterior(Noisy):
    """``rows`` are posterior means of what a configuration gains on a SuperNet over the mean of both.

    A gain is normal with mean 0 and the variance of the observed gains beyond their noise. An accuracy has 0.9 of the weight of
    the next one for the same configuration and SuperNet, so that observations of earlier weights fade.
    """

    def __init__(self, size: int, supernets: int):
        super().__init__(size, supernets)
        self._rows[:] = 0
        self.level_P, self.offset_M = np.full(size, np.nan), np.zeros(supernets)
        self.sum_PM, self.count_PM = np.zeros((size, supernets)), np.zeros((size, supernets))
        self.prior = 1.0  # noise over variance of the gains: the number of accuracies that the prior is worth

    def update(self, a: int, m: int, accuracy: float) -> None:
        if not self.place(a):
            self._add(a)
            self.level_P[a] = accuracy
        surprise = accuracy - self.level_P[a] - self.offset_M[m]
        self._measure(surprise)
        self.level_P[a] += (1 - MOVING_AVERAGE) * surprise
        self.offset_M[m] += (1 - SLOW) * surprise
        self.sum_PM[a, m] = MOVING_AVERAGE * self.sum_PM[a, m] + surprise
        self.count_PM[a, m] = MOVING_AVERAGE * self.count_PM[a, m] + 1
        seen = self.count_PM >= 1
        spread = np.mean((self.sum_PM[seen] / self.count_PM[seen]) ** 2 - self.variance / self.count_PM[seen])
        self.prior = self.variance / max(float(spread), LEAST**2)
        mean_PM = self.sum_PM / (self.count_PM + self.prior)
        self._rows[1 : len(self) + 1] = mean_PM[self.visited()]

    def copy_first(self) -> None:
        for kept in (self.sum_PM, self.count_PM, self.offset_M, self._rows):
            kept[:] = 0

    def error(self) -> float:
        count_NM = self.count_PM[self.visited()] if len(self) else np.zeros(1)
        return float(np.sqrt(self.variance / (count_NM + self.prior)).mean())


class Ahead(Scores):
    """At the branch, each SuperNet's scores for its first part get a lead; it fades as in any moving average."""

    group_P: np.ndarray

    def copy_first(self) -> None:
        super().copy_first()
        self._rows[np.arange(1, len(self) + 1), self.group_P[self.visited()]] += AHEAD


class Plain(BalancedMixture):
    """The library's mixture, with scores of another kind."""

    kind: ClassVar[type[Scores]] = Scores
    paired: ClassVar[bool] = False

    def __init__(self, task: Task, experiment: Experiment):
        super().__init__(task)
        self.table = self.kind(self.space.size, self.supernets)
        self.others: deque[dict[int, float]] = deque()  # accuracies of the SuperNets that were not trained

    def _learn(self, a: int, m: int, accuracy: float) -> None:
        for other, other_accuracy in self.others.popleft().items() if self.others else ():
            self.table.update(a, other, other_accuracy)


class ByNoise(Plain):
    """The temperature follows from the error of the scores."""

    kind = Noisy

    @property
    def temperature(self) -> float:
        assert isinstance(self.table, Noisy)
        return 1 / self.table.error()


class Means(Plain):
    kind = Posterior


class MeansByNoise(ByNoise):
    kind = Posterior


class Paired(Plain):
    paired = True


class First(Plain):
    """Parts in the order of the space, that is, by the first pooling position."""

    kind = Ahead

    def __init__(self, task: Task, experiment: Experiment):
        super().__init__(task, experiment)
        assert isinstance(self.table, Ahead)
        place_P = np.argsort(np.argsort([self.by(experiment, pooling) for pooling in self.space], kind="stable"))
        self.table.group_P = place_P * self.supernets // self.space.size

    def by(self, experiment: Experiment, pooling: Pooling) -> int:
        return self.space.index(pooling)


class ByMacs(First):
    def by(self, experiment: Experiment, pooling: Pooling) -> int:
        return experiment.cost(pooling).macs


POLICIES: dict[str, type[Plain]] = {
    "plain": Plain,
    "posterior": Means,
    "noise": ByNoise,
    "posterior-noise": MeansByNoise,
    "paired": Paired,
    "first": First,
    "macs": ByMacs,
}


def paired(state: SearchState, sampler: Plain, jobs: Sequence[Job]) -> list[StepResult]:
    """Run the jobs, and score every other SuperNet on the batch of each job."""
    nets, results = state.mixture, []
    for job in jobs:
        results += nets.train_and_score([job])
        if not sampler.first_trains_alone:
            assert job.scoring is not None
            images_BCHW, labels_B = nets.scoring.load(job.scoring)
            right = {
                m: float(correct(lambda x: network(x, job.poolings[0]), images_BCHW, labels_B, nets.precision))  # noqa: B023
                for m, network in enumerate(nets.networks)
                if m != job.supernet
            }
            sampler.others.append({m: count / len(labels_B) for m, count in right.items()})
    return results


def steps_of(config: Config, policy: type[Plain]) -> int:
    """Return the number of steps at the compute of the entry: training takes three passes, scoring one."""
    assert config.search.steps
    if not policy.paired:
        return config.search.steps
    branched = 1 - config.search.warm_up
    return int(config.search.steps * 4 / (4 + branched * (config.search.max_supernets - 1)))


def coherence(space: PoolingSpace, assignment_PM: np.ndarray) -> float:
    """Return the coherence of an assignment over configurations that differ by one layer."""
    index = {pooling.positions: a for a, pooling in enumerate(space)}
    near = [
        (a, index[further])
        for positions, a in index.items()
        for i in range(len(positions))
        if (further := (*positions[:i], positions[i] + 1, *positions[i + 1 :])) in index
    ]
    shared = np.mean([assignment_PM[a] @ assignment_PM[b] for a, b in near])
    chance = 1 / assignment_PM.shape[1]
    return float((shared - chance) / (1 - chance))


def search(config: Config, name: str) -> dict[str, Any]:
    """Return scores in percent after one search with a policy, and statistics of its assignment."""
    policy = POLICIES[name]
    experiment = resolve(config.replace(steps=steps_of(config, policy)))
    state, poolings = SearchState(experiment), list(experiment.space)
    sampler = policy(state.sampler.task, experiment)
    state.sampler = sampler
    while state.step < state.steps:
        train_block(state, (lambda jobs, _watch: paired(state, sampler, jobs)) if policy.paired else None)
    panel = Panel(experiment, poolings, *sampler.judges_of(poolings, experiment.config.ranking.rank_on))
    scores_P = 100 * panel.scores(score_all(experiment, state.mixture.networks, panel, Listener()))
    assignment_PM = sampler.assignment_of(poolings)
    return {
        "scores": scores_P.tolist(),
        "steps": state.steps,
        "temperature": sampler.temperature,
        "entropy": sampler.summary()["entropy"],
        "coherence": coherence(experiment.space, assignment_PM),
    }


@click.command()
@click.argument("entry", type=click.Path(exists=True, path_type=Path))
@click.option("--out", default="runs/policies", show_default=True, type=click.Path(path_type=Path))
@click.option("--policies", default=",".join(POLICIES), show_default=True)
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(entry: Path, out: Path, policies: str, seeds: str, threads: int) -> None:
    torch.set_num_threads(threads)
    table = tables.load(TABLE)
    config = Config.from_flat(json.loads((entry / "run.json").read_text(encoding="utf-8"))["settings"])
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in map(int, seeds.split(",")):
        for name in policies.split(","):
            file = out / f"{name}-{config.search.steps}-{seed}.json"
            if not file.exists():
                write_atomically(file, json.dumps(search(config.replace(seed=seed), name)) + "\n")
            result = json.loads(file.read_text(encoding="utf-8"))
            statistics = {key: round(result[key], 3) for key in ("temperature", "entropy", "coherence")}
            rows.append(
                {
                    "policy": name,
                    "seed": seed,
                    "steps": result["steps"],
                    **statistics,
                    **judged(table, result["scores"]),
                }
            )
            click.echo(rows[-1])
    record(f"policies-{config.search.steps}-{TABLE}", rows)


if __name__ == "__main__":
    main()
