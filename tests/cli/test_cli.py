"""The installed command: exit codes, and one line on standard error for each mistake."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from poolwise.cli import main

POOLWISE = shutil.which("poolwise", path=str(Path(sys.executable).parent))
TINY = [
    "--width", "2", "--steps", "20", "--batch-size", "8", "--image-size", "8", "--supernets", "2", "--retrain-steps", "3",
    "--retrain-seeds", "2", "--device", "cpu", "--precision", "float32",
]  # fmt: skip


def poolwise(*arguments, **options):
    environment = {**os.environ, "COLUMNS": "120", "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    command = [POOLWISE, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, **options)


@pytest.fixture
def here(monkeypatch, capsys, tmp_path):
    """The command inside this process, which saves the start of a new one."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def call(*arguments):
        code = 0
        monkeypatch.setattr(sys, "argv", ["poolwise", *map(str, arguments)])  # recorded in run folders
        try:
            main(list(map(str, arguments)))
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, captured.out, captured.err)

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


def one_line(done, code):
    """The run ended with ``code`` and one line on standard error, without a traceback."""
    assert done.returncode == code, done.stderr
    lines = done.stderr.strip().splitlines()
    errors = [line for line in lines if line.startswith("poolwise: ")]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return errors[0]


def test_help_has_the_commands_under_headings():
    text = poolwise("--help").stdout
    order = [
        text.index(word)
        for word in ("Before training", "\n  space", "Training:", "\n  resume", "Results", "\n  report")
    ]
    assert order == sorted(order)


def test_space_as_table_and_json(here):
    large = here("space", "--model", "resnet50", "--width", "8").stdout
    assert "4-4-6-3" in large
    assert large.count("\n") > 560
    value = json.loads(here("space", "--json").stdout)
    assert len(value["configurations"]) == 36
    ratios = {row["pooling"]: round(row["macs_ratio"], 2) for row in value["configurations"]}
    assert (ratios["7-1-2"], ratios["4-3-3"]) == (2.23, 1.0)
    models = {row["model"]: row for row in json.loads(here("space", "--models", "--json").stdout)}
    assert {name: row["configurations"] for name, row in models.items()} == {
        "resnet18": 56, "resnet20": 36, "resnet32": 105, "resnet34": 560, "resnet50": 560, "resnet56": 351,
        "resnet18-imagenet": 35, "resnet34-imagenet": 455, "resnet50-imagenet": 455,
        "convnext": 220, "mobilenetv2": 680, "vgg16": 495,
    }  # fmt: skip
    assert (models["resnet20"]["operator"], models["resnet50"]["operator"]) == ("pool", "stride")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["space", "--model", "resnt20"], "did you mean 'resnet20'"),
        (["space", "--image-size", "2"], "too small"),
        (["space", "--width", "0"], "0 is not in the range"),
        (["spice"], "No such command"),
        (["run", "--data", "folder:nowhere"], "does not exist"),
        (["run", "--data", "cifar11"], "did you mean 'cifar10'"),
        (["run", "--preset", "dem"], "did you mean 'demo'"),
        (["run", "--supernets", "0"], "--supernets is 0"),
        (["run", "--steps", "-5"], "--steps is -5"),
        (["run", "--lr", "-1"], "--lr is -1"),
        (["run", "--lr", "nan"], "--lr is nan"),
        (["run", "--supernets", "x"], "auto or an integer"),
        (["run", "--draw", "rnds"], "did you mean 'rounds'"),
        (["run", "--norm", "afine"], "did you mean 'affine'"),
        (["search", "--sharing", "none"], "unknown sharing 'none'"),
        (["run", "--method", "mixtur"], "did you mean 'mixture'"),
        (["run", "--method", "spos", "--supernets", "3"], "--method spos uses one SuperNet; omit --supernets 3"),
        (["search", "--method", "fairnas", "--warm-up", "0.5"], "method fairnas has no warm-up"),
        (["search", "--method", "mcts", "--warm-up", "1"], "--warm-up is 1.0: use a number in [0, 1)"),
        (["rank", "nowhere"], "not a run folder"),
        (["retrain", "nowhere"], "not a run folder"),
        (["resume", "nowhere"], "not a run folder"),
        (["report", "nowhere"], "not a run folder"),
        (["refine", "nowhere"], "not a run folder"),
        (["run", "--max-macs", "0"], "--max-macs is 0"),
        (["search", "--max-latency-ms", "nan"], "--max-latency-ms is nan"),
        (["run", "--until-decided", "--retrain-seeds", "1"], "until_decided needs"),
        (["run", "--margin", "-1"], "--margin is -1"),
        (["suggest", "--max-memory", "0.001"], "use a larger --max-memory"),
        (["simulate", "--table", "nothing"], "unknown table"),
        (["data", "cifar10", "--archive", "nowhere.tgz"], "nowhere.tgz"),
    ],
)
def test_wrong_requests(arguments, message, tmp_path, here):
    assert message in one_line(here(*arguments), 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--precision", "float16"], "unknown precision"),
        (["--weights", "nowhere.pth"], "nowhere.pth: there is no such file"),
        (["--weights", "nowhere.txt"], "unknown weights 'nowhere.txt'"),
        (["--only", "9-9-9"], "9-9-9"),
    ],
)
def test_what_needs_no_images_is_checked_before_they_are_loaded_and_before_the_folder(
    arguments, message, used, tmp_path, here, monkeypatch
):
    monkeypatch.setattr("poolwise.experiment.load_requested", None)  # calling it would fail
    if used:
        (tmp_path / "used").mkdir()
        (tmp_path / "used" / "run.json").write_text("{}")
    assert message in one_line(here("search", *arguments, "--out", "used"), 2)
    assert message in one_line(here("search", *arguments, "--plan"), 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cuda:7"], "this machine has"),
        (["--device", "gpu"], "unknown device"),
        (["--precision", "float16"], "unknown precision"),
        (["--image-size", "3"], "too small"),
        (["--images", "2"], "two per class"),
        (["--max-macs", "0.01"], "use a larger --max-macs"),
    ],
)
def test_wrong_requests_that_need_the_images(arguments, message, tmp_path, image_folder, here):
    options = [*TINY, "--data", f"folder:{image_folder}", *arguments]
    assert message in one_line(here("run", *options, "--out", tmp_path / "run"), 2)
    assert not (tmp_path / "run").exists()


