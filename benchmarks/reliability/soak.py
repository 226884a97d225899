"""Runs that are killed at random, and run folders that are damaged at random: what comes out must be what came out undisturbed.

A run of tiny images and networks. Kills: SIGKILL of the command at a random moment, then ``poolwise resume``; results are the
same as the undisturbed ones byte by byte, times aside. The command is forked from a process that has imported poolwise, so that
all kills fall into its work and none into the start of Python; ``--fresh`` starts the installed one anew each time. A killed
command that had not yet written what it was asked for is typed again; all others are resumed.

Damage: bits flipped, files cut, emptied, deleted or swapped in the folder of a run in one of three states, then resume in this
process: it ends in the same results, or with one clear line.

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
    """A folder of two classes of tiny pictures."""
    generator = np.random.default_rng(1)
    for i in range(48):
        path = root / ("cats" if i % 2 else "dogs") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        colours = generator.normal(90 + 60 * (i % 2), 40, (8, 8, 3))
        Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8)).save(path)
    return root


def results(folder: Path) -> dict[str, Any]:
    """Everything that a run has computed, times left out."""
    found: dict[str, Any] = {name: (folder / name).read_bytes() for name in OUTPUTS if (folder / name).exists()}
    found |= {path.name: path.read_bytes() for path in folder.glob("checkpoints/*.safetensors")}
    for path in folder.glob("*.sqlite"):
        with sqlite3.connect(path) as connection:
            rows = "SELECT pooling, seed, budget, accuracy, curve, state FROM trials ORDER BY 3, 1, 2"
            found[path.name] = connection.execute(rows).fetchall()
        connection.close()
    return found


def arguments(command: str, folder: Path, data: Path) -> list[str]:
    own = COMMANDS[command]
    if command in ("rank", "refine", "retrain"):
        return [own[0], str(folder), *own[1:]]
    return [*own, "--data", f"folder:{data}", "--out", str(folder)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


class Process:
    """A command at work in a process of its own: forked from this one, which spares it seconds of starting, or the installed one.

    ``wait`` gives the exit code, or None where it is still at work after so many seconds.
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
        """Exit code and what it said on standard error."""
        code = self.wait(600)
        assert code is not None, "more than ten minutes"
        with self.log:
            self.log.seek(0)
            return code, self.log.read().strip()


def _become(arguments: list[str], log: int) -> None:
    """The child: the command line, and nothing after it."""
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


def asked(folder: Path, command: str) -> bool:
    """Whether the folder knows of the command; what was killed before is typed again."""
    try:
        return any(told.split()[1] == command for told in json.loads((folder / "run.json").read_text())["commands"])
    except OSError:
        return False


def killed(
    command: str, at: float, before: Path | None, folder: Path, data: Path, fresh: bool
) -> tuple[bool, bool, str]:
    """Whether the command was at work when it was killed, whether the folder knew of it, and what went wrong afterwards."""
    if before:
        shutil.copytree(before, folder)
    process = Process(arguments(command, folder, data), fresh)
    if process.wait(at) is None:
        os.kill(process.pid, signal.SIGKILL)
        working = process.end()[0] == -signal.SIGKILL
    else:
        working = False
    known = asked(folder, command)
    code, told = Process(["resume", str(folder)] if known else arguments(command, folder, data), fresh).end()
    return working, known, "" if code == 0 else told[-300:]


def soak_kills(
    command: str, kills: int, work: Path, data: Path, draw: random.Random, fresh: bool = False
) -> dict[str, Any]:
    """``kills`` SIGKILLs, each at a random moment of the time that the undisturbed command takes."""
    before = None
    if command in ("rank", "refine", "retrain"):
        before = work / f"{command}-before"
        for one in ("search",) if command == "rank" else ("search", "rank"):
            assert Process(arguments(one, before, data), fresh).end()[0] == 0
    folder = work / command
    if before:
        shutil.copytree(before, folder)
    begin = time.monotonic()
    code, told = Process(arguments(command, folder, data), fresh).end()
    assert code == 0, told
    seconds, expected = time.monotonic() - begin, results(folder)
    equal, at_work, resumed, wrong = 0, 0, 0, []
    for number in range(kills):
        again = work / f"{command}-{number}"
        working, known, error = killed(
            command, draw.uniform(0.2 if fresh else 0.0, 1.0) * seconds, before, again, data, fresh
        )
        at_work, resumed = at_work + working, resumed + (working and known)
        same = not error and results(again) == expected
        equal += same
        if not same:
            wrong.append(error or "other bytes")
            click.echo(wrong[-1])
        shutil.rmtree(again)
    click.echo(f"{command}: {equal} of {kills} equal, {at_work} at work, {resumed} resumed")
    what = f"SIGKILL of {command}" + (", a new interpreter each" if fresh else "")
    return {
        **{"what": what, "n": kills, "at work": at_work, "resumed": resumed},
        **{"equal": equal, "one line": 0, "wrong": len(wrong)},
    }


