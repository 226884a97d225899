"""Real faults during a run: a one-line error, no lost results, and resuming gives the bytes of an undisturbed run."""

import contextlib
import os
import pty
import resource
import select
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from poolwise import api
from poolwise.errors import PoolwiseError
from poolwise.progress import Interrupted, Listener
from poolwise.storage import RunFolder

POOLWISE = shutil.which("poolwise", path=str(Path(sys.executable).parent))
NOBODY = 65534


@pytest.fixture(scope="module")
def config(short_settings):
    return short_settings


@pytest.fixture
def undisturbed(config, tiny_source, tmp_path_factory):
    """Return the folder of a run without faults."""
    folder = tmp_path_factory.getbasetemp() / "undisturbed"
    if not folder.exists():
        api.run(config, folder, source=tiny_source)
    return folder


def results(folder):
    content = {name: (folder / name).read_bytes() for name in ("ranking.json", "retrain.json", "verdict.json")}
    content |= {path.name: path.read_bytes() for path in sorted(folder.glob("checkpoints/*"))}
    with contextlib.closing(sqlite3.connect(folder / "trials.sqlite")) as connection:
        rows = "SELECT pooling, seed, budget, accuracy, curve, state FROM trials ORDER BY 1, 2"
        content["trials"] = connection.execute(rows).fetchall()
    return content


class At(Listener):
    """Calls a function when a stage starts or finishes."""

    def __init__(self, stage, do, when="start"):
        self.wanted, self.do = (stage, when), do

    def expect(self, stage, seconds):
        if (stage, "expect") == self.wanted:
            self.do()

    def start(self, stage, total, done=0):
        self.stage = stage
        if (stage, "start") == self.wanted:
            self.do()

    def finish(self):
        if (self.stage, "finish") == self.wanted:
            self.do()


