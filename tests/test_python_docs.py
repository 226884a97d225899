"""docs/python.md lists the columns of the results, and its code runs."""

import re
from pathlib import Path

import pytest

import poolwise
from poolwise.api import results
from poolwise.selection.suggest import Guess

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
BLOCK = re.compile(r"(<!-- columns -->\n).*(<!-- end -->)", re.S)
KINDS = {
    "search, resume, Run.open": results.Run,
    "rank": results.Ranking,
    "refine": results.Refinement,
    "retrain, run": results.Retraining,
    "exhaustive": results.Exhaustive,
    "compare": results.Comparison,
    "simulate": results.Simulation,
    "suggest": Guess,
}


def render(page):
    """Return the page with the columns of every result."""
    parts = []
    for names, kind in KINDS.items():
        calls = ", ".join(f"`{name}`" for name in names.split(", "))
        rows = [f"| `{name}` | {description} |" for name, description in kind.COLUMNS.items()]
        title = (kind.__doc__ or "").split("\n")[0].rstrip(".").replace("``", "`")
        parts.append(f"{calls}: {title}.\n\n| column | what |\n| --- | --- |\n" + "\n".join(rows) + "\n")
    return BLOCK.sub(lambda match: match[1] + "\n" + "\n".join(parts) + "\n" + match[2], page)


def test_columns_match_the_results():
    page = PAGE.read_text(encoding="utf-8")
    assert render(page) == page, "run python tests/test_python_docs.py to update the page"


def test_the_code_runs(tmp_path, tiny_settings, tiny_source, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    first, *blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert "preset" in first
    config = tiny_settings.replace(steps=60, block=1, retrain_seeds=1, retrain_steps=2)
    names = {"poolwise": poolwise, "settings": config, "source": tiny_source}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == names["retraining"].verdict
    assert re.fullmatch(r"1 \d+-\d+-\d+ \d+\.\d %", lines[1])
    truth = [tiny_source.classes[label] for label in tiny_source.test.labels]
    right = sum(a == b for a, b in zip(names["predicted"], truth, strict=True))
    assert right / len(truth) == names["exported"].accuracy
    stopped = re.fullmatch(r"stopped after (\d+) steps", lines[-1])
    assert stopped
    assert int(stopped[1]) < config.search.steps
    assert poolwise.Run.open("runs/watched").ranking == names["run"].ranking


@pytest.mark.parametrize("name", ["Interrupted", "Listener", "Run"])
def test_public_names(name):
    assert name in poolwise.__all__
    assert getattr(poolwise, name).__doc__


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
