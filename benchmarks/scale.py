"""Measure what drawing and assigning cost in a search, by number of configurations, from 36 to 10^6.

Runs only the sampler, as in every search: ask, tell, balance; accuracies come from a seeded generator. Memory is what Python
and numpy allocate for it.

    python benchmarks/scale.py --steps 2000
"""

from __future__ import annotations

import json
import time
import tracemalloc

import click
import numpy as np
from common import record, spread

from poolwise.rng import Streams
from poolwise.spaces import PoolingSpace
from poolwise.supernets import samplers

SPACES = ((10, 2), (17, 3), (26, 4), (41, 4), (46, 5))  # layers and poolings: 36, 560, 12,650, 91,390, 1,221,759


def run_sampler(space: PoolingSpace, method: str, steps: int) -> tuple[samplers.Sampler, float]:
    """Return a sampler after ``steps`` steps, and seconds per step."""
    streams, accuracies = Streams(1), np.random.default_rng(1)
    task = samplers.Task(space, 4, steps, (1.0, 100.0), "rounds", streams["draw"], streams["assign"])
    sampler = samplers.sampler(method)(task)
    started = time.perf_counter()
    for _ in range(steps // 8):
        draws = [sampler.ask() for _ in range(8)]
        for pooling, m in draws:
            sampler.tell(pooling, m, 0.3 + 0.02 * pooling[0] / space.layers + 0.05 * accuracies.random())
    return sampler, (time.perf_counter() - started) / (steps // 8 * 8)


@click.command()
@click.option("--steps", default=2000, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--methods", default="mixture,boltzmann,mcts", show_default=True)
def main(steps: int, repeats: int, methods: str) -> None:
    rows = []
    for method in methods.split(","):
        for layers, poolings in SPACES:
            space = PoolingSpace(layers, poolings)
            times = [1000 * run_sampler(space, method, steps)[1] for _ in range(repeats)]
            tracemalloc.start()
            sampler, _ = run_sampler(space, method, steps)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            row = {"method": method, "configurations": len(space), "supernets": 4, "steps": steps, "repeats": repeats}
            row |= {"what": "ms a step", **spread(times), "peak KiB": round(peak / 1024)}
            row |= {"visited": len(sampler.visited()), "state KiB": round(len(json.dumps(sampler.state())) / 1024)}
            rows.append(row)
            click.echo(row)
    record("scale", rows)


if __name__ == "__main__":
    main()
