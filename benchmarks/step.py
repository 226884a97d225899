"""Compare a search step with a bare PyTorch loop, and with the peak speed of a convolution on this machine.

Ours is the full loop of ``search``: drawing, assigning, loading, augmenting, training, scoring, logging, checkpoints. Bare is
only forward, backward, optimizer step and scoring forward of the same configurations, in the same precision and memory order,
on prepared batches. The two take turns in one process, one block of steps each; a ratio belongs to one turn.

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
    """Listens to a search: after each block, the bare loop does the same steps and both times are kept."""

    def __init__(self, state: SearchState, bare: Bare):
        self.bare, self.drawn = bare, list[tuple[Pooling, int]]()
        # seconds of ours and of bare, configurations and SuperNets drawn
        self.turns: list[tuple[float, float, list[tuple[Pooling, int]]]] = []
        ask = state.sampler.ask_group

        def recording_ask() -> tuple[tuple[Pooling, ...], int]:
            poolings, m = ask()
            self.drawn.append((poolings[0], m))
            return poolings, m

        state.sampler.ask_group = recording_ask  # type: ignore[method-assign]  # so that the bare loop trains the same
        self.started = time.perf_counter()

    def advance(self, units: int = 1, **info: Any) -> None:
        ours = time.perf_counter() - self.started
        drawn, self.drawn = self.drawn[:units], self.drawn[units:]
        self.turns.append((ours, self.bare.turn(drawn), drawn))
        self.started = time.perf_counter()


class Bare:
    """The minimum work of a step."""

    def __init__(self, experiment: Experiment):
        self.precision, device = experiment.precision, experiment.device
        self.networks = [
            self.precision.place(SwitchableNet(experiment.build(batch_norm, f"bare{m}", Streams(0))), device)
            for m in range(experiment.config.search.supernets)
        ]
        self.optimizers = [torch.optim.SGD(n.parameters(), lr=0.05, momentum=0.9) for n in self.networks]
        images_BCHW, self.labels_B = training_batch(experiment)
        self.images_BCHW = self.precision.images(images_BCHW)

    def turn(self, drawn: list[tuple[Pooling, int]]) -> float:
        """Return the seconds of one step for each of these configurations and SuperNets."""
        bfloat16 = self.precision.dtype == "bfloat16"
        started = time.perf_counter()
        for pooling, m in drawn:
            network, optimizer = self.networks[m], self.optimizers[m]
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                logits_BK = network(self.images_BCHW, pooling)
            loss = F.cross_entropy(logits_BK.float(), self.labels_B)
            loss.backward()
            optimizer.step()
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                network(self.images_BCHW, pooling)
        return time.perf_counter() - started


def peak(experiment: Experiment) -> float:
    """Return the MACs per second of a forward 3x3 convolution with 64 channels at 32x32 in the chosen precision."""
    order = torch.channels_last if experiment.precision.channels_last else torch.contiguous_format
    dtype = torch.bfloat16 if experiment.precision.dtype == "bfloat16" else torch.float32
    images = torch.randn(experiment.config.training.batch_size, 64, 32, 32, dtype=dtype).contiguous(memory_format=order)
    weight = torch.randn(64, 64, 3, 3, dtype=dtype).contiguous(memory_format=order)
    seconds = []
    with torch.no_grad():
        for _ in range(12):
            started = time.perf_counter()
            F.conv2d(images, weight, padding=1)
            seconds.append(time.perf_counter() - started)
    return images.shape[0] * 32 * 32 * 64 * 64 * 9 / min(seconds)


@click.command()
@click.option("--turns", default=40, show_default=True)
@click.option("--keep/--no-keep", default=True, show_default=True, help="Let glibc keep freed memory, for both.")
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
        seconds_per_step = [ours / BLOCK for ours, _, _ in timed]
        macs = [
            sum(experiment.cost(pooling).macs for pooling, _ in drawn) * 4 * config.training.batch_size / ours
            for ours, _, drawn in timed
        ]
        peak_macs = peak(experiment)
        setting = {
            "case": case,
            "width": config.model.width,
            "batch": config.training.batch_size,
            "supernets": config.search.supernets,
        }
        setting |= {
            "precision": str(experiment.precision),
            "threads": torch.get_num_threads(),
            "turns": turns,
            "steps": BLOCK,
        }
        for what, values, digits in (
            ("ours / bare", ratios, 4),
            ("ms a step", [1000 * value for value in seconds_per_step], 2),
            ("GMACs a second", [value / 1e9 for value in macs], 1),
            ("share of a convolution's peak", [value / peak_macs for value in macs], 3),
        ):
            rows.append({**setting, "what": what, **spread(values, digits)})
            click.echo(f"{case}: {what} {spread(values, digits)}")
    record("step" if keep else "step-memory-given-back", rows)


if __name__ == "__main__":
    main()
