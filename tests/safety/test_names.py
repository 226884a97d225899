"""Untrusted names are shown as plain text: at the terminal, in pages, in figures, in CSV files and in logs."""

import csv
import io
import json
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from poolwise import api
from poolwise.cli import show
from poolwise.cli.commands import main
from poolwise.cli.out import Table
from poolwise.cli.progress import Lines
from poolwise.config import Config
from poolwise.sanitize import csv_text, json_text, visible
from poolwise.storage import RunFolder

NASTY = "a\nb\"'<script>alert(1)</script>\u202egnp\x1b[31m[bold]$x^$\x9b\u200f"
ROOT = Path(__file__).parents[2]


def hidden(text):
    """Return control characters and invisible characters."""
    return [c for c in text if not c.isprintable() and c != "\n"]


@given(st.text(st.characters()))
def test_visible_text_keeps_its_content(text):
    shown = visible(text)
    assert shown.isprintable()
    assert text.isprintable() == (shown == text)
    assert json.loads(json_text({"a": text, text: [text]})) == {"a": text, text: [text]}
    assert not hidden(json_text([text]))
    json_text([text]).encode()


@given(st.lists(st.text(st.characters()), min_size=1, max_size=4))
def test_csv_contains_no_formula(cells):
    (line,) = csv.reader(io.StringIO(csv_text(["x"] * len(cells), [cells]).split("\n", 1)[1]))
    assert len(line) == len(cells)
    for cell in line:
        assert cell.isprintable()
        if cell.startswith(("=", "+", "-", "@")):
            float(cell)


def test_csv_keeps_numbers_and_marks_formulas():
    text = csv_text(
        ["a"], [[-1.5], ["-1.5"], ["+3e-2"], ["=1+1"], ["@x"], ["-cmd|x"], ["\tx"], ["\rx"], ["a\nb"], [None]]
    )
    assert text.split("\n")[1:-1] == [
        *("-1.5", "-1.5", "+3e-2", "'=1+1", "'@x", "'-cmd|x", "'\\tx", "'\\rx", "a\\nb", '""'),
    ]


def test_only_one_module_writes_csv():
    users = [path for path in (ROOT / "src").rglob("*.py") if re.search(r"csv\.(writer|DictWriter)", path.read_text())]
    assert [path.name for path in users] == ["sanitize.py"]


def test_only_one_module_prints():
    users = [
        p.name for p in (ROOT / "src").rglob("*.py") if re.search(r"click\.echo|\.print\(|\bprint\(", p.read_text())
    ]
    assert users == ["out.py"]


def test_tables_and_notes_at_a_terminal():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=400, color_system=None)
    table = Table("a", title=NASTY)
    table.add_row(NASTY)
    console.print(table)
    Lines(console).note(NASTY)
    text = file.getvalue()
    assert not hidden(text)
    assert text.count("[bold]") == 3
    assert text.count(r"\x1b[31m") == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["space", "--model", NASTY],
        ["run", "--data", f"folder:{NASTY}"],
        ["report", NASTY],
        ["run", f"--{NASTY}"],
        [NASTY],
        ["simulate", "--table", "resnet20-cifar10-published", "--methods", f"refine@{NASTY}"],
        ["compare", "--table", NASTY],
        ["rank", "a\0b"],
        ["run", "--workers", "9" * 5000],
        ["run", "--time-budget", "9" * 5000 + "m"],
        ["run", "--seed", "9" * 5000],
        ["rank", "x" * 5000],
    ],
)
def test_errors_are_one_visible_line(arguments, capsys, monkeypatch, tmp_path):
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(arguments)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    message = capsys.readouterr().err
    assert end.value.code == 2
    assert message.startswith("poolwise: ")
    assert message.count("\n") == 1
    assert not hidden(message)


