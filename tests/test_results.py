"""Results of the API: mappings with the keys of the files, rows with described columns, data frames."""

import json
import sys

import pytest

import poolwise
from poolwise import api
from poolwise.errors import RequestError
from poolwise.storage.tabular import Tabular


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return one result of each kind, from one run and one table."""
    from conftest import draw_images
    from poolwise.datasets.sources import Source

    place = tmp_path_factory.mktemp("results")
    config = poolwise.Config.from_flat(
        width=2, supernets=2, steps=30, batch_size=16, eval_batch_size=24, retrain_steps=1, retrain_seeds=2, lr=0.05,
        draw="rounds", precision="float32", device="cpu", trials=2,
    )  # fmt: skip
    source = Source("tiny", draw_images(96, 8, 1), draw_images(48, 8, 2), ("red", "green", "blue"))
    run = api.search(config, place / "run", source=source)
    table = "resnet20-cifar10-published"
    return {
        "search": run,
        "rank": api.rank(run.path, source=source),
        "refine": api.refine(run.path, source=source),
        "retrain": api.retrain(run.path, source=source),
        "exhaustive": api.exhaustive(config, place / "all", configs=["5-3-2", "4-3-3"], source=source),
        "compare": api.compare(
            api.CompareConfig(table, columns=["supernets1"], controls=["macs"], resamples=20), place / "compare"
        ),
        "simulate": api.simulate(table, None, methods=["random"], runs=3, trials=4),
        "suggest": api.suggest("resnet20", max_macs=0.8),
    }


STAGES = ["search", "rank", "refine", "retrain", "exhaustive", "compare", "simulate", "suggest"]


@pytest.mark.parametrize("stage", STAGES)
def test_rows_are_plain_and_columns_are_described(results, stage):
    result = results[stage]
    assert isinstance(result, Tabular)
    rows = result.to_rows()
    assert rows
    assert all(list(row) == list(result.COLUMNS) for row in rows)
    assert json.loads(json.dumps(rows)) == rows
    known = {name for row in rows for name, value in row.items() if value is not None}
    assert set(result.COLUMNS) - known <= {"latency_ms", "budget", "spent_macs", "shared", "short"}, (
        "a column that is always empty"
    )
    assert all(result.COLUMNS.values())


@pytest.mark.parametrize("stage", STAGES)
def test_data_frames(results, stage):
    import pandas

    frame = results[stage].to_dataframe()
    assert list(frame.columns) == list(results[stage].COLUMNS)
    assert len(frame) == len(results[stage].to_rows())
    if stage == "retrain":
        means = frame.groupby("pooling")["accuracy"].mean()
        assert means.to_dict() == pytest.approx(dict(zip(frame["pooling"], frame["mean"], strict=True)))
    assert isinstance(frame, pandas.DataFrame)


@pytest.mark.parametrize(
    ("stage", "file"), [("rank", "ranking"), ("refine", "refine"), ("retrain", "retrain"), ("exhaustive", "exhaustive")]
)
def test_results_equal_the_content_of_the_file(results, stage, file):
    result = results[stage]
    assert result == json.loads((result.folder / f"{file}.json").read_text())
    assert repr(result).startswith(type(result).__name__ + "(")
    with pytest.raises(AttributeError):
        result.content = {}
    with pytest.raises(TypeError):
        result["format"] = 2


def test_values_of_the_rows(results):
    ranking, retraining = results["rank"], results["retrain"]
    rows = ranking.to_rows()
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    assert all(row["low"] <= row["score"] <= row["high"] for row in rows)
    assert ranking.picks["best"] == rows[0]["pooling"]
    assert results["refine"].picks == results["refine"]["picks"]
    rows = retraining.to_rows()
    assert [row["accuracy"] for row in rows] == [a for result in retraining["results"] for a in result["accuracies"]]
    assert retraining.pick == rows[0]["pooling"]
    assert retraining.verdict == retraining["verdict"]
    assert {row["verdict"] for row in rows if "default" in row["roles"].split(", ")} == {None}
    assert {(row["pooling"], row["seed"]) for row in results["exhaustive"].to_rows()} == {
        (pooling, seed) for pooling in ("5-3-2", "4-3-3") for seed in (1, 2)
    }


def test_a_run_can_be_opened(results):
    run = poolwise.Run.open(str(results["search"].path))
    assert run.ranking == results["rank"]
    assert run.refinement == results["refine"]
    assert run.retraining == results["retrain"]
    assert run.exhaustive is None
    assert run.to_rows()[-1]["step"] == 30
    assert repr(run).endswith("done: ranking, refinement, retraining)")
    with pytest.raises(RequestError, match="not a run folder"):
        poolwise.Run.open("nowhere")


def test_without_pandas(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(poolwise.PoolwiseError, match=r"poolwise\[frames\]") as error:
        results["rank"].to_dataframe()
    assert "\n" not in str(error.value)
    assert results["rank"].to_rows()
