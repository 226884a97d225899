"""The run folder: what was asked, what happened, what came out. Every write is atomic; nothing is ever unpickled.

``run.json`` request and environment · ``events.jsonl`` progress · ``checkpoints/`` safetensors · ``ranking.json`` ·
``trials.sqlite`` · ``retrain.json`` · ``figures/`` · ``report.html``
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import platformdirs
from filelock import FileLock, Timeout

from poolwise.errors import RequestError, RunFailure
from poolwise.plain import JSON_BYTES, check_header, check_schema, json_text, parse_json, read_bytes
from poolwise.shapes import REQUEST, TRIAL, check, check_file

if TYPE_CHECKING:
    import torch

FORMAT = 1


def cache_folder() -> Path:
    """Where data and calibrations are cached: ``POOLWISE_CACHE``, or the user's cache folder."""
    return Path(os.environ.get("POOLWISE_CACHE") or platformdirs.user_cache_dir("poolwise"))


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failing write into one clear line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunFailure(
            f"cannot write {path}: {reason}; free or choose another place, then: poolwise resume {path.parent}"
        ) from error


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write all or nothing: temporary file beside the target, fsync, rename. Raises RunFailure (disk full, no permission)."""
    payload = data.encode() if isinstance(data, str) else data
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object with a format number that this version knows, bounded. Raises RequestError for anything else."""
    try:
        value = parse_json(read_bytes(path, JSON_BYTES), str(path))
    except FileNotFoundError:
        raise RequestError(f"{path} does not exist") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        found = value.get("format") if isinstance(value, dict) else None
        raise RequestError(f"{path} has format {found!r}: this version of poolwise reads format {FORMAT}")
    return value


def read_checked(path: Path) -> dict[str, Any]:
    """``read_json``, in the shape that the file's name asks for."""
    value = read_json(path)
    check_file(path.name, value, str(path))
    return value


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """No other process works on a folder. RequestError, naming the other, where one does; one that died holds nothing."""
    lock, holder = FileLock(folder / "run.lock"), folder / "holder.json"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = "another process"
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RequestError):
            who = f"process {int(parse_json(read_bytes(holder, 4096), 'holder')['process'])}"
        raise RequestError(
            f"{folder} is being worked on by {who}: wait until it is done, or stop it and try again"
        ) from None
    try:
        write_atomically(holder, json.dumps({"process": os.getpid()}))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


