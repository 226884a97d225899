"""Kill runs at random and damage run folders at random: the results must equal those of an undisturbed run.

Uses a run of tiny images and networks. Kills: SIGKILL of the command at a random moment, then ``poolwise resume``; results must
equal the undisturbed ones byte by byte, except times. The command is forked from a process that has imported poolwise, so that
all kills hit its work and none the start of Python; ``--fresh`` starts the installed command each time. A killed command that is
not yet recorded in the run folder is started again; all others are resumed.

Damage: bits flipped, files cut, emptied, deleted or swapped in a run folder in one of three states, then resume in this process:
it must end in the same results, or with one clear line.

    python benchmarks/reliability/soak.py --kills 25 --damages 200
    python benchmarks/reliability/soak.py --kills 0 --damages 0 --steps 10000
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
import torch
from PIL import Image

from poolwise import api
from poolwise.cli import main as poolwise_main
from poolwise.config import Config
from poolwise.errors import PoolwiseError
from poolwise.models import available
from poolwise.progress import Interrupted, Listener
from poolwise.reports import page  # noqa: F401 (so that no child has to import it)

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import record

POOLWISE = shutil.which("poolwise", path=str(Path(sys.executable).parent)) or "poolwise"
TINY = [
    *("--width", "2", "--batch-size", "8", "--image-size", "8", "--device", "cpu", "--precision", "float32"),
    *("--threads", "1", "--workers", "1"),
]
SEARCH = [*TINY, "--steps", "120", "--supernets", "2", "--checkpoint-minutes", "0.002"]
RETRAIN = ["--retrain-steps", "30", "--retrain-seeds", "2"]
COMMANDS: dict[str, list[str]] = {
    "search": ["search", *SEARCH],
    "rank": ["rank"],
    "refine": ["refine", "--trials", "4"],
    "retrain": ["retrain", *RETRAIN],
    "exhaustive": [
        "exhaustive",
        *TINY,
        "--retrain-steps",
        "30",
        "--retrain-seeds",
        "2",
        "--configs",
        "5-3-2,4-3-3,6-2-2,3-3-4",
    ],
    "run": ["run", *SEARCH, *RETRAIN],
}
OUTPUTS = ("ranking.json", "refine.json", "retrain.json", "verdict.json", "exhaustive.json")
WAYS = ("flip", "cut", "empty", "delete", "swap")


def pictures(root: Path) -> Path:
    """Write a folder of tiny images of two classes."""
    generator = np.random.default_rng(1)
    for i in range(48):
        path = root / ("cats" if i % 2 else "dogs") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        colours = generator.normal(90 + 60 * (i % 2), 40, (8, 8, 3))
        Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8)).save(path)
    return root


def results(folder: Path) -> dict[str, Any]:
    """Return everything that a run has computed, except times."""
    outputs: dict[str, Any] = {name: (folder / name).read_bytes() for name in OUTPUTS if (folder / name).exists()}
    outputs |= {path.name: path.read_bytes() for path in folder.glob("checkpoints/*.safetensors")}
    for path in folder.glob("*.sqlite"):
        with sqlite3.connect(path) as connection:
            rows = "SELECT pooling, seed, budget, accuracy, curve, state FROM trials ORDER BY 3, 1, 2"
            outputs[path.name] = connection.execute(rows).fetchall()
        connection.close()
    return outputs


def arguments(command: str, folder: Path, data: Path) -> list[str]:
    words = COMMANDS[command]
    if command in ("rank", "refine", "retrain"):
        return [words[0], str(folder), *words[1:]]
    return [*words, "--data", f"folder:{data}", "--out", str(folder)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


class Process:
    """A command that runs in its own process: forked from this one, which saves seconds of start-up, or the installed one.

    ``wait`` returns the exit code, or None if the command still runs after ``seconds``.
    """

    def __init__(self, arguments: list[str], fresh: bool):
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the process)
        if fresh:
            self.started: subprocess.Popen[bytes] | None = subprocess.Popen(
                [POOLWISE, *arguments], stdout=subprocess.DEVNULL, stderr=self.log, env=environment()
            )
            self.pid = self.started.pid
            return
        self.started, self.pid = None, os.fork()
        if self.pid == 0:
            _become(arguments, self.log.fileno())

    def wait(self, seconds: float) -> int | None:
        until = time.monotonic() + seconds
        while True:
            if self.started:
                code = self.started.poll()
            else:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                code = os.waitstatus_to_exitcode(status) if pid else None
            if code is not None or time.monotonic() > until:
                return code
            time.sleep(0.002)

    def end(self) -> tuple[int, str]:
        """Return the exit code and standard error."""
        code = self.wait(600)
        assert code is not None, "the command runs for more than ten minutes"
        with self.log:
            self.log.seek(0)
            return code, self.log.read().strip()


def _become(arguments: list[str], log: int) -> None:
    """Run the command line in the forked child, and exit."""
    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(log, 2)
        sys.argv = [POOLWISE, *arguments]
        poolwise_main(arguments)
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def is_recorded(folder: Path, command: str) -> bool:
    """Return whether the run folder records the command; if not, a killed command must be started again."""
    try:
        return any(line.split()[1] == command for line in json.loads((folder / "run.json").read_text())["commands"])
    except OSError:
        return False


def killed(
    command: str, at: float, before: Path | None, folder: Path, data: Path, fresh: bool
) -> tuple[bool, bool, str]:
    """Return whether the command was running when killed, whether the folder recorded it, and the error afterwards."""
    if before:
        shutil.copytree(before, folder)
    process = Process(arguments(command, folder, data), fresh)
    if process.wait(at) is None:
        os.kill(process.pid, signal.SIGKILL)
        working = process.end()[0] == -signal.SIGKILL
    else:
        working = False
    recorded = is_recorded(folder, command)
    code, message = Process(["resume", str(folder)] if recorded else arguments(command, folder, data), fresh).end()
    return working, recorded, "" if code == 0 else message[-300:]


def soak_kills(
    command: str, kills: int, work: Path, data: Path, draw: random.Random, fresh: bool = False
) -> dict[str, Any]:
    """Send ``kills`` SIGKILLs, each at a random moment of the undisturbed command's duration."""
    before = None
    if command in ("rank", "refine", "retrain"):
        before = work / f"{command}-before"
        for stage in ("search",) if command == "rank" else ("search", "rank"):
            assert Process(arguments(stage, before, data), fresh).end()[0] == 0
    folder = work / command
    if before:
        shutil.copytree(before, folder)
    started = time.monotonic()
    code, message = Process(arguments(command, folder, data), fresh).end()
    assert code == 0, message
    seconds, expected = time.monotonic() - started, results(folder)
    equal, running, resumed, wrong = 0, 0, 0, []
    for number in range(kills):
        copy = work / f"{command}-{number}"
        working, recorded, error = killed(
            command, draw.uniform(0.2 if fresh else 0.0, 1.0) * seconds, before, copy, data, fresh
        )
        running, resumed = running + working, resumed + (working and recorded)
        is_equal = not error and results(copy) == expected
        equal += is_equal
        if not is_equal:
            wrong.append(error or "results differ")
            click.echo(wrong[-1])
        shutil.rmtree(copy)
    click.echo(f"{command}: {equal} of {kills} equal, {running} killed while running, {resumed} resumed")
    what = f"SIGKILL of {command}" + (", a new interpreter each" if fresh else "")
    return {
        **{"what": what, "n": kills, "at work": running, "resumed": resumed},
        **{"equal": equal, "one line": 0, "wrong": len(wrong)},
    }


