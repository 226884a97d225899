"""Search curves of the report."""

import pytest

import poolwise
from poolwise.reports import figures
from poolwise.storage.schemas import SearchEvent


@pytest.mark.parametrize(("has_entropy", "panels"), [(True, 3), (False, 2)])
def test_entropy_is_drawn_on_request(has_entropy, panels):
    events = [SearchEvent(step=step, loss=2.0, accuracy=0.5, entropy=0.0) for step in (1, 2)]
    assert figures.search_curves(events, has_entropy).count('<g id="axes_') == panels


@pytest.mark.parametrize("supernets", [1, 2])
def test_a_single_supernet_has_no_entropy(tmp_path, tiny_settings, tiny_source, supernets):
    run = poolwise.search(tiny_settings.replace(supernets=supernets), tmp_path / "run", source=tiny_source)
    poolwise.rank(run.path, source=tiny_source)
    poolwise.report(run.path)
    assert ("entropy of the assignment" in (run.path / "report.html").read_text()) == (supernets > 1)
