"""A run on disk. Every read is checked against the manifest; every write is listed in it first."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from poolwise.errors import RequestError
from poolwise.sanitize import JSON_BYTES, check_header, parse_json, read_bytes
from poolwise.storage.events import Events
from poolwise.storage.files import (
    FORMAT,
    PART,
    check_format,
    checked,
    make_folder,
    parse_file,
    replace_file,
    sync_folder,
    to_json,
    writing,
)
from poolwise.storage.manifest import Manifest, Print
from poolwise.storage.schemas import FileSchema, RunRequest, validate
from poolwise.storage.trials import Trials

if TYPE_CHECKING:
    import torch

F = TypeVar("F", bound=FileSchema)

REQUEST, SPARE = "run.json", "spare"
_DROP = "drop"  # field of run.json: outdated files that must be deleted before the run continues


class RunFolder:
    """A run on disk: its request, JSON files, events, checkpoints and stand-alone trainings."""

    def __init__(self, path: Path):
        self.path = path
        self.manifest = Manifest(path)

    @classmethod
    def create(cls, path: Path, request: dict[str, Any]) -> RunFolder:
        """Create the folder of a new run. Raises RequestError if it exists and is not empty."""
        cls.check_free(path)
        folder, payload = cls(path), to_json({"format": FORMAT, **request})
        with writing(path / REQUEST, path):
            make_folder(path)
            # write the request first: a folder that holds only the request is a run that can be resumed
            replace_file(path / REQUEST, payload)
        folder.adopt()
        return folder

    @staticmethod
    def check_free(path: Path) -> None:
        """Raise RequestError if a new run cannot be created at ``path``."""
        if os.path.exists(path / REQUEST):  # also False for a path that is not a valid file name
            raise RequestError(
                f"{path} already holds another run: continue it (poolwise resume {path}) or use another --out"
            )
        if os.path.exists(path) and (not path.is_dir() or any(not _unfinished(one) for one in path.iterdir())):
            raise RequestError(f"{path} exists and is not an empty folder: use another --out")

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open an existing run. Raises RequestError if there is none, or if its request and the copy are damaged."""
        if not os.path.isfile(path / REQUEST) and not os.path.isfile(
            path / SPARE / REQUEST
        ):  # also False for a path that is not a valid file name
            raise RequestError(
                f"{path} is not a run folder (it has no run.json): use the --out of an earlier search or run"
            )
        folder = cls(path)
        request = folder.request()
        if "macs" not in request:  # stand-alone trainings of a comparison have fewer fields
            validate(RunRequest, request, f"{path / REQUEST}: ")
        return folder

    def adopt(self) -> bool:
        """Create the manifest from the current files if there is none. Returns whether it was created.

        A manifest is missing in a new run, in a run of a version without manifests, or because it was deleted.
        """
        if self.manifest.exists:
            return False
        fingerprints = {}
        if not self.path.is_dir():
            return False
        for path in sorted([*self.path.glob("*.json"), *self.path.glob("checkpoints/*"), *self.path.glob("*.html")]):
            fingerprint = Print.of_file(path)
            if fingerprint and not _unfinished(path) and path.name != "holder.json":
                fingerprints[path.relative_to(self.path).as_posix()] = fingerprint
        for name in [name for name in fingerprints if name.endswith(".json")]:
            self._write_spare(name, (self.path / name).read_bytes())
        Events(self.path).adopt()
        self.manifest.create(fingerprints, next((run for one in self.databases() if (run := one.stamp())), None))
        return True

    # stand-alone trainings

    def trials(self, name: str = "trials.sqlite") -> Trials:
        """Return the stand-alone trainings of one SQLite file, which is created if it is missing."""
        self.adopt()
        return Trials(self.path / name, self.manifest.read()[0])

    def databases(self) -> list[Trials]:
        """Return the existing SQLite files of stand-alone trainings, without checking them."""
        run = self.manifest.read()[0]
        return [Trials(path, run, check=False) for path in sorted(self.path.glob("*.sqlite"))]

    # request

    def request(self) -> dict[str, Any]:
        return {key: value for key, value in self._request().items() if key != _DROP}

    def _request(self) -> dict[str, Any]:
        return checked(parse_file(self._sound(REQUEST), self.path / REQUEST), self.path / REQUEST)

    def save_request(self, request: dict[str, Any], drop: tuple[str, ...] = ()) -> None:
        """Save the request and delete the files in ``drop``, which the new request makes outdated.

        The two form a transaction: if the process is killed in between, ``settle`` completes it.
        """
        drop = tuple(name for name in drop if self.has(name))
        if drop:
            self.write_json(REQUEST, {**request, _DROP: drop})
            self._drop(drop)
        self.write_json(REQUEST, request)

    def settle(self) -> None:
        """Complete a ``save_request`` that was interrupted, and remove temporary files of killed processes."""
        for path in [*self.path.glob(f".*{PART}"), *self.path.glob(f"*/.*{PART}")]:
            with contextlib.suppress(OSError):
                path.unlink()
        request = self._request()
        if _DROP in request:
            self._drop(tuple(request.pop(_DROP)))
            self.write_json(REQUEST, request)

    def _drop(self, names: tuple[str, ...]) -> None:
        """Delete files, from the manifest first: a file that is not listed counts as missing."""
        with self.manifest.changing() as files:
            for name in names:
                files.pop(name, None)
        with writing(self.path, self.path):
            for name in names:
                (self.path / name).unlink(missing_ok=True)
                (self.path / SPARE / name).unlink(missing_ok=True)
            sync_folder(self.path)

    # files

    def has(self, name: str) -> bool:
        """Return whether a file was written and not dropped since. It may be damaged; see ``repair``."""
        run, files = self.manifest.read()
        return name in files if run else (self.path / name).exists()

    def is_intact(self, name: str) -> bool:
        """Return whether a file exists and has the content that was written."""
        run, files = self.manifest.read()
        current = Print.of_file(self.path / name)
        return current is not None and (not run or current in files.get(name, []))

    def read(self, name: str, missing: str) -> dict[str, Any]:
        """Return the content of a JSON file.

        Raises RequestError if the file is damaged or does not exist yet; ``missing`` is the advice for the latter.
        """
        if not self.has(name):
            raise RequestError(f"{self.path} has no {name} yet: {missing}")
        return checked(parse_file(self._sound(name), self.path / name), self.path / name)

    def load(self, schema: type[F], remedy: str = "") -> F:
        """Return the validated content of the file that ``schema`` describes.

        Raises RequestError if the file is damaged or does not exist yet; ``remedy`` is the advice for the latter.
        """
        path = self.path / schema.FILE
        if not self.has(schema.FILE):
            raise RequestError(f"{self.path} has no {schema.FILE} yet: {remedy or schema.REMEDY.format(run=self.path)}")
        return validate(schema, parse_file(self._sound(schema.FILE), path), f"{path}: ")

    def find(self, schema: type[F]) -> F | None:
        """Return the content of a file as ``load`` does, or None if it does not exist."""
        return self.load(schema) if self.has(schema.FILE) else None

    def _sound(self, name: str) -> bytes:
        """Return the content of a file or, if the file is damaged, of its copy. Raises RequestError if both are."""
        run, files = self.manifest.read()
        known = files.get(name, [])
        for path in (self.path / name, self.path / SPARE / name):
            with contextlib.suppress(OSError):
                data = read_bytes(path, JSON_BYTES)
                if not run or Print.of(data) in known:
                    return data
        if name == REQUEST:
            raise RequestError(
                f"{self.path / name} and its copy do not match manifest.json: a file is damaged or belongs to another run; remove"
                f" manifest.json to accept the files unchecked, then: poolwise resume {self.path}"
            )
        raise RequestError(f"{self.path / name} and its copy are damaged: poolwise resume {self.path} recreates it")

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Write a JSON file and its copy."""
        payload = to_json(value)
        self.write_files({name: payload})
        with writing(self.path / SPARE / name, self.path):
            self._write_spare(name, payload)

    def _write_spare(self, name: str, payload: bytes) -> None:
        (self.path / SPARE).mkdir(exist_ok=True)
        replace_file(self.path / SPARE / name, payload, sync=False)  # no fsync: the file itself is durable

    def write_files(self, contents: dict[str, bytes]) -> None:
        """Write files, each atomically. Raises RunFailure (disk full, no permission, folder missing)."""
        self.adopt()
        with writing(self.path, self.path):
            for folder in {(self.path / name).parent for name in contents} - {self.path}:
                folder.mkdir(exist_ok=True)
        self.manifest.expect({name: Print.of(data) for name, data in contents.items()})
        for name, data in contents.items():
            with writing(self.path / name, self.path):
                replace_file(self.path / name, data)
        with writing(self.path, self.path):
            sync_folder(self.path)

    def repair(self, note: Callable[[str], None], remade: Sequence[str] = ()) -> list[str]:
        """Compare all files with the manifest, and restore damaged ones from their copies where those are valid.

        Args:
            note: receives one line for each damaged file.
            remade: files that count as lost, not as damaged, if they were deleted: the run rebuilds them.

        Returns:
            The names of lost files. They are removed from the manifest, so that ``has`` returns False for them.
        """
        lost = []
        run, files = self.manifest.read()
        for name, known in files.items():
            current = Print.of_file(self.path / name)
            if current in known:
                continue
            what = "is missing" if current is None else "is damaged"
            spare = self.path / SPARE / Path(name).name
            checkpoint = name.startswith("checkpoints/")
            trusted = files.get(f"{SPARE}/{spare.name}", []) if checkpoint else known
            removed = current is None and name in remade
            if removed or name.startswith(f"{SPARE}/") or Print.of_file(spare) not in trusted:
                lost.append(name)
                if not name.startswith(f"{SPARE}/"):
                    note(f"{self.path / name} {what}: it will be recreated")
            elif checkpoint:
                if current is not None:  # a process killed between two renames leaves no file, which is not damage
                    note(f"{self.path / name} {what}: the previous checkpoint is used")
            else:
                with writing(self.path / name, self.path):
                    replace_file(self.path / name, spare.read_bytes())
                note(f"{self.path / name} {what}: it was restored from its copy")
        if lost:
            with self.manifest.changing() as changed:
                for name in lost:
                    changed.pop(name, None)
        for number, name in Events(self.path).mend(bool(run)):
            note(f"{name}: {number} damaged lines were removed")
        for database in self.databases():
            database.repair(note)
        return lost

    # events

    def log(self, event: dict[str, Any]) -> None:
        """Append one event."""
        Events(self.path).log(event)

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of one kind in order, skipping incomplete and damaged lines."""
        return Events(self.path).of(kind, self.manifest.exists)

    def forget_events(self, kind: str, from_step: int) -> None:
        """Drop events that a killed run logged after its last checkpoint: those steps are repeated."""
        Events(self.path).forget(kind, from_step)

    # checkpoints

    def save_checkpoint(
        self, name: str, tensors: dict[str, torch.Tensor], meta: dict[str, Any], keep: bool = False
    ) -> None:
        """Save tensors and JSON metadata in one safetensors file.

        Args:
            name: checkpoint name, without folder and suffix.
            tensors: tensors on any device.
            meta: JSON-compatible values.
            keep: keep the previous checkpoint of this name in ``spare/``.
        """
        from safetensors.torch import save

        plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        payload = save(plain, metadata={"poolwise": json.dumps({"format": FORMAT, **meta})})
        file, spare = checkpoint_name(name), f"{SPARE}/{name}.safetensors"
        Events(self.path).sync()  # after a power failure, no checkpoint may exist without the events before it
        if keep and (self.path / file).exists():
            known = self.manifest.read()[1].get(file, [])
            with self.manifest.changing() as files:
                files[spare] = [*known, *files.get(spare, [])][:4]
            with writing(self.path / spare, self.path):
                (self.path / SPARE).mkdir(exist_ok=True)
                os.replace(self.path / file, self.path / spare)
                sync_folder(self.path / SPARE)
        self.write_files({file: payload})

    def load_checkpoint(self, name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Load the latest valid checkpoint of this name, the previous one if the latest is damaged.

        Returns:
            (tensors, metadata), or None if no checkpoint was saved.

        Raises:
            RequestError: all saved checkpoints are damaged or missing.
        """
        run, listed = self.manifest.read()
        damaged = None
        for file in (checkpoint_name(name), f"{SPARE}/{name}.safetensors"):
            path = self.path / file
            if not path.exists() or (run and file not in listed):
                continue
            if not run or Print.of_file(path) in listed[file]:
                return _unpack(path)
            damaged = damaged or path
        if damaged or checkpoint_name(name) in listed:
            raise RequestError(
                f"checkpoint {damaged or self.path / checkpoint_name(name)} is damaged or missing, and there is no valid"
                f" previous one: poolwise resume {self.path} repeats this stage"
            )
        return None


def checkpoint_name(name: str) -> str:
    return f"checkpoints/{name}.safetensors"


def _unpack(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        check_header(path)
        with safe_open(path, framework="pt") as file:
            meta = parse_json(file.metadata()["poolwise"], str(path))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(f"checkpoint {path} is damaged ({error}): remove it to repeat this stage") from error
    check_format(meta.get("format") if isinstance(meta, dict) else None, path)
    return tensors, meta


def _unfinished(path: Path) -> bool:
    """Return whether a file is a temporary file that a killed process left behind."""
    return path.name.startswith(".") and path.name.endswith(PART)
