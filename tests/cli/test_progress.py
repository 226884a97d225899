"""The first line is printed before anything slow, and the time left follows the pace of the run."""

import subprocess
import sys

import pytest
from rich.console import Console

from conftest import clean_environment
from poolwise.cli import progress
from poolwise.cli.progress import Lines, Pace


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


def test_the_time_left_follows_the_recent_pace(clock):
    pace = Pace(total=1000, done=0)
    assert pace.seconds() is None
    for _ in range(100):  # one step in ten seconds, while something else uses the machine
        clock.now += 10
        pace.advance(1)
    assert pace.seconds() == pytest.approx(900 * 10)
    for _ in range(70):  # then one in a second
        clock.now += 1
        pace.advance(1)
    assert pace.seconds() == pytest.approx(830 * 1)


def test_steps_before_a_resumed_run_are_not_its_pace(clock):
    pace = Pace(total=1000, done=900)
    clock.now += 4
    pace.advance(2)
    assert pace.seconds() == pytest.approx(98 * 2)


def test_thousands_of_short_steps_keep_few_marks(clock):
    pace = Pace(total=10**6, done=0)
    for _ in range(10_000):
        clock.now += 0.001
        pace.advance(1)
    assert pace.seconds() == pytest.approx((10**6 - 10_000) * 0.001)
    assert len(pace._marks) < 100


@pytest.mark.parametrize("expected", [None, 24_000.0])
def test_a_plan_does_not_enter_the_time_left(clock, capsys, expected):
    lines = Lines(Console(file=sys.stdout))
    if expected:
        lines.expect("search", expected)
    lines.start("search", 100)
    clock.now += 16
    lines.advance(1)
    assert "search: 1 of 100, about 26 min left" in capsys.readouterr().out


COMMANDS = {
    "search": (["search", "--preset", "demo"], "search: loading PyTorch"),
    "run": (["run", "--preset", "demo"], "run: loading PyTorch"),
    "plan": (["search", "--preset", "demo", "--plan"], "search: loading PyTorch, then timing steps on this machine"),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_the_first_line_comes_before_torch_is_imported(case, tmp_path):
    arguments, line = COMMANDS[case]
    code = f"import sys; sys.modules['torch'] = None; from poolwise.cli import main; main({arguments})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=clean_environment(), capture_output=True, text=True
    )
    if case == "plan":  # the plan itself is standard output
        assert done.stdout == ""
        assert done.stderr.startswith(line)
    else:
        assert done.stdout.splitlines() == [line]
    assert "torch" in done.stderr  # it went no further than this import
