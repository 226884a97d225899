"""Documentation that is made from results says what the results say."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def results_page():
    spec = importlib.util.spec_from_file_location("results_page", ROOT / "benchmarks" / "results_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_of_the_results_page_are_those_of_the_committed_results(results_page):
    page = results_page.PAGE.read_text(encoding="utf-8")
    assert results_page.BLOCK.search(page)
    assert results_page.render(page) == page


def test_a_changed_figure_is_noticed(results_page):
    page = results_page.PAGE.read_text(encoding="utf-8")
    body = results_page.BLOCK.search(page)[0]
    assert results_page.render(page.replace(body, body.replace("0.60", "0.95"))) == page