class RunFolder:
    """One run on disk."""

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def create(cls, path: Path, request: dict[str, Any]) -> RunFolder:
        """Start a new run. RequestError where the folder holds another run or anything else."""
        cls.check_free(path)
        folder = cls(path)
        folder.save_request({"format": FORMAT, **request})
        return folder

    @staticmethod
    def check_free(path: Path) -> None:
        """RequestError where a new run cannot be started there."""
        if os.path.exists(path / "run.json"):
            raise RequestError(
                f"{path} holds another run already: go on with it (poolwise resume {path}) or give another --out"
            )
        if os.path.exists(path) and (not path.is_dir() or any(path.iterdir())):
            raise RequestError(f"{path} exists and is not an empty folder: give another --out")

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run."""
        if not os.path.isfile(path / "run.json"):  # also where no file can have such a name
            raise RequestError(
                f"{path} is not a run folder (it has no run.json): give the --out of an earlier search or run"
            )
        request = read_checked(path / "run.json")
        if "macs" not in request:  # stand-alone trials of a comparison say less
            check(request, REQUEST, f"{path / 'run.json'}: ")
        return cls(path)

    def request(self) -> dict[str, Any]:
        return read_checked(self.path / "run.json")

    def save_request(self, request: dict[str, Any]) -> None:
        self.write_json("run.json", request)

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        write_atomically(self.path / name, json_text(value) + "\n")

    def read(self, name: str, missing: str) -> dict[str, Any]:
        """JSON file ``name``; RequestError with ``missing`` (what to do) where it is not there yet."""
        if not (self.path / name).exists():
            raise RequestError(f"{self.path} has no {name} yet: {missing}")
        return read_checked(self.path / name)

    def has(self, name: str) -> bool:
        return (self.path / name).exists()

    # events

    def log(self, event: dict[str, Any]) -> None:
        """Append one event."""
        path = self.path / "events.jsonl"
        with writing(path), path.open("a") as file:
            file.write(json.dumps(event) + "\n")

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Events of one kind in order; a last line that was cut off by a kill is passed over."""
        path = self.path / "events.jsonl"
        found = []
        for line in read_bytes(path, JSON_BYTES).splitlines() if path.exists() else []:
            try:
                event = parse_json(line, str(path))
            except RequestError:
                continue
            if isinstance(event, dict) and event.get("event") == kind:
                found.append(event)
        return found

    def forget_events(self, kind: str, from_step: int) -> None:
        """Drop what a killed run logged after its last checkpoint, which will be done again."""
        path = self.path / "events.jsonl"
        if not path.exists():
            return
        kept = []
        for line in read_bytes(path, JSON_BYTES).splitlines():
            with contextlib.suppress(RequestError, AttributeError, LookupError, TypeError):  # no event at all
                event = parse_json(line, str(path))
                if event.get("event") != kind or event["step"] < from_step:
                    kept.append(line + b"\n")
        write_atomically(path, b"".join(kept))

    # checkpoints

    def save_checkpoint(self, name: str, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
        """Tensors and plain values in one safetensors file."""
        from safetensors.torch import save

        plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        payload = save(plain, metadata={"poolwise": json.dumps({"format": FORMAT, **meta})})
        write_atomically(self.path / "checkpoints" / f"{name}.safetensors", payload)

    def load_checkpoint(self, name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """What ``save_checkpoint`` wrote, or None. RequestError where the file is damaged."""
        from safetensors import SafetensorError, safe_open

        path = self.path / "checkpoints" / f"{name}.safetensors"
        if not path.exists():
            return None
        try:
            check_header(path)
            with safe_open(path, framework="pt") as file:
                meta = parse_json(file.metadata()["poolwise"], str(path))
                return {key: file.get_tensor(key) for key in file.keys()}, meta  # noqa: SIM118 (not a dict)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise RequestError(f"checkpoint {path} is damaged ({error}): remove it to begin this part anew") from error


class Trials:
    """Stand-alone trainings in an SQLite file: one row for a configuration, seed and budget (optimizer steps).

    ``trials.sqlite`` holds those on all training images, judged by the test set; other files those of other purposes.
    """

    def __init__(self, folder: RunFolder, name: str = "trials.sqlite"):
        self.path = folder.path / name
        with self._connect() as connection:
            check_schema(connection, self.path)
            connection.execute(
                "CREATE TABLE IF NOT EXISTS trials (pooling TEXT, seed INTEGER, budget INTEGER, accuracy REAL,"
                " curve TEXT, state TEXT, seconds REAL, error TEXT, PRIMARY KEY (pooling, seed, budget))"
            )
            if "error" not in {row[1] for row in connection.execute("PRAGMA table_info(trials)")}:
                connection.execute("ALTER TABLE trials ADD COLUMN error TEXT")  # a run begun before failures were kept

    @contextlib.contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as connection, connection:
                yield connection
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise RunFailure(f"{self.path}: {error}; free some space or repair it, then: poolwise resume") from error

    def accuracy(self, pooling: str, seed: int, budget: int) -> float | None:
        """Test accuracy of a finished trial, or None."""
        with self._connect() as connection:
            row = connection.execute(
                "SELECT accuracy FROM trials WHERE pooling=? AND seed=? AND budget=? AND state='done'",
                (pooling, seed, budget),
            ).fetchone()
        if row and not isinstance(row[0], float):
            raise RequestError(f"{self.path} is damaged: the accuracy of {pooling}, seed {seed}, is no number")
        return row[0] if row else None

    def states(self, budget: int) -> dict[tuple[str, int], str]:
        """``done`` or ``failed`` for every (pooling, seed) that was trained with this budget."""
        with self._connect() as connection:
            rows = connection.execute("SELECT pooling, seed, state FROM trials WHERE budget=?", (budget,)).fetchall()
        return {(pooling, seed): state for pooling, seed, state in rows}

    def record(self, pooling: str, seed: int, budget: int, accuracy: float, curve: list[Any], seconds: float) -> None:
        """Store a finished trial."""
        self._insert((pooling, seed, budget, accuracy, json.dumps(curve), "done", seconds, None))

    def record_failure(self, pooling: str, seed: int, budget: int, error: str) -> None:
        """Store a trial that could not be carried out."""
        self._insert((pooling, seed, budget, None, "[]", "failed", None, error))

    def _insert(self, values: tuple[Any, ...]) -> None:
        columns = "pooling, seed, budget, accuracy, curve, state, seconds, error"
        with self._connect() as connection:
            connection.execute(f"INSERT OR REPLACE INTO trials ({columns}) VALUES (?,?,?,?,?,?,?,?)", values)

    def all(self) -> list[dict[str, Any]]:
        """Every trial, ordered."""
        with self._connect() as connection:
            connection.row_factory = sqlite3.Row
            rows = connection.execute("SELECT * FROM trials ORDER BY budget, pooling, seed").fetchall()
        return [self._checked(dict(row)) for row in rows]

    def _checked(self, row: dict[str, Any]) -> dict[str, Any]:
        """One training, its curve read. RequestError where it is damaged."""
        if not isinstance(row["curve"], str):
            raise RequestError(f"{self.path} is damaged: it holds a curve that is no text")
        value = {**row, "curve": parse_json(row["curve"], str(self.path))}
        check(value, TRIAL, f"{self.path}: ")
        return value


def environment() -> dict[str, Any]:
    """Versions and hardware that a result depends on."""
    import torch

    versions = {name: metadata.version(name) for name in ("poolwise", "torch", "torchvision", "numpy")}
    return {
        "versions": {"python": platform.python_version(), **versions},
        "hardware": {
            "processor": _processor(),
            "threads": torch.get_num_threads(),
            "system": f"{platform.system()} {platform.machine()}",
            "accelerator": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        },
        "numpy_random": np.random.PCG64.__name__,
    }


def _processor() -> str:
    """Model and widest vector unit where the system tells, so that two machines can be told apart."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        fields = {key.strip(): value.strip() for key, value in fields.items()}
        flags = set(fields.get("flags", "").split())
        units = [unit for unit in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if unit in flags]
        return f"{fields.get('model name', platform.processor())} ({os.cpu_count()} CPUs, {', '.join(units)})"
    return f"{platform.processor() or platform.machine()} ({os.cpu_count()} CPUs)"


def command_line() -> str:
    """The command as it was typed."""
    import shlex

    return shlex.join(["poolwise", *sys.argv[1:]])
