"""Power fails at a random moment of a run: what had not been made to last is lost, and the run goes on to the same bytes.

A run goes on undisturbed while every fsync, rename, removal and new folder of it is watched, and what would be left on the
disk is kept: the content of a file as of its last fsync, the names in a folder as of the folder's last fsync. For a random
moment such a disk is laid out anew. No checkpoint that was saved and no training that was recorded may be lost, and the run
is resumed. The disk is one of these:

    lost   nothing but what was made to last
    names  every name as it was at that moment, and contents as they were made to last: files renamed before their bytes came
    mixed  each name and each content as it lasts or as it was at that moment, at random; what was not synced also cut or zeros

SQLite's own writes are not taken apart: a committed transaction counts as lasting, as it says of synchronous=EXTRA.

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
class Thing:
    """A file or folder, whatever it is called: content or names, as they are and as they last (None: nothing does)."""

    folder: bool
    now: Any = None
    lasting: Any = None


@dataclass
class Disk:
    """What of a folder would be left if power failed, from the calls that make things last."""

    root: Path
    moments: list[Moment] = field(default_factory=list)
    command: int = 0
    steps: dict[str, int] = field(default_factory=dict)  # of the checkpoints that were saved, by name
    trained: dict[str, int] = field(default_factory=dict)  # trainings that were recorded, by file
    _things: dict[int, Thing] = field(default_factory=dict)  # by inode
    _read: dict[int, tuple[int, int]] = field(default_factory=dict)  # times and sizes of what was read

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Calls of this process are watched inside."""
        kept, connect, save = {name: getattr(os, name) for name in _HOOKED}, Trials._connect, RunFolder.save_checkpoint
        for name, own in kept.items():
            setattr(os, name, self._watched(name, own))

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
            for name, own in kept.items():
                setattr(os, name, own)

    def _watched(self, name: str, own: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            about = given[1] if name in ("replace", "rename") else given[0]
            path = os.readlink(f"/proc/self/fd/{about}") if name == "fsync" else os.fsdecode(about)
            if not Path(path).is_relative_to(self.root):
                return own(*given, **named)
            self._moment()
            gone = None
            if name != "fsync" and name != "mkdir":
                with contextlib.suppress(OSError):
                    gone = os.stat(path).st_ino
            found = own(*given, **named)
            if gone is not None:  # its number may be given to another
                self._things.pop(gone, None)
                self._read.pop(gone, None)
            if name == "fsync":
                thing = self._seen(Path(path))
                thing.lasting = dict(thing.now) if thing.folder else thing.now
            return found

        return call

    def _committed(self, path: Path) -> None:
        thing, above = self._seen(path), self._seen(path.parent)
        thing.lasting = thing.now
        above.lasting = {**(above.lasting or {}), path.name: thing}

    def _seen(self, path: Path) -> Thing:
        """A file or folder as it is now."""
        found = os.stat(path)
        thing = self._things.setdefault(found.st_ino, Thing(stat.S_ISDIR(found.st_mode)))
        if thing.folder:
            thing.now = {one.name: self._seen(one) for one in sorted(path.iterdir()) if one.suffix != ".lock"}
        elif self._read.get(found.st_ino) != (found.st_mtime_ns, found.st_size):
            thing.now = path.read_bytes()
            self._read[found.st_ino] = found.st_mtime_ns, found.st_size
        return thing

    def _moment(self) -> None:
        if self.root.is_dir():
            root = _kept(self._seen(self.root), {})
            self.moments.append(Moment(self.command, root, self.steps, self.trained))


def _kept(thing: Thing, known: dict[Thing, Thing]) -> Thing:
    """A copy that what comes later does not change; contents are shared."""
    if thing in known:
        return known[thing]
    copy = known[thing] = Thing(thing.folder, thing.now, thing.lasting)
    if thing.folder:
        copy.now = {name: _kept(own, known) for name, own in thing.now.items()}
        copy.lasting = {name: _kept(own, known) for name, own in (thing.lasting or {}).items()}
    return copy


@dataclass(frozen=True)
class Moment:
    """A moment of a run: which command was at work, the run's folder as it is and as it lasts, and what was said to last."""

    command: int
    root: Thing
    steps: dict[str, int]
    trained: dict[str, int]

    def lay_out(self, path: Path, way: str, draw: random.Random) -> None:
        """Make the folder that is found after power failed at this moment."""
        _lay_out(self.root, path, way, draw)

    def lost(self, path: Path) -> str:
        """What of the saved checkpoints and recorded trainings is not there."""
        opened = RunFolder(path)
        for name, step in self.steps.items():
            loaded = opened.load_checkpoint(name)
            if loaded is None or loaded[1].get("step", 0) < step:
                return f"checkpoint {name} of step {step} is lost"
        for name, count in self.trained.items():
            if count > len(opened.trials(name).all()):
                return f"trainings of {name} are lost"
        return ""


def _lay_out(thing: Thing, path: Path, way: str, draw: random.Random) -> None:
    if not thing.folder:
        path.write_bytes(_content(thing, way, draw))
        return
    path.mkdir()
    now, lasting = thing.now, thing.lasting
    if way == "mixed":
        names = {name: draw.choice((now, lasting)).get(name) for name in sorted({*now, *lasting})}
    else:
        names = lasting if way == "lost" else now
    for name, own in names.items():
        if own is not None:
            _lay_out(own, path / name, way, draw)


def _content(thing: Thing, way: str, draw: random.Random) -> bytes:
    lasting, now = thing.lasting or b"", thing.now
    if way != "mixed" or thing.lasting == now:
        return lasting
    if now.startswith(b"SQLite format 3"):  # it undoes a half transaction itself
        return draw.choice((lasting, now)) if lasting else now
    kept = len(lasting) if now.startswith(lasting) else 0  # what was synced before more was added
    cut = now[: draw.randint(kept, len(now))]
    return draw.choice((lasting, now, cut, cut + bytes(len(now) - len(cut))))


Command = Callable[[Path], Any]


def scripts(data: Path) -> dict[str, list[Command]]:
    """Commands that follow each other on one folder."""
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
    """All that a run computed, and its curves."""
    opened = RunFolder.open(folder)
    return {**results(folder), **{kind: opened.events(kind) for kind in ("search", "assignment")}}


def recorded(script: list[Command], folder: Path) -> tuple[Disk, dict[str, Any]]:
    """Every moment of an undisturbed run, and what it comes to."""
    disk = Disk(folder)
    with disk.watching():
        for disk.command, do in enumerate(script):
            do(folder)
    return disk, everything(folder)


def gone_on(folder: Path, script: list[Command], number: int) -> dict[str, Any]:
    """What a run comes to that power failed in."""
    begun = (folder / "run.json").exists()
    if begun:
        api.resume(folder)
    for do in script[number + (begun and number == 0) :]:  # a command that is typed again finds what is done
        do(folder)
    return everything(folder)


def cut(name: str, script: list[Command], cuts: int, work: Path, draw: random.Random) -> dict[str, Any]:
    """``cuts`` power failures, each at a random moment."""
    disk, expected = recorded(script, work / name)
    equal, wrong = 0, []
    for number in range(cuts):
        place, way, folder = draw.randrange(len(disk.moments)), WAYS[number % len(WAYS)], work / f"{name}-{number}"
        moment = disk.moments[place]
        moment.lay_out(folder, way, draw)
        told = ""
        try:
            told = moment.lost(folder)
            found = gone_on(folder, script, moment.command)
            told += " ".join(key for key in expected if found.get(key) != expected[key])
        except PoolwiseError as error:
            told = str(error)
        except Exception:
            told = traceback.format_exc()
        equal += not told
        if told:
            wrong.append(f"moment {place} of {len(disk.moments)}, {way}: {told}")
        shutil.rmtree(folder)
    click.echo("\n".join([f"{name}: {equal} of {cuts} equal, {len(disk.moments)} moments", *wrong]))
    return {"what": name, "moments": len(disk.moments), "n": cuts, "equal": equal, "wrong": len(wrong)}


@click.command()
@click.option("--cuts", default=100, show_default=True, help="Of each sequence of commands.")
@click.option("--only", help="One sequence: run, stages, exhaustive.")
@click.option("--seed", default=0, show_default=True)
@click.option("--write/--no-write", default=True, help="Write a csv of the results.")
def main(cuts: int, only: str | None, seed: int, write: bool) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name).resolve()
        asked_for = {key: own for key, own in scripts(pictures(work / "pictures")).items() if only in (None, key)}
        rows = [cut(key, own, cuts, work, random.Random(f"{key} {seed}")) for key, own in asked_for.items()]
    if write:
        record("power", [{**row, "seed": seed} for row in rows])
    sys.exit(any(row["wrong"] for row in rows))


if __name__ == "__main__":
    main()
