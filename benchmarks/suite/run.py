"""Run the long experiments one after the other; an interrupted run continues where it stopped.

Each line of ``experiments.txt`` is a lane, a name and a poolwise command. Two lanes use two cores:

    python benchmarks/suite/run.py published --runs runs/suite &
    python benchmarks/suite/run.py truths --runs runs/suite

``{images}`` in a command is the folder that ``images.py`` wrote. Every run folder is ``RUNS/NAME``.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import click

EXPERIMENTS = Path(__file__).with_name("experiments.txt")
RESULTS = {"search": "ranking.json", "exhaustive": "exhaustive.json", "run": "retrain.json"}
MACHINE = "--precision bfloat16+channels_last --threads 1 --workers 1 --quiet"


def experiments(lane: str) -> list[tuple[str, str]]:
    """Return (name, command) of every experiment of a lane, in order."""
    lines = [line.split(maxsplit=2) for line in EXPERIMENTS.read_text().splitlines() if line and line[0] != "#"]
    return [(name, command) for its_lane, name, command in lines if its_lane == lane]


def poolwise(*arguments: str) -> int:
    click.echo(f"poolwise {shlex.join(arguments)}")
    return subprocess.run([str(Path(sys.executable).with_name("poolwise")), *arguments], check=False).returncode


@click.command()
@click.argument("lane")
@click.option("--runs", type=click.Path(path_type=Path), required=True, help="Parent folder of the run folders.")
@click.option("--images", type=click.Path(path_type=Path), default=None, help="Folder written by images.py.")
def main(lane: str, runs: Path, images: Path | None) -> None:
    for name, command in experiments(lane):
        folder, words = runs / name, shlex.split(command.format(images=images))
        if (folder / RESULTS[words[0]]).exists():
            continue
        if (folder / "run.json").exists():
            code = poolwise("resume", str(folder), "--quiet")
        else:
            code = poolwise(*words, *MACHINE.split(), "--out", str(folder))
        if code == 0 and words[0] == "search":
            code = poolwise("rank", str(folder), "--quiet")
        click.echo(f"{name}: exit code {code}")
        if code >= 128:
            return


if __name__ == "__main__":
    main()