def test_broken_image_is_named(tmp_path, image_folder, here):
    (image_folder / "dogs" / "evil\nname.png").write_bytes(b"nothing")
    message = one_line(here("run", *TINY, "--data", f"folder:{image_folder}", "--out", tmp_path / "run"), 2)
    assert "name.png" in message
    assert not (tmp_path / "run").exists()


def test_no_network_fails_fast_and_clearly(tmp_path):
    started = time.monotonic()
    nowhere = {
        "POOLWISE_CACHE": str(tmp_path),
        "PATH": "",
        "https_proxy": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }
    message = one_line(poolwise("data", "cifar10", env=nowhere), 1)
    assert "cannot load cifar10" in message
    assert "--archive" in message
    assert time.monotonic() - started < 60


def test_stages_by_hand_and_quiet_json(tmp_path, image_folder, here):
    out, data = tmp_path / "run", f"folder:{image_folder}"
    search_only = TINY[: TINY.index("--retrain-steps")] + TINY[TINY.index("--device") :]
    assert here("search", *search_only, "--data", data, "--out", out).returncode == 0
    assert "holds another run" in one_line(here("search", *search_only, "--data", data, "--out", out), 2)
    assert "poolwise rank" in one_line(here("report", out), 2)
    ranked = here("rank", out, "--json")
    assert json.loads(ranked.stdout) == json.loads((out / "ranking.json").read_text())
    retrained = here("retrain", out, "--retrain-steps", "3", "--retrain-seeds", "2", "--quiet", "--json")
    assert json.loads(retrained.stdout)["verdict"]
    assert retrained.stderr == ""
    assert "verdict" in here("resume", out).stdout
    assert "nothing is left" in here("resume", out, "--plan").stdout
    planned = here("retrain", out, "--retrain-seeds", "4", "--retrain-steps", "3", "--plan").stdout
    assert f"retrain: {3 * 4 * 4} steps" in planned  # three picks and the default at most, four seeds of three steps
    assert here("rank", out, "--plan").stdout.startswith("rank: ")
    assert json.loads((out / "run.json").read_text())["settings"]["retrain_seeds"] == 2
    refined = here("refine", out, "--trials", "3", "--quiet", "--json")
    assert json.loads(refined.stdout) == json.loads((out / "refine.json").read_text())
    assert Path(here("report", out).stdout.strip()) == out / "report.html"
    commands = json.loads((out / "run.json").read_text())["commands"]
    assert [command.split()[1] for command in commands] == ["search", "rank", "retrain", "refine", "report"]


