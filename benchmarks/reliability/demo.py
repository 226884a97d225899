"""Run the demonstration, killing every command repeatedly: the results must equal those of an undisturbed run.

On CIFAR-10 at the size of ``--preset demo``, with the installed command: ``search``, ``rank``, ``refine`` and ``retrain`` in one
folder, ``exhaustive`` of four configurations in another. Each is killed by SIGKILL at random moments, several times before it may
finish; it is resumed, or started again if the run folder does not yet record the request.

    python benchmarks/reliability/demo.py
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from soak import Process, is_recorded, results

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import record

DEMO = ["--preset", "demo", "--threads", "1", "--workers", "1"]
LISTED = ["--configs", "5-3-2,4-3-3,6-2-2,3-3-4", "--retrain-seeds", "2", "--retrain-steps", "150"]
KILLS = {"search": 10, "rank": 3, "refine": 5, "retrain": 7, "exhaustive": 5}  # at most, per command
_START = 4.0  # seconds before any work is done


def arguments(command: str, folder: Path, precision: str) -> list[str]:
    if command == "search":
        return ["search", *DEMO, "--precision", precision, "--checkpoint-minutes", "0.02", "--out", str(folder)]
    if command == "exhaustive":
        return ["exhaustive", *DEMO, *LISTED, "--precision", precision, "--out", str(folder)]
    return [command, str(folder)]


def run_to_end(command: str, folder: Path, precision: str, kills: int, seconds: float, draw: random.Random) -> int:
    """Run a command to its end, killed at most ``kills`` times on the way; return how often it was killed."""
    killed, command_line = 0, arguments(command, folder, precision)
    while True:
        process = Process(command_line, fresh=True)
        if killed < kills and process.wait(draw.uniform(_START, _START + seconds)) is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += process.end()[0] == -signal.SIGKILL
            command_line = (
                ["resume", str(folder)] if is_recorded(folder, command) else arguments(command, folder, precision)
            )
            continue
        code, message = process.end()
        assert code == 0, message
        return killed


@click.command()
@click.option("--commands", default=",".join(KILLS), show_default=True)
@click.option("--precision", default="bfloat16+channels_last", show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--write/--no-write", default=True, help="Write the results to a CSV file.")
def main(commands: str, precision: str, seed: int, write: bool) -> None:
    draw, rows = random.Random(seed), []
    with tempfile.TemporaryDirectory() as name:
        for command in commands.split(","):
            chain = "listed" if command == "exhaustive" else "chain"
            undisturbed, killed = Path(name) / f"{chain}-undisturbed", Path(name) / f"{chain}-killed"
            started = time.monotonic()
            run_to_end(command, undisturbed, precision, 0, 0.0, draw)
            seconds = time.monotonic() - started
            kills = run_to_end(command, killed, precision, KILLS[command], max(seconds / 6, 8.0), draw)
            row: dict[str, Any] = {
                **{"command": command, "seconds undisturbed": round(seconds, 1), "kills": kills},
                "equal": results(killed) == results(undisturbed),
            }
            rows.append(row)
            click.echo(row)
    if write:
        record("soak-demo", rows)
    sys.exit(0 if all(row["equal"] for row in rows) else 1)


if __name__ == "__main__":
    main()
