"""Several numbers of poolings, and spaces that are too large to list, in all stages from search to export."""

import json

import pytest

import poolwise
from conftest import draw_images
from poolwise import constraints, models
from poolwise.config import Config
from poolwise.datasets.sources import Source
from poolwise.errors import RequestError
from poolwise.experiment import resolve
from poolwise.models import requested_space
from poolwise.models.families import registry
from poolwise.models.families.resnet import BasicBlock, _chain
from poolwise.pipeline import costs, estimates
from poolwise.progress import Listener
from poolwise.spaces import Pooling, Subspace, UnionSpace, read
from poolwise.storage import RunFolder


@pytest.fixture
def counted(tiny_settings):
    """One pooling or three, in a network whose default has two."""
    return tiny_settings.replace(poolings=(3, 1), steps=24, retrain_seeds=1, retrain_steps=3, trials=3)


def test_all_stages(tmp_path, counted, tiny_source):
    assert counted.model.poolings == (1, 3)
    poolwise.run(counted, tmp_path / "run", source=tiny_source)
    folder = RunFolder.open(tmp_path / "run")
    ranking = folder.read("ranking.json", "")
    names = [row["pooling"] for row in ranking["ranking"]]
    assert len(names) == ranking["covered"] == ranking["configurations"] == 9 + 84 + 1
    assert ranking["default"] == "4-3-3"
    assert names.count("4-3-3") == 1, "the default is ranked too"
    assert "4-3-3" not in ranking["picks"].values() or ranking["picks"]["best_for_cost"] == "4-3-3"
    assert ranking["picks"]["best"] == next(name for name in names if name != "4-3-3")
    assert read(ranking["space"]) == requested_space(counted)
    retrained = folder.read("retrain.json", "")
    assert retrained["results"][0]["pooling"] == ranking["picks"]["best"]
    assert retrained["results"][-1]["roles"][-1] == "default"
    assert "comparison" in retrained["results"][0]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "4-3-3" in page
    assert not (tmp_path / "run" / "figures" / "positions.svg").exists()
    refined = poolwise.refine(tmp_path / "run", source=tiny_source)
    assert refined["trials"][0]["pooling"] == "4-3-3", "the default is trained first"
    assert refined["picks"]["best"] != "4-3-3"
    retrained = poolwise.retrain(tmp_path / "run", source=tiny_source)
    pick = retrained["results"][0]["pooling"]
    poolwise.export(tmp_path / "run", tmp_path / "model.safetensors", pooling=pick)
    assert (tmp_path / "model.safetensors").exists()


def test_another_number_of_poolings_with_norms_by_depth_and_all_supernets(tmp_path, counted, tiny_source):
    config = counted.replace(
        poolings=(3,), norm="affine", sharing="resolution", rank_on="all", fusion=True, method="mcts", steps=12
    )
    folder = poolwise.search(config, tmp_path / "run", source=tiny_source)
    value = poolwise.rank(folder.path, source=tiny_source)
    assert value["covered"] == 85
    assert all(name.count("-") == 3 for name in value["picks"].values())


def test_default_is_a_member_if_its_number_is_requested(tiny_settings, tiny_source):
    experiment = resolve(tiny_settings.replace(poolings=(2, 3)), tiny_source)
    assert experiment.space.size == 36 + 84
    assert resolve(tiny_settings.replace(poolings=(2,)), tiny_source).space == models.family("resnet20").space
    with pytest.raises(
        RequestError, match="8x8 pixels are too small for 4 downsamplings: use images of at least 16x16"
    ):
        resolve(tiny_settings.replace(poolings=(4,)), tiny_source)


def test_limits_and_draws_of_several_numbers(tiny_settings, tiny_source):
    config = tiny_settings.replace(poolings=(1, 3), max_configs=20, threads=1, workers=1)
    experiment = resolve(config, tiny_source)
    assert experiment.space.size == 20
    assert experiment.default in experiment.space
    assert resolve(config, tiny_source).space == experiment.space
    assert resolve(config.replace(seed=1), tiny_source).space != experiment.space
    limited, limits = constraints.limited(resolve(config.replace(max_macs=1.0), tiny_source))
    assert 0 < len(limits.members) < 20
    assert set(limited.space) == {*limits.members, experiment.default}
    assert isinstance(limited.space, Subspace)


@pytest.mark.parametrize(
    ("poolings", "message"),
    [((), "none"), ((2, 2), "each once"), ((-1,), "at least 0"), (("2",), "of integers"), ((2.0,), "of integers")],
)
def test_wrong_numbers_are_rejected(poolings, message):
    with pytest.raises(RequestError, match=message):
        Config.from_flat(poolings=poolings)


