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
    """A ranking, its truth, with ties or without, and some draws of them."""
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
def test_all_draws_at_once_are_one_after_the_other(given_, noise, score_bin):
    scores, truth, drawn_RP = given_
    draws = Draws(scores, truth, drawn_RP)
    for name, measure in measures(noise, score_bin).items():
        one_by_one = [measure(scores[row], truth[row]) for row in drawn_RP]
        assert draws.values(measure) == pytest.approx(one_by_one, abs=1e-12), name


@settings(max_examples=40, deadline=None)
@given(drawn())
def test_draws_against_scipy(given_):
    scores, truth, drawn_RP = given_
    told = [r for r in drawn_RP if len(set(scores[r])) > 1 and len(set(truth[r])) > 1]
    if not told:
        return
    draws = Draws(scores, truth, np.array(told))
    expected = [stats.kendalltau(scores[r], truth[r]).statistic for r in told]
    assert draws.values(agreement.kendall_tau_b) == pytest.approx(expected, abs=1e-12)
    expected = [stats.spearmanr(scores[r], truth[r]).statistic for r in told]
    assert draws.values(agreement.spearman) == pytest.approx(expected, abs=1e-12)


def test_every_measure_of_a_comparison_is_taken_of_all_draws_at_once():
    functions = [m.func if isinstance(m, partial) else m for m in measures(0.1).values()]
    assert set(functions) <= set(resampling._TOGETHER)


@pytest.mark.parametrize("study", ["own-1560-4680", "compare-published"])
def test_committed_studies_come_out_as_they_were(study):
    value = json.loads((RESULTS / study / "compare.json").read_text())
    table = tables.load(value["table"]["name"])
    entries = [
        Entry(
            told["method"], told["seed"], told["budget_macs"], np.array(told["scores"]), told["percent"], told["budget"],
            told["spent_macs"], parts_2P=np.array(told["parts"]) if "parts" in told else None,
        )
        for told in value["entries"]
    ]  # fmt: skip
    counts = baselines.counted("productive", table_costs(table, "resnet20").values())
    for found, row in zip(judge(entries, table, counts, value["resamples"]), value["rows"], strict=True):
        assert found["first"] == row["first"]
        for name in value["measures"]:
            assert found[name] == pytest.approx(row[name], abs=1e-9), (row["method"], row["treatment"], name)


@pytest.mark.parametrize("size", [5, 300])
def test_intervals_are_those_of_the_draws_one_after_the_other(size):
    generator = np.random.default_rng(1)
    scores, truth = generator.normal(size=size), generator.integers(0, 9, size).astype(float)
    one_by_one = np.random.default_rng(7)
    values = {"tau": [], "regret": [], "own": []}
    own = lambda a, b: float(a @ b)  # noqa: E731 - a statistic that nothing is known of
    for _ in range(300):  # more than are taken together
        row = one_by_one.integers(size, size=size)
        values["tau"].append(np.nan_to_num(stats.kendalltau(scores[row], truth[row]).statistic))
        values["regret"].append(regret(scores[row], truth[row], 3))
        values["own"].append(own(scores[row], truth[row]))
    statistics = {"tau": kendall_tau_b, "regret": partial(regret, k=3), "own": own}
    found = bootstrap_interval(statistics, scores, truth, resamples=300, seed=7)
    for name, each in values.items():
        assert found[name] == pytest.approx(tuple(np.percentile(each, [2.5, 97.5])), abs=1e-9)
