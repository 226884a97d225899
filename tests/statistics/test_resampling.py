import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from poolwise.benchmarks.compare.judge import Entry, judge, measures
from poolwise.models.cost import table_costs
from poolwise.rankings import baselines
from poolwise.statistics import agreement, bootstrap_interval, kendall_tau_b, regret, resampling
from poolwise.statistics.resampling import Draws
from poolwise.storage import tables

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@st.composite
def drawn(draw):
    """Generate scores and truth, with or without ties, and bootstrap draws of them."""
    count, seed = draw(st.integers(2, 14)), draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    scores, truth = generator.normal(size=(2, count))
    if draw(st.booleans()):
        scores = np.round(scores)
    if draw(st.booleans()):
        truth = np.round(2 * truth) / 2
    return scores, truth, generator.integers(count, size=(12, count))


@settings(max_examples=60, deadline=None)
@given(drawn(), st.sampled_from([0.0, 0.4]), st.sampled_from([0.0, 0.3]))
def test_vectorized_draws_equal_separate_draws(ranking, noise, score_bin):
    scores, truth, drawn_RP = ranking
    draws = Draws(scores, truth, drawn_RP)
    for name, measure in measures(noise, score_bin).items():
        one_by_one = [measure(scores[row], truth[row]) for row in drawn_RP]
        assert draws.values(measure) == pytest.approx(one_by_one, abs=1e-12), name


@settings(max_examples=40, deadline=None)
@given(drawn())
def test_draws_against_scipy(ranking):
    scores, truth, drawn_RP = ranking
    varied = [r for r in drawn_RP if len(set(scores[r])) > 1 and len(set(truth[r])) > 1]
    if not varied:
        return
    draws = Draws(scores, truth, np.array(varied))
    expected = [stats.kendalltau(scores[r], truth[r]).statistic for r in varied]
    assert draws.values(agreement.kendall_tau_b) == pytest.approx(expected, abs=1e-12)
    expected = [stats.spearmanr(scores[r], truth[r]).statistic for r in varied]
    assert draws.values(agreement.spearman) == pytest.approx(expected, abs=1e-12)


def test_every_measure_of_a_comparison_is_vectorized():
    functions = [m.func if isinstance(m, partial) else m for m in measures(0.1).values()]
    assert set(functions) <= set(resampling._VECTORIZED)


@pytest.mark.parametrize("study", [pytest.param("own-1560-4680", marks=pytest.mark.slow), "compare-published"])
def test_committed_studies_are_reproduced(study):
    value = json.loads((RESULTS / study / "compare.json").read_text())
    table = tables.load(value["table"]["name"])
    entries = [
        Entry(
            entry["method"], entry["seed"], entry["budget_macs"], np.array(entry["scores"]), entry["percent"], entry["budget"],
            entry["spent_macs"], parts_2P=np.array(entry["parts"]) if "parts" in entry else None,
        )
        for entry in value["entries"]
    ]  # fmt: skip
    counts = baselines.counted("productive", table_costs(table, "resnet20").values())
    for result, row in zip(judge(entries, table, counts, value["resamples"]), value["rows"], strict=True):
        assert result["first"] == row["first"]
        for name in value["measures"]:
            assert result[name] == pytest.approx(row[name], abs=1e-9), (row["method"], row["treatment"], name)


@pytest.mark.parametrize("size", [5, 300])
def test_intervals_equal_those_of_separate_draws(size):
    generator = np.random.default_rng(1)
    scores, truth = generator.normal(size=size), generator.integers(0, 9, size).astype(float)
    one_by_one = np.random.default_rng(7)
    values = {"tau": [], "regret": [], "own": []}
    inner_product = lambda a, b: float(a @ b)  # noqa: E731 - a statistic without a vectorized version
    for _ in range(300):  # more than one batch of draws
        row = one_by_one.integers(size, size=size)
        values["tau"].append(np.nan_to_num(stats.kendalltau(scores[row], truth[row]).statistic))
        values["regret"].append(regret(scores[row], truth[row], 3))
        values["own"].append(inner_product(scores[row], truth[row]))
    statistics = {"tau": kendall_tau_b, "regret": partial(regret, k=3), "own": inner_product}
    intervals = bootstrap_interval(statistics, scores, truth, resamples=300, seed=7)
    for name, each in values.items():
        assert intervals[name] == pytest.approx(tuple(np.percentile(each, [2.5, 97.5])), abs=1e-9)
