import copy
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from poolwise import api
from poolwise.cli import show
from poolwise.config import Config
from poolwise.experiment import resolve
from poolwise.rankings import scoring
from poolwise.rankings.ranking import arrange, trained
from poolwise.rankings.scoring import combine_turns
from poolwise.statistics import kendall_tau_b
from poolwise.storage import RunFolder
from poolwise.supernets.state import SearchState


def read(path):
    return json.loads((path / "ranking.json").read_text())


def test_ranking_has_all_parts(finished):
    value = read(finished)
    for row in value["ranking"]:
        low, high = row["interval"]
        assert 0 <= low <= row["score"] <= high <= 1
        assert row["score"] == pytest.approx(np.mean(row["halves"]))  # 2 batches of 24
    assert sum(row["top3"] for row in value["ranking"]) == pytest.approx(3)
    ties = [row["tie"] for row in value["ranking"]]
    assert ties[0] == 1
    assert value["ranked_by"] == "score"
    assert value["fusion"]["productive"] is None


def test_fusion_on_and_off(finished, tiny_source):
    before = read(finished)
    fused = api.rank(finished, fusion=True, source=tiny_source)
    estimates = [row["estimate"] for row in fused["ranking"]]
    assert estimates == sorted(estimates, reverse=True)
    assert fused["fusion"]["productive"]["weight"] > 0
    assert fused["settings"]["fusion"] is True
    assert read(finished) == fused
    kept = {row["pooling"]: row["score"] for row in before["ranking"]}
    assert {row["pooling"]: row["score"] for row in fused["ranking"]} == kept
    again = api.rank(finished, fusion=False, source=tiny_source)
    assert [row["pooling"] for row in again["ranking"]] == [row["pooling"] for row in before["ranking"]]
    assert RunFolder.open(finished).request()["settings"]["fusion"] is False


def test_new_order_deletes_later_results_but_no_trainings(finished, tiny_source):
    before = read(finished)["picks"]
    after = api.rank(finished, fusion=True, source=tiny_source)["picks"]
    assert after != before, "in this run, fusion has another pick"
    assert (finished / "trials.sqlite").exists()
    assert not (finished / "retrain.json").exists()
    assert not (finished / "report.html").exists()


def test_trainings_of_the_run_are_used(finished, tiny_source):
    assert len(trained(RunFolder.open(finished))) in (2, 3)
    api.retrain(finished, top=8, source=tiny_source)
    known = trained(RunFolder.open(finished))
    assert len(known) >= 8
    value = api.rank(finished, fusion=True, source=tiny_source)
    assert value["fusion"]["trainings"] == len(known)
    without = arrange(value, True)
    assert without["fusion"]["trainings"] == 0
    contradicting = {row["pooling"]: -float(row["productive"]) for row in value["ranking"]}
    doubted = arrange(value, True, contradicting)
    assert doubted["fusion"]["trainings"] == len(contradicting)
    assert "productive" not in doubted["fusion"]["shares"], "trainings that contradict the count remove its share"
    assert doubted["fusion"]["productive"]["weight"] == 0


def test_equal_scores_are_ties(finished):
    value = read(finished)
    for row in value["ranking"]:
        row["score"], row["halves"] = 0.5, [0.5, 0.5]
    flat = arrange(value, False)
    assert {row["tie"] for row in flat["ranking"]} == {1}
    macs = [row["macs"] for row in flat["ranking"]]
    assert macs == sorted(macs), "ties go to fewer MACs"


def test_arrange_does_not_modify_its_input(finished):
    value = read(finished)
    value["short"] = {"length": 10, "seeds": 1}
    for row in value["ranking"]:
        row["shared"], row["short"] = row["productive"] / 100, [float(row["productive"])]
    before = copy.deepcopy(value)
    after = arrange(value, True)
    assert value == before
    assert after["short"]["used"]
    assert after["ranking"] != before["ranking"]


def test_shares_of_an_estimate_with_proxy_trainings_are_reported(finished, tiny_source, capsys):
    value, generator = read(finished), np.random.default_rng(1)
    for row in value["ranking"]:
        row["shared"], noise = 0.2 + row["productive"] / 100, 0.1 * generator.standard_normal(2)
        row["short"] = [row["productive"] + noise[0], row["productive"] + noise[1]]
    arranged = arrange({**value, "short": {"length": 10, "seeds": 2}}, None)
    assert arranged["fusion"]["shares"] == {"short": 0.5, "shared": 0.25, "productive": 0.25}
    message = "proxy trainings (50 %), accuracy on shared weights (25 %), productive convolutions (25 %)"
    assert arranged["fusion"]["said"] == message
    estimates = [row["estimate"] for row in arranged["ranking"]]
    assert estimates == sorted(estimates, reverse=True)
    RunFolder.open(finished).write_json("ranking.json", arranged)
    assert f"Ranked by an estimate from {message}." in api.report(finished).read_text()
    show.ranking(arranged, False, None)
    assert f"ranked by the estimate from {message} (reliability" in capsys.readouterr().out.replace("\n", " ")
    assert "shares" not in arrange(arranged, False)["fusion"]