class Page(HTMLParser):
    """Collect the elements of a page and what a browser would fetch or run."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.loads, self.policy, self.runs = set(), [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        values = dict(attributes)
        self.runs += [name for name in values if name.startswith("on")]
        for name in (
            "src",
            "href",
            "xlink:href",
            "srcset",
            "action",
            "formaction",
            "data",
            "poster",
            "background",
            "ping",
        ):
            if values.get(name) and not values[name].startswith(("#", "data:image/png;base64,")):
                self.loads.append((tag, name, values[name]))
        if tag == "meta" and values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"]


def check_page(text):
    page = Page(text)
    rules = dict(rule.strip().split(" ", 1) for rule in page.policy.split(";"))
    none_allowed = dict.fromkeys(("default-src", "base-uri", "form-action"), "'none'")
    assert rules == {**none_allowed, "style-src": "'unsafe-inline'", "img-src": "data:"}
    assert text.index("Content-Security-Policy") < text.index("<style")
    assert page.loads == []
    assert page.runs == []
    assert not page.tags & {
        "script",
        "iframe",
        "object",
        "embed",
        "link",
        "base",
        "form",
        "foreignobject",
        "animate",
        "set",
    }
    styles = "".join(re.findall(r"<style.*?</style>|style=\"[^\"]*\"", text, re.DOTALL))
    assert not re.search(r"@import|url\((?!#)", styles)
    assert not hidden(text)


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """Return a run whose classes, folder and data set have malicious names."""
    base = tmp_path_factory.mktemp("names")
    data = base / "pic\n\x1b[31m\u202e"
    for i in range(16):
        room = data / (NASTY.replace("/", "") if i % 2 else "=cmd")
        room.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (16 * i, 90, 40)).save(room / f"{i}\n.png")
    config = Config.from_flat(
        width=2, supernets=2, steps=6, batch_size=4, eval_batch_size=4, retrain_steps=2, retrain_seeds=2, data=f"folder:{data}",
        image_size=8, draw="rounds", precision="float32", device="cpu", threads=1, workers=1,
    )  # fmt: skip
    run = base / "run\x1b[2J<script>"
    api.run(config, run)
    return run


def test_report_of_bad_names(named, capsys):
    page = (named / "report.html").read_text()
    check_page(page)
    assert "&lt;script&gt;alert(1)&lt;script&gt;" in page
    assert r"\u202egnp\x1b[31m[bold]" in page
    show.result(named, False)
    out = capsys.readouterr().out
    assert not hidden(out)
    assert r"run\x1b[2J<script>" in out
    show.result(named, True)
    text = capsys.readouterr().out
    assert not hidden(text)
    assert json.loads(text)["ranking"] == json.loads((named / "ranking.json").read_text())
    for name in ("run.json", "ranking.json", "events.jsonl", "retrain.json"):
        assert not hidden((named / name).read_text()), name
    classes = RunFolder.open(named).request()["data"]["classes"]
    assert NASTY.replace("/", "") in classes  # stored as it is


def test_simulation_of_a_run_with_a_bad_name(named, tmp_path):
    """The name appears in a figure, a CSV file and a table of the same 36 configurations."""
    arguments = {"methods": [f"top@{named}"], "runs": 2, "trials": 2}
    api.simulate("resnet20-cifar10-published", tmp_path, **arguments)
    for name in ("simulate.csv", "simulate.json", "simulate.svg"):
        assert not hidden((tmp_path / name).read_text()), name


def test_compare_page(tmp_path):
    arguments = {"columns": ["supernets4"], "controls": ["macs"], "resamples": 20}
    api.compare(api.CompareConfig("resnet20-cifar10-published", **arguments), tmp_path)
    check_page((tmp_path / "compare.html").read_text())


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_nothing_listens_on_a_port(named, tmp_path, workers):
    """Inspect a search, also in worker processes, many times while it runs."""
    config = json.loads((named / "run.json").read_text())["settings"]
    code = (
        "import json, sys\nfrom poolwise import api\nfrom poolwise.config import Config\n"
        "if __name__ == '__main__':\n    api.search(Config.from_flat(json.loads(sys.argv[1])), sys.argv[2])\n"
    )
    (tmp_path / "do.py").write_text(code)
    request = json.dumps({**config, "steps": 16, "block": 4, "workers": workers})
    seen, most, sockets = 0, 0, []
    with subprocess.Popen([sys.executable, tmp_path / "do.py", request, tmp_path / "run"]) as running:
        process = psutil.Process(running.pid)
        while running.poll() is None:
            try:
                family = [process, *process.children(recursive=True)]
                most = max(most, len(family))
                sockets += [c for one in family for c in one.net_connections("inet")]
                seen += 1
            except psutil.Error:
                continue
            time.sleep(0.05)
    assert running.returncode == 0
    assert seen > 5
    assert most >= workers  # the worker processes were inspected
    assert sockets == []