def test_exhaustive_with_several_numbers_writes_a_table(tmp_path, counted, tiny_source):
    config = counted.replace(poolings=(0, 1), retrain_steps=1)
    value = poolwise.exhaustive(config, tmp_path / "run", table=tmp_path / "mine", source=tiny_source)
    assert len(value["results"]) == 1 + 9 + 1
    table = poolwise.tables.load(tmp_path / "mine")
    assert table.space == requested_space(config)
    few = config.replace(max_configs=3)
    assert len(poolwise.exhaustive(few, tmp_path / "few", source=tiny_source)["results"]) == 3
    with pytest.raises(RequestError, match="a table needs all 11 configurations and 3 are listed"):
        poolwise.exhaustive(few, tmp_path / "other", table=tmp_path / "other-table", source=tiny_source)
    with pytest.raises(RequestError, match="configs and max_configs both choose"):
        poolwise.exhaustive(few, tmp_path / "other", configs=["4-3-3"], source=tiny_source)


@pytest.fixture
def deep(monkeypatch):
    """A family of 44 layers, which has a million placements of four or five downsamplings."""
    models.available()

    def build(classes=10, width=2, norm=None):
        return _chain(BasicBlock, 1, (43,), classes, width, norm)

    known = registry.Family("deep", Pooling((15, 15, 14)), 2, build, "for this test")
    monkeypatch.setitem(registry.FAMILIES._entries, "deep", known)
    monkeypatch.setattr(costs, "_SAMPLE", 50)
    for method in ("__iter__", "__len__"):  # the space must not be enumerated
        monkeypatch.setattr(UnionSpace, method, lambda space: pytest.fail("the entire space was enumerated"))
    return "deep"


@pytest.mark.slow
def test_search_in_a_million_configurations(tmp_path, deep, tiny_settings, tiny_source, monkeypatch):
    notes = []

    class Notes(Listener):
        def note(self, text):
            notes.append(text)

    source = Source("tiny", draw_images(24, 32, 1), draw_images(12, 32, 2), ("red", "green", "blue"))
    config = tiny_settings.replace(model=deep, poolings=(4, 5), steps=8, batch_size=4, eval_batch_size=12, retrain_seeds=1,
        retrain_steps=1, trials=2, threads=1, workers=1,
    )  # fmt: skip
    folder = poolwise.search(config, tmp_path / "run", source=source)
    value = poolwise.rank(folder.path, source=source, listener=Notes())
    assert value["configurations"] == 1_086_009
    assert value["covered"] == len(value["ranking"]) in (8, 9)
    assert value["coverage"].startswith(
        f"{value['covered']} of 1,086,009 configurations are ranked: the default and those that the search visited"
    )
    assert value["coverage"] in notes
    assert value["coverage"] in poolwise.report(folder.path).read_text()
    refined = poolwise.refine(folder.path, source=source)
    assert {row["pooling"] for row in refined["configurations"]} == {row["pooling"] for row in value["ranking"]}
    json.dumps(dict(refined))
    with pytest.raises(RequestError, match=r"limits need the cost of all 1,086,009 configurations: .* --max-configs"):
        poolwise.rank(folder.path, source=source, max_macs=1.0)


def test_exhaustive_rejects_a_million_configurations(tmp_path, deep, tiny_settings, tiny_source):
    config = tiny_settings.replace(model=deep, poolings=(4, 5))
    with pytest.raises(
        RequestError, match=r"all 1,086,009 configurations, more than .* 20,000: sample some with --max-configs"
    ):
        poolwise.exhaustive(config, tmp_path / "run", source=tiny_source)
    assert not (tmp_path / "run").exists()


def test_costs_and_suggest_sample_a_million_configurations(deep):
    priced = poolwise.costs(deep, poolings=(4, 5), max_configs=50)
    assert len(priced) == 50
    assert Pooling((15, 15, 14)) in priced
    guess = poolwise.suggest(deep, poolings=(4, 5), max_configs=60)
    assert (guess.size, guess.priced) == (1_086_009, 60)
    assert all(pooling.poolings in (4, 5) for pooling in guess.costs)


def test_plan_for_a_million_configurations_is_fast(deep, tiny_settings):
    source = Source("tiny", draw_images(24, 32, 1), draw_images(12, 32, 2), ("red", "green", "blue"))
    config = tiny_settings.replace(model=deep, poolings=(4, 5), threads=1, workers=1, steps=40)
    experiment = resolve(config, source)
    rank = estimates.plan(experiment, ["rank"]).stages[0]
    assert rank.steps == 41 * 12, "at most as many configurations as the search visits"
    wider = resolve(config.replace(rank_beam=3), source)
    assert estimates.plan(wider, ["rank"]).stages[0].macs > rank.macs
