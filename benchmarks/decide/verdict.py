"""Measure how often the verdict is wrong, and how often it detects a true gain, in simulated runs.

Two studies, 1,000 runs each. All equal: every configuration has the same true accuracy, refinement picks the one that looks
best in noisy trainings, and fresh seeds judge it. Power: the pick is truly better by the given number of points.

    python benchmarks/decide/verdict.py
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import click
import numpy as np

from poolwise.selection import strategies
from poolwise.spaces import Pooling, PoolingSpace
from poolwise.statistics import compare_paired

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import record

SPACE, DEFAULT = PoolingSpace(10, 2), Pooling.parse("4-3-3")
MARGIN, STEPS = 0.2, 90
LOOKS = {"3 seeds": (3, 3), "5 seeds": (5, 5), "10 seeds": (10, 10), "until decided, 3 to 10 seeds": (3, 10)}


def refined_pick(generator: np.random.Generator, noise: float, trials: int) -> Pooling:
    """Return the pick of refinement when all configurations have the same accuracy (60 %) plus noise."""
    scores = generator.standard_normal(SPACE.size)
    method = strategies.create(
        "refine",
        SPACE,
        seed=int(generator.integers(2**20)),
        macs=2**62,
        steps=STEPS,
        cost=lambda _pooling, steps: steps,
        trials=trials,
        default=DEFAULT,
        hints={"scores": lambda pooling: float(scores[SPACE.index(pooling)])},
    )
    while (ask := method.ask()) is not None:
        method.tell(*ask, 0.6 + noise / 100 * generator.standard_normal())
    return SPACE[int(method.ranking().argmax())]


def judge(generator: np.random.Generator, gain: float, noise: float, looks: tuple[int, int]) -> tuple[str, int]:
    """Return the verdict and the number of seeds that it used."""
    pick = 0.6 + (gain + noise * generator.standard_normal(looks[1])) / 100
    default = 0.6 + noise / 100 * generator.standard_normal(looks[1])
    sequential = looks if looks[0] < looks[1] else None
    for count in range(looks[0], looks[1] + 1):
        test = compare_paired(pick[:count].tolist(), default[:count].tolist(), MARGIN, sequential)
        if test.decided:
            break
    return test.verdict, count


@click.command()
@click.option("--runs", default=1000, show_default=True)
@click.option("--trials", default=7, show_default=True)
@click.option(
    "--noises", default="0.13,1.04", show_default=True, help="Standard deviations of a training's accuracy, in points."
)
def main(runs: int, trials: int, noises: str) -> None:
    rows = []
    for noise in map(float, noises.split(",")):
        picks = [refined_pick(np.random.default_rng([0, run]), noise, trials) for run in range(runs)]
        for name, looks in LOOKS.items():
            for gain in (0.0, 0.5, 1.0, 2.0):
                verdicts = []
                for run, pick in enumerate(picks):
                    if gain == 0 and pick == DEFAULT:
                        verdicts.append(("the default itself", 0))
                    else:
                        verdicts.append(judge(np.random.default_rng([1, run]), gain, noise, looks))
                counts = Counter(verdict for verdict, _ in verdicts)
                names = ("better", "no worse", "not shown", "worse", "the default itself")
                shares = {verdict: counts[verdict] / runs for verdict in names}
                seeds = float(np.mean([count for _, count in verdicts if count]))
                rows.append({"gain": gain, "noise": noise, "looks": name, "runs": runs, **shares, "seeds": seeds})
                print(rows[-1])
    record("verdict", rows)


if __name__ == "__main__":
    main()