@pytest.mark.parametrize(
    ("beam", "scored", "expected"),
    [
        (None, 19_999, "the default and those that the search visited"),
        (None, 20_001, "the default and the 20,000 with the highest scores among those that the search visited"),
        (4, 20_001, "the default and those that a beam search of width 4 reached"),
    ],
)
def test_coverage_of_a_large_space(beam, scored, expected):
    experiment = SimpleNamespace(config=Config.from_flat(rank_beam=beam), space=SimpleNamespace(size=10**6))
    assert scoring.coverage(experiment, scored) == f"{scored:,} of 1,000,000 configurations are ranked: {expected}"


def test_estimate_without_fusion_keeps_the_order_of_the_scores(finished):
    value = read(finished)
    rows = value["ranking"]
    assert kendall_tau_b([row["estimate"] for row in rows], [row["score"] for row in rows]) in (0, pytest.approx(1))


def test_pooling_of_turns_ignores_the_mean_accuracy_of_a_supernet():
    generator = np.random.default_rng(0)
    accuracy_TP, weight_TP = generator.random((3, 7)), generator.dirichlet(np.ones(3), 7).T
    score_P = combine_turns(accuracy_TP, weight_TP)
    better = accuracy_TP + np.array([[0.2], [0.0], [-0.1]])
    assert combine_turns(better, weight_TP) - combine_turns(better, weight_TP).mean() == pytest.approx(
        score_P - score_P.mean()
    )
    assert combine_turns(accuracy_TP[:1], np.ones((1, 7))) == pytest.approx(accuracy_TP[0])
    alike = np.tile(accuracy_TP[0], (3, 1))
    assert combine_turns(alike, weight_TP) == pytest.approx(accuracy_TP[0])


def test_passes_may_finish_in_any_order(monkeypatch, tmp_path, tiny_settings, tiny_source):
    config = tiny_settings.replace(eval_batch_size=8, rank_on="all")
    api.search(config, tmp_path / "run", source=tiny_source)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    in_order = api.rank(tmp_path / "run", source=tiny_source)
    run_jobs = scoring.run_jobs
    monkeypatch.setattr(scoring, "run_jobs", lambda *arguments: reversed(list(run_jobs(*arguments))))
    assert api.rank(tmp_path / "copy", source=tiny_source)["ranking"] == in_order["ranking"]


def test_ranked_on_all_supernets_restated(tmp_path, tiny_settings, tiny_source):
    config = tiny_settings.replace(rank_on="all", eval_batch_size=8)
    api.search(config, tmp_path / "run", source=tiny_source)
    value = api.rank(tmp_path / "run", source=tiny_source)
    experiment = resolve(config, tiny_source, RunFolder.open(tmp_path / "run").request()["calibration"])
    state = SearchState(experiment)
    state.restore(RunFolder.open(tmp_path / "run"))
    poolings, batches = list(experiment.space), experiment.ranking_batches()
    assert batches.parts == 6
    right, seen = np.zeros((2, 36)), np.zeros(2)
    for i, (images, labels) in enumerate(batches.ordered()):
        network = state.mixture.networks[i % 2]
        for a, pooling in enumerate(poolings):
            with torch.no_grad():
                right[i % 2, a] += (network(images, pooling).argmax(1) == labels).sum()
        seen[i % 2] += len(labels)
    accuracy = right / seen[:, None]
    gain = accuracy - accuracy.mean(1, keepdims=True)
    assignment = state.sampler.assignment_of(poolings)
    expected = accuracy.mean() + (assignment * gain.T).sum(1)
    scores = {row["pooling"]: row["score"] for row in value["ranking"]}
    assert [scores[str(pooling)] for pooling in poolings] == pytest.approx(expected)
    assert value["spent"]["rank_macs"] == 48 * experiment.cost.prefix_macs(poolings), (
        "every image is evaluated by one SuperNet"
    )
    assert len(value["ranking"][0]["halves"]) == 2


def test_every_supernet_has_a_batch(tiny_settings, tiny_source):
    config = tiny_settings.replace(rank_on="all", supernets=5, eval_batch_size=40)
    assert resolve(config, tiny_source).ranking_batches().parts >= 5