@contextlib.contextmanager
def small_files():
    """Yield a function that limits the size of files, to simulate a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fails(do, message):
    with pytest.raises(PoolwiseError, match=message) as error:
        do()
    assert error.value.exit_code in (1, 2)
    assert "\n" not in str(error.value)
    return str(error.value)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("stage", "when", "size", "file"),
    [
        ("search", "start", 400, r"events\.jsonl"),
        ("rank", "start", 5000, r"ranking\.json"),
        ("retrain", "expect", 8000, r"trials\.sqlite"),
        pytest.param("search", "start", 9000, r"checkpoints/search\.safetensors", marks=SLOW),
        pytest.param("rank", "start", 300, r"manifest\.json", marks=SLOW),
        pytest.param("retrain", "start", 6000, r"checkpoints/\d-\d-\d-seed1-4steps\.safetensors", marks=SLOW),
        pytest.param("retrain", "finish", 3000, r"verdict\.json|retrain\.json|manifest\.json", marks=SLOW),
        pytest.param("retrain", "finish", 20_000, r"figures/\w+\.svg|retrain\.json", marks=SLOW),
    ],
)
def test_a_run_resumes_after_a_full_disk(config, tiny_source, undisturbed, tmp_path, stage, when, size, file):
    with small_files() as limit:
        listener = At(stage, lambda: limit(size), when)
        fails(lambda: api.run(config, tmp_path / "run", source=tiny_source, listener=listener), file)
    assert not list((tmp_path / "run").rglob("*.part"))
    api.resume(tmp_path / "run", source=tiny_source)
    assert results(tmp_path / "run") == results(undisturbed)
    assert (tmp_path / "run" / "report.html").exists()


@pytest.fixture
def disk(tmp_path):
    """Return a file system in memory and a function that sets its size in KiB; requires root."""
    path = tmp_path / "disk"
    path.mkdir()

    def mounted(*options):
        return subprocess.run(["mount", *options, str(path)], capture_output=True, text=True)

    try:
        done = mounted("-t", "tmpfs", "-o", "size=64m", "tmpfs")
    except FileNotFoundError:
        pytest.skip("mount is not installed")
    if done.returncode:
        pytest.skip(f"cannot mount a file system: {done.stderr.strip()}")
    yield path, lambda kib: mounted("-o", f"remount,size={kib}k").returncode
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "free"), [("search", 130), ("rank", 8), ("retrain", 8), ("retrain", 60)])
def test_a_run_resumes_after_a_really_full_disk(config, tiny_source, undisturbed, disk, stage, free):
    path, resize = disk
    out = path / "run"

    def fill():
        used = sum(one.stat().st_blocks // 2 for one in path.rglob("*"))
        assert resize(used + free) == 0

    frequent = config.replace(checkpoint_minutes=1e-6)
    message = fails(
        lambda: api.run(frequent, out, source=tiny_source, listener=At(stage, fill)), "No space left|is full|I/O"
    )
    assert f"poolwise resume {out}" in message
    assert resize(65536) == 0
    api.resume(out, source=tiny_source)
    content, expected = results(out), results(undisturbed)
    for name in ("retrain.json", "verdict.json", "ranking.json"):  # they contain checkpoint_minutes
        content[name], expected[name] = (text.replace(b"1e-06", b"5.0") for text in (content[name], expected[name]))
    assert content == expected
    assert (out / "report.html").exists()


def test_a_full_disk_at_the_first_write_leaves_no_run(config, tiny_source, undisturbed, tmp_path):
    with small_files() as limit:
        limit(100)
        fails(
            lambda: api.run(config, tmp_path / "run", source=tiny_source), r"cannot write .*run\.json: File too large"
        )
    api.run(config, tmp_path / "run", source=tiny_source)
    assert results(tmp_path / "run") == results(undisturbed)


@pytest.mark.parametrize("name", ["model.safetensors", pytest.param("model.onnx", marks=SLOW)])
def test_a_full_disk_at_export_leaves_no_file(undisturbed, tmp_path, name):
    to = tmp_path / "to" / name
    with small_files() as limit:
        limit(2000)
        fails(lambda: api.export(undisturbed, to), "cannot write .*the same command again")
    assert not to.parent.exists() or list(to.parent.rglob("*")) == []


@contextlib.contextmanager
def nobody():
    """Drop root privileges, if the process has them."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def owned(monkeypatch):
    """Return a folder that unprivileged users can write; the cache is outside of it."""
    with tempfile.TemporaryDirectory(prefix="poolwise-test-") as name:
        folder = Path(name) / "own"
        folder.mkdir()
        os.chmod(name, 0o555)
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        monkeypatch.setenv("POOLWISE_CACHE", str(Path(name) / "cache"))
        yield folder
        os.chmod(folder, 0o755)
        os.chmod(name, 0o755)


def test_a_folder_without_write_permission(config, tiny_source, owned):
    os.chmod(owned, 0o500)
    with nobody():
        fails(lambda: api.run(config, owned / "run", source=tiny_source), "cannot write .*: Permission denied")
    assert list(owned.iterdir()) == []


@pytest.mark.parametrize("stage", ["rank", pytest.param("search", marks=SLOW), pytest.param("retrain", marks=SLOW)])
def test_a_run_resumes_after_losing_write_permission(config, tiny_source, undisturbed, owned, stage):
    out = owned / "run"
    with nobody():
        listener = At(stage, lambda: [os.chmod(path, 0o500) for path in (out, *out.glob("*/"))])
        fails(
            lambda: api.run(config, out, source=tiny_source, listener=listener),
            "Permission denied|readonly|unable to open",
        )
        for path in (out, *out.glob("*/")):
            os.chmod(path, 0o700)
        api.resume(out, source=tiny_source)
    assert results(out) == results(undisturbed)


@pytest.mark.parametrize("stage", ["retrain", pytest.param("search", marks=SLOW), pytest.param("rank", marks=SLOW)])
def test_the_folder_is_moved_or_deleted_during_a_run(config, tiny_source, undisturbed, tmp_path, stage):
    out = tmp_path / "run"
    moved = At(stage, lambda: out.rename(tmp_path / "moved"))
    message = fails(lambda: api.run(config, out, source=tiny_source, listener=moved), "it was deleted or moved")
    assert "restore it" in message
    assert not out.exists()
    (tmp_path / "moved").rename(out)
    removed = At(stage, lambda: shutil.rmtree(out))
    if stage != "search":  # a search is complete by then
        api.resume(out, source=tiny_source)
        assert results(out) == results(undisturbed)
        return
    fails(lambda: api.resume(out, source=tiny_source, listener=removed), "it was deleted or moved")
    assert not out.exists()