def damage(folder: Path, other: Path, draw: random.Random) -> str:
    """Spoil one file of a run folder; what was done."""
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
    """Stops a run after so many units."""

    def __init__(self, units: int):
        self.units = units

    def advance(self, units: int = 1, **info: Any) -> None:
        self.units -= units
        self.stopping = self.units <= 0


def states(work: Path, data: Path) -> dict[str, Path]:
    """Folders of one run as it is while searching, while retraining and in the end, and one of another run."""
    config = Config.from_flat(
        width=2, batch_size=8, image_size=8, steps=60, supernets=2, device="cpu", precision="float32", threads=1,
        data=f"folder:{data}", retrain_steps=10, retrain_seeds=2, draw="rounds", checkpoint_minutes=0.002,
    )  # fmt: skip
    found = {name: work / name for name in ("searching", "retraining", "whole", "other")}
    for name, units in (("searching", 40), ("retraining", 100)):
        with contextlib.suppress(Interrupted):
            api.run(config, found[name], listener=Stop(units))
    api.run(config, found["whole"])
    api.run(Config.from_flat({**config.to_flat(), "seed": 5}), found["other"])
    return found


def differing(folder: Path, expected: dict[str, Any], state: str, what: str) -> str:
    """Which results are not as expected.

    What a finished stage was made of is not made again for its own sake: of a ranked run the search's last state, of a whole
    one the trials, which are in retrain.json.
    """
    found = results(folder)
    left = [name for name in expected if not (state == "whole" and name.endswith(".sqlite"))]
    if state != "searching" and what.endswith("checkpoints/search.safetensors"):
        left.remove("search.safetensors")
    return " ".join(name for name in left if found.get(name) != expected[name])


def soak_damages(damages: int, work: Path, data: Path, draw: random.Random) -> dict[str, Any]:
    """Damages of a run's folder in one of three states, each followed by resume and report.

    Where one line says to remove manifest.json, that is done, and the run must end in the same bytes then.
    """
    folders = states(work, data)
    expected, equal, told, wrong = results(folders["whole"]), 0, 0, []
    for number in range(damages):
        state, folder = ("searching", "retraining", "whole")[number % 3], work / f"damaged-{number}"
        shutil.copytree(folders[state], folder)
        what, whole = damage(folder, folders["other"], draw), True
        try:
            try:
                api.resume(folder)
            except PoolwiseError as error:
                told, whole = told + 1, False
                click.echo(f"{state}, {what}: {error}")
                if "manifest.json" not in str(error):
                    continue
                (folder / "manifest.json").unlink()
                api.resume(folder)
            api.report(folder)
            other = differing(folder, expected, state, what)
            equal += whole and not other
            if other:
                wrong.append(f"{state}, {what}: other bytes of {other}")
                click.echo(wrong[-1])
        except Exception as error:  # anything else would be a traceback at the terminal
            wrong.append(f"{state}, {what}: {error!r}")
            click.echo(wrong[-1])
        finally:
            shutil.rmtree(folder)
    click.echo(f"damages: {equal} go on and end in the same bytes, {told} end in one line, {len(wrong)} are wrong")
    return {
        **{"what": "damage", "n": damages, "at work": "", "resumed": ""},
        **{"equal": equal, "one line": told, "wrong": len(wrong)},
    }


class Watching(Listener):
    """Memory and open files as a search goes on."""

    def __init__(self) -> None:
        self.process, self.step = psutil.Process(), 0
        self.seen: list[tuple[int, float, int]] = []

    def advance(self, units: int = 1, **info: Any) -> None:
        before, self.step = self.step, self.step + units
        if before // 500 < self.step // 500:
            self.seen.append((self.step, self.process.memory_info().rss / 2**20, self.process.num_fds()))


def long_run(steps: int, work: Path, data: Path) -> list[dict[str, Any]]:
    """MiB and file handles of this process after every 500 steps of one search."""
    config = Config.from_flat(
        width=2, batch_size=8, image_size=8, steps=steps, supernets=2, device="cpu", precision="float32", threads=1,
        data=f"folder:{data}", draw="rounds", checkpoint_minutes=0.05,
    )  # fmt: skip
    watching = Watching()
    api.search(config, work / "long", listener=watching)
    return [{"step": step, "MiB": round(mib, 1), "handles": handles} for step, mib, handles in watching.seen]


@click.command()
@click.option("--kills", default=25, show_default=True, help="Of each command.")
@click.option("--commands", default=",".join(COMMANDS), show_default=True)
@click.option("--damages", default=200, show_default=True)
@click.option("--steps", default=0, show_default=True, help="Of one long search whose memory is watched.")
@click.option("--seed", default=0, show_default=True)
@click.option("--fresh", is_flag=True, help="Start the installed command anew each time, in place of a fork.")
@click.option("--write/--no-write", default=True, help="Write a csv of the results.")
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
