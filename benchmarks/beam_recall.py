"""Measure how often a beam search over pooling positions reaches the best configuration, by beam width.

The true score is synthetic: it falls with the squared distance of the pooling positions from a random optimum.

    python benchmarks/beam_recall.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import numpy as np

from poolwise.rankings.beam import beam
from poolwise.rng import Streams
from poolwise.spaces import Pooling, PoolingSpace

sys.path.insert(0, str(Path(__file__).parent))
from common import record

SPACE = PoolingSpace(30, 5)


@click.command()
@click.option("--seeds", default=50, show_default=True)
@click.option(
    "--noise", default=0.0, show_default=True, help="Noise of a score, in standard deviations of the true score."
)
def main(seeds: int, noise: float) -> None:
    positions_PS = np.array([pooling.positions for pooling in SPACE], float)
    rows = []
    for width in (2, 5, 10, 20, 50, 100):
        hits, tens, counts = 0, 0, []
        for seed in range(seeds):
            generator = np.random.default_rng(seed)
            optimum = positions_PS[generator.integers(SPACE.size)]
            truth_P = -((positions_PS - optimum) ** 2).sum(1)
            score_P = truth_P + noise * truth_P.std() * generator.standard_normal(SPACE.size)

            def score(poolings: list[Pooling], score_P: np.ndarray = score_P) -> np.ndarray:
                return score_P[[SPACE.index(pooling) for pooling in poolings]]

            scores = beam(SPACE, width, score, Streams(seed)["beam"])
            first = SPACE.index(max(scores, key=lambda pooling: scores[pooling]))
            place = int((truth_P > truth_P[first]).sum())
            hits, tens, counts = hits + (place == 0), tens + (place < 10), [*counts, len(scores)]
        share = float(np.mean(counts)) / SPACE.size
        rows.append({"width": width, "seeds": seeds, "noise": noise, "best": hits / seeds, "top_10": tens / seeds})
        rows[-1] |= {"scored": round(share, 5), "configurations": SPACE.size}
        print(rows[-1])
    record("beam-recall", rows)


if __name__ == "__main__":
    main()
