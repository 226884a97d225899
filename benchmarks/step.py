"""A search step against a bare PyTorch loop, and against the fastest that a convolution runs on this machine.

Ours is the whole loop of ``search``: drawing, assigning, loading, augmenting, training, scoring, logging, checkpoints. Bare
is forward, backward, optimizer step and scoring forward of the same configurations in the same precision and memory
order, on batches that are ready, and nothing else. The two take turns in one process, a block of steps each; a ratio
belongs to one turn.

    python benchmarks/step.py --turns 40
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import click
import torch
import torch.nn.functional as F
from common import record, spread

import poolwise
from poolwise.experiment import Experiment, resolve
from poolwise.models.chain import batch_norm
from poolwise.models.supernet import SwitchableNet
from poolwise.pipeline.autotuning import training_batch
from poolwise.progress import Listener
from poolwise.rng import Streams
from poolwise.spaces import Pooling
from poolwise.storage import RunFolder
from poolwise.supernets.state import SearchState
from poolwise.supernets.trainer import train
from poolwise.training.workers import keep_memory

CASES = {
    "demo": {"width": 8, "batch_size": 64, "supernets": 2},
    "published": {"width": 16, "batch_size": 128, "supernets": 4},
}
BLOCK, WARM = 8, 2  # steps a turn, turns that are not counted


class Turns(Listener):
    """Listens to a search: after each of its blocks the bare loop does the same steps, and both times are kept."""

    def __init__(self, state: SearchState, bare: Bare):
        self.bare, self.asked = bare, list[tuple[Pooling, int]]()
        # seconds of ours and of bare, what was asked
        self.turns: list[tuple[float, float, list[tuple[Pooling, int]]]] = []
        ask = state.sampler.ask

        def asking() -> tuple[Pooling, int]:
            self.asked.append(ask())
            return self.asked[-1]

        state.sampler.ask = asking  # type: ignore[method-assign]  # to train the same in the bare loop
        self.begin = time.perf_counter()

    def advance(self, units: int = 1, **info: Any) -> None:
        ours = time.perf_counter() - self.begin
        asked, self.asked = self.asked[:units], self.asked[units:]
        self.turns.append((ours, self.bare.turn(asked), asked))
        self.begin = time.perf_counter()


class Bare:
    """The least that a step takes."""

    def __init__(self, experiment: Experiment):
        self.precision, device = experiment.precision, experiment.device
        self.networks = [
            self.precision.place(SwitchableNet(experiment.build(batch_norm, f"bare{m}", Streams(0))), device)
            for m in range(experiment.config.search.supernets)
        ]
        self.optimizers = [torch.optim.SGD(n.parameters(), lr=0.05, momentum=0.9) for n in self.networks]
        images_BCHW, self.labels_B = training_batch(experiment)
        self.images_BCHW = self.precision.images(images_BCHW)

    def turn(self, asked: list[tuple[Pooling, int]]) -> float:
        """Seconds of one step for each of these configurations and SuperNets."""
        bfloat16 = self.precision.dtype == "bfloat16"
        begin = time.perf_counter()
        for pooling, m in asked:
            network, optimizer = self.networks[m], self.optimizers[m]
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                logits_BK = network(self.images_BCHW, pooling)
            loss = F.cross_entropy(logits_BK.float(), self.labels_B)
            loss.backward()
            optimizer.step()
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                network(self.images_BCHW, pooling)
        return time.perf_counter() - begin


def peak(experiment: Experiment) -> float:
    """Multiply-adds a second of a 3x3 convolution of 64 channels at 32x32 in the chosen precision, forward."""
    order = torch.channels_last if experiment.precision.channels_last else torch.contiguous_format
    number = torch.bfloat16 if experiment.precision.dtype == "bfloat16" else torch.float32
    images = torch.randn(experiment.config.training.batch_size, 64, 32, 32, dtype=number).contiguous(
        memory_format=order
    )
    weight = torch.randn(64, 64, 3, 3, dtype=number).contiguous(memory_format=order)
    seconds = []
    with torch.no_grad():
        for _ in range(12):
            begin = time.perf_counter()
            F.conv2d(images, weight, padding=1)
            seconds.append(time.perf_counter() - begin)
    return images.shape[0] * 32 * 32 * 64 * 64 * 9 / min(seconds)


@click.command()
@click.option("--turns", default=40, show_default=True)
@click.option("--keep/--no-keep", default=True, show_default=True, help="Whether glibc keeps freed memory, for both.")
def main(turns: int, keep: bool) -> None:
    rows = []
    if keep:
        keep_memory()
    for case, changes in CASES.items():
        config = poolwise.preset("demo", steps=(turns + WARM) * BLOCK, block=BLOCK, **changes)
        experiment = resolve(config)
        with tempfile.TemporaryDirectory() as folder:
            state = SearchState(experiment)
            listener = Turns(state, Bare(experiment))
            train(state, RunFolder.create(Path(folder) / "run", config.to_flat()), listener)
        timed = listener.turns[WARM:]
        ratios = [ours / bare for ours, bare, _ in timed]
        each = [ours / BLOCK for ours, _, _ in timed]
        macs = [
            sum(experiment.cost(pooling).macs for pooling, _ in asked) * 4 * config.training.batch_size / ours
            for ours, _, asked in timed
        ]
        best = peak(experiment)
        told = {
            "case": case,
            "width": config.model.width,
            "batch": config.training.batch_size,
            "supernets": config.search.supernets,
        }
        told |= {
            "precision": str(experiment.precision),
            "threads": torch.get_num_threads(),
            "turns": turns,
            "steps": BLOCK,
        }
        for what, values, digits in (
            ("ours / bare", ratios, 4),
            ("ms a step", [1000 * value for value in each], 2),
            ("GMACs a second", [value / 1e9 for value in macs], 1),
            ("share of a convolution's peak", [value / best for value in macs], 3),
        ):
            rows.append({**told, "what": what, **spread(values, digits)})
            click.echo(f"{case}: {what} {spread(values, digits)}")
    record("step" if keep else "step-memory-given-back", rows)


if __name__ == "__main__":
    main()
