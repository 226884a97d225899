"""Documentation generated from results is up to date."""

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


def test_tables_match_the_committed_results(results_page):
    for path in results_page.PAGES:
        page = path.read_text(encoding="utf-8")
        assert results_page.BLOCK.search(page)
        assert results_page.render(page) == page


def test_a_changed_value_is_detected(results_page):
    for path in results_page.PAGES:
        page = path.read_text(encoding="utf-8")
        body = results_page.BLOCK.search(page)[0]
        changed = body.replace("0.", "9.")
        assert changed != body
        assert results_page.render(page.replace(body, changed)) == page
