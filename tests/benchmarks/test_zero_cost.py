"""Zero-cost proxies as controls of a comparison and as hints of a simulation, on a synthetic table."""

import pytest

from poolwise import api, tables
from poolwise.benchmarks import simulate
from poolwise.errors import RequestError
from poolwise.rankings.baselines import untrained
from tiny_comparison import compare, source, write_table


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.setitem(untrained.__kwdefaults__, "initialisations", 1)
    monkeypatch.setattr(simulate, "DRAWN_SEEDS", (0, 1))
    return write_table(tmp_path / "table", source())


def test_controls(tmp_path, table):
    controls = ["rf_refinement", "naswot", "zico-order"]
    value = compare(table, tmp_path / "out", source(), controls=controls, seeds=[1], resamples=20)
    spent = {row["method"]: row["budget_macs"] for row in value["summary"]}
    assert list(spent) == controls
    assert spent["rf_refinement"] == 0
    assert 3 * 96 * spent["naswot"] == 64 * spent["zico-order"] > 0, (
        "all 96 images in two batches, forward and backward"
    )
    with pytest.raises(RequestError, match="unknown control 'zico-ordre'; did you mean 'zico-order'"):
        compare(table, tmp_path / "wrong", source(), controls=["zico-ordre"])


def test_hints(table):
    name = "shuffled-swap-order"
    (player,) = simulate.parse([f"top@{name}+rf_refinement"], tables.load(table), "resnet20", source())
    assert player.hints[name].shape == (2, 36)
    assert player.hints["rf_refinement"].shape == (1, 36)
    value = api.simulate(table, methods=["top@swap"], runs=2, trials=2, source=source())
    (row,) = value["methods"]
    assert row["search_macs"] == player.search_macs > 0
    assert row["compute"][0] > 1 / 36, "passes of the proxy count"
