"""Measure peak memory of a process: ResNet20 searched with M = 8 at batch 128; ResNet50's 560 configurations ranked at batch 64.

Each case runs in its own process; the peak resident memory that the system reports is compared with the planned memory. The
search runs twice and the second run counts, because the first one calibrates the machine and that has a peak of its own. The
ranking is measured before it is planned, for the same reason.

    python benchmarks/memory.py
"""

from __future__ import annotations

import itertools
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import click
from common import record

import poolwise
from poolwise.config import Config
from poolwise.experiment import resolve
from poolwise.pipeline import estimates

CASES = {
    "search of ResNet20, M = 8, batch 128": (Config.from_flat(steps=64, supernets=8, block=8, workers=1), ["search"]),
    "ranking of ResNet50, 560 configurations, batch 64": (
        Config.from_flat(
            model="resnet50", images=1000, steps=8, supernets=1, eval_batch_size=64, batch_size=32, workers=1
        ),
        ["rank"],
    ),
}


def measure(case: str, precision: str) -> dict:
    """Return peak and planned bytes of one case, measured in this process."""
    from poolwise.models.chain import batch_norm
    from poolwise.models.supernet import SwitchableNet
    from poolwise.rng import Streams
    from poolwise.training import count_correct

    config, stages = CASES[case]
    config = config.replace(precision=precision)
    experiment = resolve(config)
    if stages == ["search"]:
        with tempfile.TemporaryDirectory() as folder:
            poolwise.search(config, Path(folder) / "run", source=experiment.source)
    else:  # one batch of the ranking; all batches need the same memory
        network = SwitchableNet(experiment.build(batch_norm, "init0", Streams(0)))
        experiment.precision.place(network, experiment.device)
        batches = experiment.batches(experiment.training_images, config.ranking.eval_batch_size, experiment.halves[1])
        count_correct(network, list(experiment.space), *next(batches.ordered()), experiment.precision)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    planned = estimates.plan(experiment, stages).memory_bytes
    return {"case": case, "precision": str(experiment.precision), "peak MiB": peak >> 20, "planned MiB": planned >> 20}


@click.command()
@click.argument("case", required=False)
@click.option("--precision", multiple=True, default=["float32", "bfloat16+channels_last"], show_default=True)
def main(case: str | None, precision: tuple[str, ...]) -> None:
    if case:
        return print(json.dumps(measure(case, precision[0])))
    rows = []
    for name, one in itertools.product(CASES, precision):
        command = [sys.executable, __file__, name, "--precision", one]
        for _ in range(2 if CASES[name][1] == ["search"] else 1):
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        click.echo(rows[-1])
    record("memory", rows)


if __name__ == "__main__":
    main()
