"""Simulate power failures at random moments of a run: only synced data survives, and the run must resume to the same bytes.

An undisturbed run is recorded: every fsync, rename, removal and new folder is watched, and what would remain on disk is kept:
the content of a file as of its last fsync, the names in a folder as of the folder's last fsync. Such a disk is written for a
random moment, and the run is resumed. No saved checkpoint and no recorded training may be lost. The disk is one of these:

    lost   only what was synced
    names  every name as at that moment, contents as synced: files renamed before their bytes were written
    mixed  each name and each content as synced or as at that moment, at random; unsynced contents also cut or zeroed

SQLite's writes are not simulated separately: a committed transaction counts as synced, as synchronous=EXTRA guarantees.

    python benchmarks/reliability/power.py --cuts 300
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import stat
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import torch

from poolwise import api
from poolwise.config import Config
from poolwise.errors import PoolwiseError
from poolwise.storage import RunFolder, Trials

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1]))
from common import record
from soak import pictures, results

WAYS = ("lost", "names", "mixed")
_HOOKED = ("fsync", "replace", "rename", "unlink", "remove", "mkdir")


@dataclass(eq=False)
class Inode:
    """A file or folder, independent of its name: content or names, current and synced (None: nothing is synced)."""

    folder: bool
    now: Any = None
    lasting: Any = None


@dataclass
class Disk:
    """What would remain of a folder after a power failure, from the watched calls."""

    root: Path
    moments: list[Moment] = field(default_factory=list)
    command: int = 0
    steps: dict[str, int] = field(default_factory=dict)  # of the saved checkpoints, by name
    trained: dict[str, int] = field(default_factory=dict)  # number of recorded trainings, by file
    _inodes: dict[int, Inode] = field(default_factory=dict)  # by inode
    _read: dict[int, tuple[int, int]] = field(default_factory=dict)  # times and sizes of files already read

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the calls of this process inside the context."""
        originals, connect, save = (
            {name: getattr(os, name) for name in _HOOKED},
            Trials._connect,
            RunFolder.save_checkpoint,
        )
        for name, function in originals.items():
            setattr(os, name, self._watched(name, function))

        @contextlib.contextmanager
        def connected(trials: Trials) -> Iterator[Any]:
            self._moment()
            with connect(trials) as connection:
                yield connection
                count = connection.execute("SELECT count(*) FROM trials").fetchone()[0]
            self._committed(trials.path)
            self.trained = {**self.trained, trials.path.name: count}

        def saved(folder: RunFolder, name: str, tensors: Any, meta: dict[str, Any], **how: Any) -> None:
            save(folder, name, tensors, meta, **how)
            self.steps = {**self.steps, name: meta.get("step", 0)}

        RunFolder.save_checkpoint = saved  # type: ignore[method-assign]
        Trials._connect = connected  # type: ignore[method-assign]
        try:
            yield
        finally:
            Trials._connect, RunFolder.save_checkpoint = connect, save  # type: ignore[method-assign]
            for name, function in originals.items():
                setattr(os, name, function)

    def _watched(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            target = args[1] if name in ("replace", "rename") else args[0]
            path = os.readlink(f"/proc/self/fd/{target}") if name == "fsync" else os.fsdecode(target)
            if not Path(path).is_relative_to(self.root):
                return function(*args, **kwargs)
            self._moment()
            removed_inode = None
            if name != "fsync" and name != "mkdir":
                with contextlib.suppress(OSError):
                    removed_inode = os.stat(path).st_ino
            result = function(*args, **kwargs)
            if removed_inode is not None:  # the inode may be reused
                self._inodes.pop(removed_inode, None)
                self._read.pop(removed_inode, None)
            if name == "fsync":
                thing = self._seen(Path(path))
                thing.lasting = dict(thing.now) if thing.folder else thing.now
            return result

        return call

    def _committed(self, path: Path) -> None:
        thing, above = self._seen(path), self._seen(path.parent)
        thing.lasting = thing.now
        above.lasting = {**(above.lasting or {}), path.name: thing}

    def _seen(self, path: Path) -> Inode:
        """Return a file or folder in its current state."""
        status = os.stat(path)
        thing = self._inodes.setdefault(status.st_ino, Inode(stat.S_ISDIR(status.st_mode)))
        if thing.folder:
            thing.now = {entry.name: self._seen(entry) for entry in sorted(path.iterdir()) if entry.suffix != ".lock"}
        elif self._read.get(status.st_ino) != (status.st_mtime_ns, status.st_size):
            thing.now = path.read_bytes()
            self._read[status.st_ino] = status.st_mtime_ns, status.st_size
        return thing

    def _moment(self) -> None:
        if self.root.is_dir():
            root = _kept(self._seen(self.root), {})
            self.moments.append(Moment(self.command, root, self.steps, self.trained))


def _kept(thing: Inode, known: dict[Inode, Inode]) -> Inode:
    """Return a copy that later changes do not affect; contents are shared."""
    if thing in known:
        return known[thing]
    copy = known[thing] = Inode(thing.folder, thing.now, thing.lasting)
    if thing.folder:
        copy.now = {name: _kept(entry, known) for name, entry in thing.now.items()}
        copy.lasting = {name: _kept(entry, known) for name, entry in (thing.lasting or {}).items()}
    return copy


@dataclass(frozen=True)
class Moment:
    """A moment of a run: the running command, the folder as it is and as synced, and what must not be lost."""

    command: int
    root: Inode
    steps: dict[str, int]
    trained: dict[str, int]

    def lay_out(self, path: Path, way: str, draw: random.Random) -> None:
        """Write the folder as it remains after a power failure at this moment."""
        _lay_out(self.root, path, way, draw)

    def lost(self, path: Path) -> str:
        """Return a message on saved checkpoints and recorded trainings that are missing, or an empty string."""
        opened = RunFolder(path)
        for name, step in self.steps.items():
            loaded = opened.load_checkpoint(name)
            if loaded is None or loaded[1].get("step", 0) < step:
                return f"checkpoint {name} of step {step} is lost"
        for name, count in self.trained.items():
            if count > len(opened.trials(name).all()):
                return f"trainings of {name} are lost"
        return ""


def _lay_out(thing: Inode, path: Path, way: str, draw: random.Random) -> None:
    if not thing.folder:
        path.write_bytes(_content(thing, way, draw))
        return
    path.mkdir()
    now, lasting = thing.now, thing.lasting
    if way == "mixed":
        names = {name: draw.choice((now, lasting)).get(name) for name in sorted({*now, *lasting})}
    else:
        names = lasting if way == "lost" else now
    for name, entry in names.items():
        if entry is not None:
            _lay_out(entry, path / name, way, draw)


def _content(thing: Inode, way: str, draw: random.Random) -> bytes:
    lasting, now = thing.lasting or b"", thing.now
    if way != "mixed" or thing.lasting == now:
        return lasting
    if now.startswith(b"SQLite format 3"):  # SQLite rolls back an incomplete transaction
        return draw.choice((lasting, now)) if lasting else now
    kept = len(lasting) if now.startswith(lasting) else 0  # the synced part of an appended file
    cut = now[: draw.randint(kept, len(now))]
    return draw.choice((lasting, now, cut, cut + bytes(len(now) - len(cut))))


Command = Callable[[Path], Any]


def scripts(data: Path) -> dict[str, list[Command]]:
    """Return sequences of commands, each on one folder."""
    config = Config.from_flat(
        width=2, batch_size=8, image_size=8, steps=24, supernets=2, device="cpu", precision="float32", threads=1, workers=1,
        data=f"folder:{data}", retrain_steps=6, retrain_seeds=2, draw="rounds", checkpoint_minutes=1e-6, trials=3,
    )  # fmt: skip
    return {
        "run": [lambda out: api.run(config, out)],
        "stages": [
            lambda out: api.search(config, out),
            api.rank,
            api.retrain,
            api.refine,
            lambda out: api.retrain(out, retrain_seeds=3),
        ],
        "exhaustive": [lambda out: api.exhaustive(config, out, configs=["5-3-2", "4-3-3"])],
    }


def everything(folder: Path) -> dict[str, Any]:
    """Return all results of a run, and its curves."""
    opened = RunFolder.open(folder)
    return {**results(folder), **{kind: opened.events(kind) for kind in ("search", "assignment")}}


def recorded(script: list[Command], folder: Path) -> tuple[Disk, dict[str, Any]]:
    """Return every moment of an undisturbed run, and its results."""
    disk = Disk(folder)
    with disk.watching():
        for disk.command, do in enumerate(script):
            do(folder)
    return disk, everything(folder)


def continued(folder: Path, script: list[Command], number: int) -> dict[str, Any]:
    """Resume a run after a power failure; return its results."""
    started = (folder / "run.json").exists()
    if started:
        api.resume(folder)
    for do in script[number + (started and number == 0) :]:  # a repeated command continues from existing results
        do(folder)
    return everything(folder)


def cut(name: str, script: list[Command], cuts: int, work: Path, draw: random.Random) -> dict[str, Any]:
    """Simulate ``cuts`` power failures, each at a random moment."""
    disk, expected = recorded(script, work / name)
    equal, wrong = 0, []
    for number in range(cuts):
        index, way, folder = draw.randrange(len(disk.moments)), WAYS[number % len(WAYS)], work / f"{name}-{number}"
        moment = disk.moments[index]
        moment.lay_out(folder, way, draw)
        message = ""
        try:
            message = moment.lost(folder)
            outcome = continued(folder, script, moment.command)
            message += " ".join(key for key in expected if outcome.get(key) != expected[key])
        except PoolwiseError as error:
            message = str(error)
        except Exception:
            message = traceback.format_exc()
        equal += not message
        if message:
            wrong.append(f"moment {index} of {len(disk.moments)}, {way}: {message}")
        shutil.rmtree(folder)
    click.echo("\n".join([f"{name}: {equal} of {cuts} equal, {len(disk.moments)} moments", *wrong]))
    return {"what": name, "moments": len(disk.moments), "n": cuts, "equal": equal, "wrong": len(wrong)}


@click.command()
@click.option("--cuts", default=100, show_default=True, help="Power failures per sequence of commands.")
@click.option("--only", help="Run one sequence: run, stages or exhaustive.")
@click.option("--seed", default=0, show_default=True)
@click.option("--write/--no-write", default=True, help="Write the results to a CSV file.")
def main(cuts: int, only: str | None, seed: int, write: bool) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name).resolve()
        sequences = {key: script for key, script in scripts(pictures(work / "pictures")).items() if only in (None, key)}
        rows = [cut(key, script, cuts, work, random.Random(f"{key} {seed}")) for key, script in sequences.items()]
    if write:
        record("power", [{**row, "seed": seed} for row in rows])
    sys.exit(any(row["wrong"] for row in rows))


if __name__ == "__main__":
    main()