def damage(folder: Path, other: Path, draw: random.Random) -> str:
    """Damage one file of a run folder; return what was done."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.endswith((".lock", ".part")))
    path, way = draw.choice(files), draw.choice(WAYS)
    data = path.read_bytes()
    if way == "flip" and data:
        place = draw.randrange(len(data))
        data = data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :]
    elif way == "cut" and data:
        data = data[: draw.randrange(len(data))]
    elif way == "swap":
        rival = draw.choice([other / path.relative_to(folder), *files])
        data = rival.read_bytes() if rival.exists() else b""
    else:
        data = b""
    if way == "delete":
        path.unlink()
    else:
        path.write_bytes(data)
    return f"{way} {path.relative_to(folder)}"


class Stop(Listener):
    """Stops a run after ``units`` units."""

    def __init__(self, units: int):
        self.units = units

    def advance(self, units: int = 1, **info: Any) -> None:
        self.units -= units
        self.stopping = self.units <= 0


def states(work: Path, data: Path) -> dict[str, Path]:
    """Return folders of one run during search, during retraining and at its end, and of one other run."""
    config = Config.from_flat(
        width=2, batch_size=8, image_size=8, steps=60, supernets=2, device="cpu", precision="float32", threads=1,
        data=f"folder:{data}", retrain_steps=10, retrain_seeds=2, draw="rounds", checkpoint_minutes=0.002,
    )  # fmt: skip
    folders = {name: work / name for name in ("searching", "retraining", "whole", "other")}
    for name, units in (("searching", 40), ("retraining", 100)):
        with contextlib.suppress(Interrupted):
            api.run(config, folders[name], listener=Stop(units))
    api.run(config, folders["whole"])
    api.run(Config.from_flat({**config.to_flat(), "seed": 5}), folders["other"])
    return folders


def differing(folder: Path, expected: dict[str, Any], state: str, what: str) -> str:
    """Return the names of results that are not as expected.

    Inputs of a finished stage are not restored: the search's last state once a run is ranked, and the trials of a finished run,
    which are in retrain.json.
    """
    outputs = results(folder)
    compared = [name for name in expected if not (state == "whole" and name.endswith(".sqlite"))]
    if state != "searching" and what.endswith("checkpoints/search.safetensors"):
        compared.remove("search.safetensors")
    return " ".join(name for name in compared if outputs.get(name) != expected[name])


def soak_damages(damages: int, work: Path, data: Path, draw: random.Random) -> dict[str, Any]:
    """Damage a run folder in one of three states, each time followed by resume and report.

    Where the message says to remove manifest.json, that is done, and the run must then end in the same bytes.
    """
    folders = states(work, data)
    expected, equal, refused, wrong = results(folders["whole"]), 0, 0, []
    for number in range(damages):
        state, folder = ("searching", "retraining", "whole")[number % 3], work / f"damaged-{number}"
        shutil.copytree(folders[state], folder)
        what, complete = damage(folder, folders["other"], draw), True
        try:
            try:
                api.resume(folder)
            except PoolwiseError as error:
                refused, complete = refused + 1, False
                click.echo(f"{state}, {what}: {error}")
                if "manifest.json" not in str(error):
                    continue
                (folder / "manifest.json").unlink()
                api.resume(folder)
            api.report(folder)
            other = differing(folder, expected, state, what)
            equal += complete and not other
            if other:
                wrong.append(f"{state}, {what}: {other} differs")
                click.echo(wrong[-1])
        except Exception as error:  # any other exception would be a traceback at the terminal
            wrong.append(f"{state}, {what}: {error!r}")
            click.echo(wrong[-1])
        finally:
            shutil.rmtree(folder)
    click.echo(f"damages: {equal} resumed with equal results, {refused} failed with one clear line, {len(wrong)} wrong")
    return {
        **{"what": "damage", "n": damages, "at work": "", "resumed": ""},
        **{"equal": equal, "one line": refused, "wrong": len(wrong)},
    }


class Watching(Listener):
    """Records memory and open files during a search."""

    def __init__(self) -> None:
        self.process, self.step = psutil.Process(), 0
        self.seen: list[tuple[int, float, int]] = []

    def advance(self, units: int = 1, **info: Any) -> None:
        before, self.step = self.step, self.step + units
        if before // 500 < self.step // 500:
            self.seen.append((self.step, self.process.memory_info().rss / 2**20, self.process.num_fds()))


def long_run(steps: int, work: Path, data: Path) -> list[dict[str, Any]]:
    """Return MiB and file handles of this process after every 500 steps of one search."""
    config = Config.from_flat(
        width=2, batch_size=8, image_size=8, steps=steps, supernets=2, device="cpu", precision="float32", threads=1,
        data=f"folder:{data}", draw="rounds", checkpoint_minutes=0.05,
    )  # fmt: skip
    watching = Watching()
    api.search(config, work / "long", listener=watching)
    return [{"step": step, "MiB": round(mib, 1), "handles": handles} for step, mib, handles in watching.seen]


@click.command()
@click.option("--kills", default=25, show_default=True, help="Kills per command.")
@click.option("--commands", default=",".join(COMMANDS), show_default=True)
@click.option("--damages", default=200, show_default=True)
@click.option("--steps", default=0, show_default=True, help="Steps of one long search whose memory is watched.")
@click.option("--seed", default=0, show_default=True)
@click.option("--fresh", is_flag=True, help="Start the installed command each time, instead of a fork.")
@click.option("--write/--no-write", default=True, help="Write the results to a CSV file.")
def main(kills: int, commands: str, damages: int, steps: int, seed: int, fresh: bool, write: bool) -> None:
    draw, rows = random.Random(seed), []
    torch.set_num_threads(1)
    available()  # imports the families of networks, so that no child has to
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        data = pictures(work / "pictures")
        for command in commands.split(",") if kills else ():
            rows.append(soak_kills(command, kills, work, data, draw, fresh))
        if damages:
            rows.append(soak_damages(damages, work, data, draw))
        if rows and write:
            record("soak", rows)
        if steps:
            seen = long_run(steps, work, data)
            click.echo(f"growth after 500 steps: {seen[-1]['MiB'] - seen[0]['MiB']:.1f} MiB")
            if write:
                record("long-run", seen)
    sys.exit(1 if any(row["wrong"] for row in rows) else 0)


if __name__ == "__main__":
    main()
