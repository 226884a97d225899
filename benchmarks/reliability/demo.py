"""The demonstration, command by command, killed again and again: its results must be those of one that was let be.

On CIFAR-10 at the size of ``--preset demo``, by the installed command: ``search``, ``rank``, ``refine`` and ``retrain`` in one
folder, ``exhaustive`` of four placements in another. Each is killed by SIGKILL at random moments, several times before it may
end; it is resumed, or typed again where it had not yet written what it was asked for.

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
from soak import Process, asked, results

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import record

DEMO = ["--preset", "demo", "--threads", "1", "--workers", "1"]
LISTED = ["--configs", "5-3-2,4-3-3,6-2-2,3-3-4", "--retrain-seeds", "2", "--retrain-steps", "150"]
KILLS = {"search": 10, "rank": 3, "refine": 5, "retrain": 7, "exhaustive": 5}  # at most, of each
_START = 4.0  # seconds in which nothing of the work is done yet


def arguments(command: str, folder: Path, precision: str) -> list[str]:
    if command == "search":
        return ["search", *DEMO, "--precision", precision, "--checkpoint-minutes", "0.02", "--out", str(folder)]
    if command == "exhaustive":
        return ["exhaustive", *DEMO, *LISTED, "--precision", precision, "--out", str(folder)]
    return [command, str(folder)]


def carried_out(command: str, folder: Path, precision: str, kills: int, seconds: float, draw: random.Random) -> int:
    """Do a command to its end, killed at most so many times on the way; how often it was."""
    at_work, told = 0, arguments(command, folder, precision)
    while True:
        process = Process(told, fresh=True)
        if at_work < kills and process.wait(draw.uniform(_START, _START + seconds)) is None:
            os.kill(process.pid, signal.SIGKILL)
            at_work += process.end()[0] == -signal.SIGKILL
            told = ["resume", str(folder)] if asked(folder, command) else arguments(command, folder, precision)
            continue
        code, said = process.end()
        assert code == 0, said
        return at_work


@click.command()
@click.option("--commands", default=",".join(KILLS), show_default=True)
@click.option("--precision", default="bfloat16+channels_last", show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--write/--no-write", default=True, help="Write a csv of the results.")
def main(commands: str, precision: str, seed: int, write: bool) -> None:
    draw, rows = random.Random(seed), []
    with tempfile.TemporaryDirectory() as name:
        for command in commands.split(","):
            chain = "listed" if command == "exhaustive" else "chain"
            whole, killed = Path(name) / f"{chain}-whole", Path(name) / f"{chain}-killed"
            begin = time.monotonic()
            carried_out(command, whole, precision, 0, 0.0, draw)
            took = time.monotonic() - begin
            kills = carried_out(command, killed, precision, KILLS[command], max(took / 6, 8.0), draw)
            row: dict[str, Any] = {
                **{"command": command, "seconds undisturbed": round(took, 1), "kills": kills},
                "equal": results(killed) == results(whole),
            }
            rows.append(row)
            click.echo(row)
    if write:
        record("soak-demo", rows)
    sys.exit(0 if all(row["equal"] for row in rows) else 1)


if __name__ == "__main__":
    main()