def test_plan_writes_nothing(tmp_path, image_folder, here):
    done = here("run", *TINY, "--data", f"folder:{image_folder}", "--plan")
    assert done.returncode == 0
    assert done.stdout.startswith("search: 20 steps")
    assert "GiB of memory" in done.stdout
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_with_its_code_and_resume_continues(tmp_path, image_folder, here, number, code):
    out = tmp_path / "run"
    options = [*TINY, "--steps", "400", "--data", f"folder:{image_folder}", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [POOLWISE, "run", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        until = time.monotonic() + 60
        while not (out / "events.jsonl").exists() and time.monotonic() < until:
            time.sleep(0.1)
        message = one_line(poolwise("resume", out), 2)
        assert f"in use by process {running.pid}" in message
        running.send_signal(number)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == code
    assert f"continue with: poolwise resume {out}" in errors
    assert not (out / "ranking.json").exists()
    if code != 130:
        return  # what follows is the same for all
    assert here("resume", out).returncode == 0
    assert (out / "report.html").exists()


def test_full_disk_is_one_line_and_resumable(tmp_path, image_folder, here):
    """RLIMIT_FSIZE makes real writes fail, as a full disk does."""

    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    out = tmp_path / "run"
    options = [*TINY, "--data", f"folder:{image_folder}", "--out", out]
    message = one_line(poolwise("run", *options, preexec_fn=small_files), 1)
    assert "cannot write" in message
    assert "poolwise resume" in message
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]
    assert here("resume", out).returncode == 0
    assert (out / "report.html").exists()


def test_closed_pipe_leaves_no_traceback():
    done = subprocess.run(f"{POOLWISE} space | head -1", shell=True, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr


def test_a_folder_of_one_class(tmp_path, here):
    (tmp_path / "data" / "only").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "data" / "only" / "a.png")
    message = one_line(here("run", *TINY, "--data", f"folder:{tmp_path / 'data'}", "--out", tmp_path / "run"), 2)
    assert "one class, 'only'" in message


def test_exhaustive_of_a_few_and_again(tmp_path, image_folder, here):
    out, options = tmp_path / "run", ["--width", "2", "--retrain-steps", "3", "--batch-size", "8"]
    options += ["--image-size", "8", "--device", "cpu", "--precision", "float32", "--data", f"folder:{image_folder}"]
    options += ["--out", out]
    few = [*options, "--retrain-seeds", "2", "--configs", "5-3-2,4-3-3"]
    assert "exhaustive: 12 steps" in here("exhaustive", *few, "--plan").stdout
    assert not out.exists()
    first = here("exhaustive", *few)
    assert first.returncode == 0, first.stderr
    assert "noise between seeds" in first.stdout
    old = here("exhaustive", *options, "--seeds", "2", "--poolings", "5-3-2,4-3-3", "--json", "--quiet")
    assert json.loads(old.stdout) == json.loads((out / "exhaustive.json").read_text())
    assert "--seeds is now --retrain-seeds" in old.stderr
    assert "--poolings is now --configs" in old.stderr
    assert "5-3-2" in here("resume", out).stdout
    assert "another request" in one_line(here("exhaustive", *few, "--retrain-seeds", "3"), 2)
    assert "use only one" in one_line(here("exhaustive", *few, "--configs-file", "x"), 2)


def test_exhaustive_has_the_flag_names_of_run(here):
    shown = here("exhaustive", "--help").stdout
    for flag in ("--retrain-epochs", "--retrain-steps", "--retrain-seeds", "--poolings", "--configs", "--configs-file"):
        assert f"  {flag} " in shown
    for old in ("  --epochs", "  --steps", "  --seeds", "--poolings-file"):
        assert old not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--table", "resnet20-cifar10-publish"], "did you mean 'resnet20-cifar10-published'"),
        (["--table", "resnet20-cifar10-published", "--model", "resnt20"], "did you mean 'resnet20'"),
        (["--table", "resnet20-cifar10-published", "--seeds", "1,1"], "each once"),
        (["--table", "resnet20-cifar10-published", "--seeds", "one"], "use integers"),
        (["--table", "resnet20-cifar10-published", "--controls", "none", "--columns", "none"], "nothing to compare"),
    ],
)
def test_wrong_comparisons(arguments, message, tmp_path, here):
    assert message in one_line(here("compare", *arguments), 2)
    assert list(tmp_path.iterdir()) == []


def test_compare_with_the_published_table(tmp_path, here):
    out = tmp_path / "out"
    done = here("compare", "--table", "resnet20-cifar10-published", "--resamples", "20", "--out", out)
    assert done.returncode == 0, done.stderr
    for value in ("0.15", "0.31", "0.60", "0.53", "0.49", "0.56"):
        assert value in done.stdout
    assert (out / "compare.html").exists()
