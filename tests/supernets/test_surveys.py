"""Surveys: all configurations scored at given steps of a search."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

import poolwise
from conftest import After
from poolwise.benchmarks.compare.compute import Compute
from poolwise.errors import RequestError
from poolwise.experiment import resolve
from poolwise.pipeline import costs, estimates
from poolwise.progress import Interrupted, Listener
from poolwise.storage import RunFolder
from poolwise.supernets import samplers
from poolwise.supernets.budget import group_step_macs, mean_step_macs, step_macs, survey_macs
from poolwise.supernets.samplers import Surveys
from poolwise.supernets.state import CHECKPOINT, SearchState
from poolwise.supernets.trainer import train, train_block
from poolwise.training.calibration import Timing

METHODS = [method.name for method in samplers.available() if method.surveys]


@pytest.fixture
def surveyed(monkeypatch):
    """Return the surveys that samplers receive, in order."""
    received, original = [], samplers.Sampler.learn_survey

    def learn(sampler, survey):
        received.append(survey)
        original(sampler, survey)

    monkeypatch.setattr(samplers.Sampler, "learn_survey", learn)
    return received


@pytest.fixture
def surveying_mixture(monkeypatch):
    """Make the mixture ask for surveys, so that several SuperNets score."""
    monkeypatch.setattr(samplers.sampler("mixture"), "surveys", Surveys(2, 3, 100, outputs=True))


def test_a_survey_restated(tiny_settings, tiny_source, surveyed, surveying_mixture):
    """One forward pass for each configuration on its SuperNet, on batches drawn without repetition."""
    config = tiny_settings.replace(supernets=2, steps=16, block=3, batch_size=14)
    state = SearchState(resolve(config, tiny_source))
    experiment = state.experiment
    while state.step < 8:
        train_block(state)
    before, poolings = state.macs, list(experiment.space)
    supernet_P = state.sampler.supernet_of(poolings)
    assert set(supernet_P) == {0, 1}
    half = experiment.halves[1]
    order = state.streams.child("survey1")["score_order"].permutation(len(half))
    accuracy_PB, outputs_PBV = np.zeros((36, 3)), np.zeros((36, 3, 14 * 3))
    for b in range(3):
        batches = experiment.batches(experiment.training_images, 14, half)
        images_BHWC, labels_B = batches.take(order[14 * b : 14 * b + 14])
        for a, (pooling, m) in enumerate(zip(poolings, supernet_P, strict=True)):
            with torch.no_grad():
                logits_BK = state.mixture.networks[m](batches.normalize(images_BHWC), pooling)
            accuracy_PB[a, b] = (logits_BK.argmax(1) == labels_B).double().mean()
            outputs_PBV[a, b] = logits_BK.softmax(1).flatten()
    jobs = train_block(state)
    assert len(surveyed) == 2
    assert np.allclose(surveyed[1].accuracies_PB, accuracy_PB, atol=1e-12)
    assert np.allclose(surveyed[1].outputs_PV, outputs_PBV.reshape(36, -1), atol=1e-5)
    assert surveyed[1].outputs_PV.std() > 0.01
    prefixes = sum(
        experiment.cost.prefix_macs([p for p, net in zip(poolings, supernet_P, strict=True) if net == m])
        for m in (0, 1)
    )
    macs = 3 * 14 * prefixes + 36 * 35 // 2 * 3 * 14 * 3
    assert state.surveys[1]["macs"] == macs
    steps = [step_macs(experiment, 1)] * len(jobs)
    drawn = state.sampler.visited()
    costliest, cheapest = (pick(experiment.cost(experiment.space[a]).macs for a in drawn) for pick in (max, min))
    assert before + macs + sum(steps) * cheapest <= state.macs <= before + macs + sum(steps) * costliest
    assert state.surveys[1]["accuracies"] == surveyed[1].accuracies_PB.mean(axis=1).tolist()


@pytest.mark.parametrize("method", METHODS)
def test_blocks_end_where_a_survey_is_due(method, tiny_settings, tiny_source, surveyed):
    config = samplers.settled(tiny_settings.replace(method=method, supernets=1, steps=40, block=4))
    state, steps = SearchState(resolve(config, tiny_source)), [0]
    while not state.finished:
        train_block(state)
        steps.append(state.step)
    count = state.sampler.surveys.count
    expected = [18 + 22 * i // count for i in range(count)]
    assert [record["step"] for record in state.surveys] == expected
    assert set(expected) < set(steps)
    assert len(surveyed) == count
    assert all(b - a <= 4 for a, b in pairwise(steps))


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_search_has_the_same_bytes(method, tmp_path, tiny_settings, tiny_source):
    """Stopped during the warm-up, just before the first survey and after it."""
    config = samplers.settled(tiny_settings.replace(method=method, supernets=1, steps=26, block=2, threads=1))
    experiment = resolve(config, tiny_source)
    complete, part = (RunFolder.create(tmp_path / name, {}) for name in ("whole", "part"))
    train(SearchState.open(experiment, complete), complete, Listener())
    for steps, surveys in ((7, 0), (4, 0), (3, 1)):
        with pytest.raises(Interrupted):
            train(SearchState.open(experiment, part), part, After(steps))
        assert len(part.load_checkpoint(CHECKPOINT)[1].get("surveys", [])) == surveys
    train(SearchState.open(experiment, part), part, Listener())
    (tensors, meta), (again, meta_again) = (run.load_checkpoint(CHECKPOINT) for run in (complete, part))
    assert meta_again == meta
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)
    logged = [run.events("survey") for run in (complete, part)]
    count = samplers.sampler(method).surveys.count
    assert [event["step"] for event in logged[1]] == [event["step"] for event in logged[0]] == [12, 15, 19, 22][:count]
    assert [event["accuracies"] for event in logged[1]] == [event["accuracies"] for event in logged[0]]


def test_an_interrupted_survey_changes_nothing(tiny_settings, tiny_source, surveyed):
    config = tiny_settings.replace(method="iterative-mcts", supernets=1, warm_up=0.1, steps=20)
    state, checks = SearchState(resolve(config, tiny_source)), []
    for _ in range(2):
        train_block(state)

    def stop():
        checks.append(1)
        if len(checks) == 3:
            raise Interrupted

    before = state.sampler.state(), state.streams.state(), state.macs, state.mixture.scoring.state()
    with pytest.raises(Interrupted):
        train_block(state, check_stop=stop)
    assert (state.sampler.state(), state.streams.state(), state.macs, state.mixture.scoring.state()) == before
    assert (surveyed, state.surveys) == ([], [])
    train_block(state)
    assert len(surveyed) == 1


@pytest.mark.slow
def test_results_do_not_depend_on_workers(tmp_path, tiny_settings, tiny_source, surveyed, surveying_mixture):
    config = tiny_settings.replace(supernets=2, steps=12, block=4, threads=1)
    poolwise.search(config.replace(workers=1), tmp_path / "one", source=tiny_source)
    poolwise.search(config.replace(workers=2), tmp_path / "two", source=tiny_source)
    assert len(surveyed) == 4
    for one, other in zip(surveyed[:2], surveyed[2:], strict=True):
        assert np.array_equal(one.accuracies_PB, other.accuracies_PB)
        assert np.array_equal(one.outputs_PV, other.outputs_PV)
    one, two = (RunFolder.open(tmp_path / name).load_checkpoint(CHECKPOINT) for name in ("one", "two"))
    assert one[1]["macs"] == two[1]["macs"]
    assert all(torch.equal(one[0][key], two[0][key]) for key in one[0])


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("method", METHODS)
def test_a_search_in_macs_pays_for_its_surveys(method, group, tmp_path, tiny_settings, tiny_source):
    settings = tiny_settings.replace(method=method, group=group)
    experiment = resolve(samplers.settled(settings.replace(supernets=1)), tiny_source)
    poolings = list(experiment.space)
    groups = [[poolings[(a + i) % 36] for i in range(group)] for a in range(36)]
    prices = [group_step_macs(experiment, members) for members in groups]
    surveys = survey_macs(experiment, experiment.config)
    allowed = 60 * sum(prices) // len(prices) + surveys
    config = settings.replace(supernets=None, steps=None, search_macs=allowed, block=4, threads=1)
    folder = poolwise.search(config, tmp_path / "whole", source=tiny_source)
    meta = folder.load_checkpoint(CHECKPOINT)[1]
    assert sum(record["macs"] for record in meta["surveys"]) == surveys > 10 * prices[0]
    assert allowed - max(prices) < meta["macs"] < allowed + 4 * max(prices)
    assert 40 < meta["step"] < 80


@pytest.mark.parametrize("method", METHODS)
def test_grouped_steps_and_surveys(method, tmp_path, tiny_settings, tiny_source, surveyed):
    """Steps of groups, surveys between them and their MACs; resumed after an interruption, the same bytes."""
    config = samplers.settled(tiny_settings.replace(method=method, supernets=1, group=4, score_on="train", threads=1))
    experiment = resolve(config.replace(steps=26, block=4), tiny_source)
    state, groups = SearchState(experiment), []
    tell = state.sampler.tell_group
    state.sampler.tell_group = lambda poolings, *rest: groups.append(poolings) or tell(poolings, *rest)
    while not state.finished:
        train_block(state)
    count = state.sampler.surveys.count
    assert [record["step"] for record in state.surveys] == [12, 15, 19, 22][:count]
    assert len(surveyed) == count
    assert {len(poolings) for poolings in groups} == {4}
    assert sum(state.sampler._tree.visits[:36]) == 4 * (26 - state.surveys[-1]["step"])
    macs = sum(group_step_macs(experiment, poolings) for poolings in groups)
    assert state.macs == macs + survey_macs(experiment, config)
    complete, part = (RunFolder.create(tmp_path / name, {}) for name in ("whole", "part"))
    train(SearchState.open(experiment, complete), complete, Listener())
    for steps in (3, 2):
        with pytest.raises(Interrupted):
            train(SearchState.open(experiment, part), part, After(steps))
    train(SearchState.open(experiment, part), part, Listener())
    (tensors, meta), (again, meta_again) = (run.load_checkpoint(CHECKPOINT) for run in (complete, part))
    assert meta_again == meta
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)
    assert (meta["macs"], meta["sampler"]) == (state.macs, json.loads(json.dumps(state.sampler.state())))


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("method", METHODS)
def test_estimates_include_surveys(method, group, tiny_settings, tiny_source, monkeypatch):
    config = tiny_settings.replace(method=method, supernets=1, group=group)
    experiment = resolve(samplers.settled(config), tiny_source)
    timing = Timing((0.5, 0.0), (0.1, 0.0), 1e-12, 0.0)
    planned = costs.search(experiment, timing)[0]
    surveys = survey_macs(experiment, experiment.config)
    compute = Compute(experiment)
    budget = compute.budget(200)
    steps, total = compute.search_steps(budget, experiment.config), sum(compute.macs.values())
    monkeypatch.setattr(samplers.sampler(method), "surveys", None)
    without = costs.search(experiment, timing)[0]
    assert planned.macs - without.macs == surveys > 0
    outputs = 36 * (5 * 16 * 3 * 16 + 36 * 8) if method == "learned-hierarchy" else 0
    assert planned.memory_bytes - without.memory_bytes == outputs
    assert planned.seconds - without.seconds == pytest.approx(surveys * 1e-12)
    mean = mean_step_macs(experiment, experiment.config, 36, total) / 36
    assert compute.search_steps(budget, experiment.config) - steps == pytest.approx(surveys / mean, abs=1)
    assert steps == pytest.approx((budget - compute.ranking() - surveys) / mean, abs=1)
    assert estimates.plan(experiment, ["search"]).seconds is None


@pytest.mark.parametrize("method", METHODS)
def test_a_space_that_is_too_large_is_refused_before_a_folder_exists(
    method, tmp_path, tiny_settings, tiny_source, monkeypatch
):
    known = samplers.sampler(method)
    monkeypatch.setattr(known, "surveys", replace(known.surveys, most=35))
    config = tiny_settings.replace(method=method, supernets=None)
    with pytest.raises(RequestError, match=r"at most 35, and the space has 36: sample some with --max-configs.*"):
        poolwise.search(config, tmp_path / "run", source=tiny_source)
    assert list(tmp_path.iterdir()) == []
    poolwise.search(config.replace(max_configs=20, steps=4), tmp_path / "run", source=tiny_source)