def test_results_do_not_depend_on_the_clock(config, tiny_source, undisturbed, tmp_path, monkeypatch):
    now = [2e9]

    def earlier():
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", earlier)
    api.run(config, tmp_path / "run", source=tiny_source)
    assert results(tmp_path / "run") == results(undisturbed)


def test_the_code_does_not_read_the_time_of_day():
    source = Path(api.__file__).parents[1]
    text = "".join(path.read_text() for path in source.rglob("*.py"))
    assert not [word for word in ("time.time(", "datetime", "time_ns(", "localtime(", "gmtime(") if word in text]


def command(*arguments):
    environment = {**os.environ, "COLUMNS": "120", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [POOLWISE, *map(str, arguments)], capture_output=True, text=True, timeout=120, env=environment
    )


TINY = ["--width", "2", "--steps", "20", "--batch-size", "8", "--image-size", "8",
        "--supernets", "2", "--device", "cpu"]  # fmt: skip
TINY += ["--precision", "float32", "--threads", "1", "--retrain-steps", "3", "--retrain-seeds", "2"]


@pytest.mark.slow
def test_changed_or_missing_images_are_reported_on_resume(tmp_path, image_folder):
    out, data = tmp_path / "run", f"folder:{image_folder}"
    assert command("search", *TINY[: TINY.index("--retrain-steps")], "--data", data, "--out", out).returncode == 0
    picture, other = sorted(image_folder.glob("dogs/*.png"))[:2]
    kept = picture.read_bytes()
    picture.write_bytes(other.read_bytes())
    check_error(command("rank", out), 2, "differ from those of the run (fingerprint")
    image_folder.rename(tmp_path / "elsewhere")
    check_error(command("resume", out), 2, "pictures' does not exist")
    (tmp_path / "elsewhere").rename(image_folder)
    picture.write_bytes(kept)
    assert command("resume", out).returncode == 0
    assert (out / "ranking.json").exists()


def check_error(done, code, message):
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert message in done.stderr


def test_a_closed_pipe_stops_the_run_with_a_checkpoint(tmp_path, image_folder):
    out = tmp_path / "run"
    options = [*TINY, "--data", f"folder:{image_folder}", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [POOLWISE, "run", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        assert running.stdout.readline()
        running.stdout.close()
        errors = running.stderr.read()
    assert running.returncode == 141, errors
    assert errors.strip() == f"poolwise: stopped; continue with: poolwise resume {out}"
    assert command("resume", out).returncode == 0
    assert (out / "report.html").exists()


@pytest.mark.slow
def test_a_closed_terminal_stops_the_run_with_a_checkpoint(tmp_path, image_folder):
    """Closing a pseudo-terminal sends SIGHUP; all later writes to it fail."""
    out = tmp_path / "run"
    options = [*TINY, "--steps", "2000", "--data", f"folder:{image_folder}", "--out", str(out)]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(POOLWISE, [POOLWISE, "run", *options], {**os.environ, "OMP_NUM_THREADS": "1"})
    until = time.monotonic() + 60
    while not (out / "events.jsonl").exists() and time.monotonic() < until:
        if select.select([terminal], [], [], 0.1)[0]:
            os.read(terminal, 10_000)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 129
    folder = RunFolder.open(out)
    assert folder.load_checkpoint("search")[1]["step"] >= folder.events("search")[-1]["step"] > 0
    assert not folder.has("ranking.json")


def test_choices_of_the_calibration_are_kept(config, tiny_source, tmp_path, monkeypatch):
    stops = At("search", lambda: setattr(stops, "stopping", True))
    with pytest.raises(Interrupted):
        api.search(config.replace(precision="auto"), tmp_path / "run", source=tiny_source, listener=stops)
    chosen = RunFolder.open(tmp_path / "run").request()["calibration"]
    monkeypatch.setenv("POOLWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("poolwise.training.calibration.choose", lambda *_: pytest.fail("measured again"))
    assert api.resume(tmp_path / "run", source=tiny_source).request()["calibration"] == chosen
