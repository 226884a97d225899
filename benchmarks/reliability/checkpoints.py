"""Measure what checkpoints cost, and how long resuming takes: the demonstration's search, and 8 SuperNets of full width.

Saving and stepping take turns in one process, so that other load on the machine affects both. Per repeat: seconds of some steps,
and seconds of one save. A search saves at its start, at its end, and every ``--checkpoint-minutes`` (5 by default): the share is
that of all saves in the full search. Resuming is timed as ``poolwise resume`` of a search with one step left, from the command
to its end: Python, images, the checkpoint, the step, and one more save. It is measured in wall-clock time, and in CPU seconds,
which do not depend on other load. "read" is only reading the checkpoint.

    python benchmarks/reliability/checkpoints.py
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from soak import Stop

from poolwise import api
from poolwise.config import Config, preset
from poolwise.experiment import resolve
from poolwise.progress import Interrupted
from poolwise.storage import RunFolder
from poolwise.supernets.state import SearchState
from poolwise.supernets.trainer import train_block

sys.path.append(str(Path(__file__).parents[1]))
from common import record

POOLWISE = shutil.which("poolwise", path=str(Path(sys.executable).parent)) or "poolwise"
SECONDS = 300.0  # between two checkpoints, by default


def cases(data: str) -> dict[str, Config]:
    """Return two searches on CIFAR-10, on one thread."""
    fixed = {"precision": "float32", "threads": 1, "workers": 1, "device": "cpu", "data": data}
    return {
        "demo": preset("demo", **fixed),
        "8 SuperNets of full width": preset("paper", supernets=8, images=10_000, **fixed),
    }


def time_resume(config: Config, folder: Path, repeats: int) -> tuple[list[float], list[float]]:
    """Return wall-clock and CPU seconds of ``poolwise resume`` of copies of a search with one step left."""
    short = config.replace(steps=4, block=1)
    with contextlib.suppress(Interrupted):
        api.search(short, folder, listener=Stop(short.search.steps - 1))  # one step left
    seconds, cpu = [], []
    for number in range(repeats):
        copy = shutil.copytree(folder, folder.with_name(f"{folder.name}-{number}"))
        started, before = time.perf_counter(), os.times()
        subprocess.run([POOLWISE, "resume", str(copy), "--quiet"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
        after = os.times()
        cpu.append(after.children_user + after.children_system - before.children_user - before.children_system)
        shutil.rmtree(copy)
    return seconds, cpu


def measure(name: str, config: Config, repeats: int, blocks: int, work: Path) -> dict[str, Any]:
    """Return median, minimum and maximum over the repeats."""
    experiment = resolve(config)
    state, folder = SearchState(experiment), RunFolder.create(work / "saved", {"stages": [], "macs": 1})
    steps, saves, reads, shares = [], [], [], []
    train_block(state)
    for _ in range(repeats):
        started = time.perf_counter()
        count = sum(len(train_block(state)) for _ in range(blocks))
        middle = time.perf_counter()
        state.save(folder)
        saved = time.perf_counter()
        assert SearchState.restore(state, folder)
        steps.append((middle - started) / count)
        saves.append(saved - middle)
        reads.append(time.perf_counter() - saved)
        search_seconds = steps[-1] * state.steps
        shares.append(saves[-1] * (2 + search_seconds // SECONDS) / search_seconds)
    size = (folder.path / "checkpoints" / "search.safetensors").stat().st_size
    shutil.rmtree(folder.path)
    resumes, cpu = time_resume(config, work / "resumed", max(repeats // 3, 3))
    row = {"case": name, "repeats": repeats, "MiB": round(size / 2**20, 1), "steps": state.steps}
    for what, values, digits in (
        ("step", steps, 4), ("save", saves, 4), ("read", reads, 4), ("share of a search", shares, 6), ("resume", resumes, 2),
        ("CPU of resume", cpu, 2),
    ):  # fmt: skip
        row[f"{what}: median"] = round(float(np.median(values)), digits)
        row[f"{what}: least"], row[f"{what}: most"] = round(min(values), digits), round(max(values), digits)
    return row


@click.command()
@click.option("--repeats", default=9, show_default=True)
@click.option("--blocks", default=1, show_default=True, help="Blocks of steps before each save.")
@click.option("--data", default="cifar10", show_default=True)
@click.option("--write/--no-write", default=True, help="Write the results to a CSV file.")
def main(repeats: int, blocks: int, data: str, write: bool) -> None:
    rows = []
    for name, config in cases(data).items():
        with tempfile.TemporaryDirectory() as work:
            rows.append(measure(name, config, repeats, blocks, Path(work)))
        click.echo(rows[-1])
    if write:
        record("checkpoints", rows)


if __name__ == "__main__":
    main()
