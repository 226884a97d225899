"""Measured branching: the trials, and their effect on the search."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import poolwise
from conftest import After
from poolwise.experiment import resolve
from poolwise.progress import Interrupted
from poolwise.rng import Streams
from poolwise.storage import RunFolder
from poolwise.supernets import branching
from poolwise.supernets.branching import BranchingResult
from poolwise.supernets.budget import TRIALS, measuring_macs, step_macs, tried_steps
from poolwise.supernets.state import CHECKPOINT, SearchState
from poolwise.supernets.trainer import train_block
from poolwise.training import cosine

PAYS, COSTS = BranchingResult(0.05, 0.02, 10), BranchingResult(-0.05, 0.02, 10)


@pytest.fixture
def measured_settings(tiny_settings):
    return tiny_settings.replace(supernets=4, branching="measured", rank_on="all", steps=24, threads=1, workers=1)


@pytest.fixture
def always(monkeypatch):
    """Make measurements return the given results in turn, and the last one from then on."""

    def return_in_turn(*results):
        left = list(results)
        monkeypatch.setattr(branching, "measure_gain", lambda *_: (left.pop(0) if len(left) > 1 else left[0], 0))

    return return_in_turn


def _state(config, source, steps=5):
    state = SearchState(resolve(config, source))
    for _ in range(steps):
        train_block(state)
    return state


def _tensors(state):
    return [
        t.clone()
        for n, m in zip(state.mixture.networks, state.mixture.momenta(), strict=True)
        for t in [*n.parameters(), *m]
    ]


def test_a_trial_restated(measured_settings, tiny_source):
    """Repeat a trial with copies of the SuperNet, plain SGD and one forward pass per configuration."""
    state = _state(measured_settings, tiny_source)
    experiment, steps, lr = state.experiment, 7, 0.04
    before, members = _tensors(state), list(experiment.space)
    trial = branching._Trial(experiment, state.mixture, 0, members, Streams(3), lambda: None)
    gain = trial.gain(steps, lr, 0.001)
    assert all(torch.equal(one, other) for one, other in zip(before, _tensors(state), strict=True))

    again = branching._Trial(experiment, state.mixture, 0, members, Streams(3), lambda: None)
    taken = [again._draw(i % 2, cosine(i, 2 * steps, lr, 0.001)) for i in range(2 * steps)]
    assert all(members.index(pooling) // 18 == i % 2 for i, (pooling, _, _) in enumerate(taken))
    assert taken[0][2] == lr > taken[-1][2] > 0.001

    def losses(taken, half):
        network = copy.deepcopy(state.mixture.networks[0])
        momenta = [momentum.clone() for momentum in state.mixture.momenta()[0]]
        for pooling, draw, rate in taken:
            images_BCHW, labels_B = again.training.load(draw)
            loss = F.cross_entropy(network(images_BCHW, pooling), labels_B)
            gradients = torch.autograd.grad(loss, list(network.parameters()))
            with torch.no_grad():
                for p, momentum, gradient in zip(network.parameters(), momenta, gradients, strict=True):
                    momentum.mul_(experiment.config.training.momentum).add_(gradient)
                    p.sub_(rate * momentum)
        images_BCHW, labels_B = again.scoring_batch
        with torch.no_grad():
            loss_P = [float(F.cross_entropy(network(images_BCHW, p), labels_B)) for p in again.scored[half]]
        return np.mean(loss_P)

    expected = np.mean([losses(taken, half) - losses(taken[half::2], half) for half in (0, 1)])
    assert gain == pytest.approx(expected, abs=2e-5)
    assert abs(gain) > 1e-3


def test_gain_is_the_mean_over_trials_and_noise_is_from_student_t(measured_settings, tiny_source, monkeypatch):
    state, gains = _state(measured_settings, tiny_source), iter([0.01, 0.03, 0.02, 0.05, 0.04])
    monkeypatch.setattr(branching._Trial, "gain", lambda *_: next(gains))
    result, _ = branching.measure_gain(
        state.experiment, state.mixture, [list(state.experiment.space)], Streams(0), 7, 0.04
    )
    assert TRIALS == 5
    assert result.gain == pytest.approx(0.03)
    assert result.noise == pytest.approx(
        2.1318 * np.sqrt(0.00025 / 5), rel=1e-3
    )  # t of 4 degrees of freedom, one-sided 95 %
    assert result.pays


def test_one_supernet_is_better_early_in_the_search(measured_settings, tiny_source):
    config = measured_settings.replace(steps=600, batch_size=48, lr=0.1)
    state = _state(config, tiny_source, 2)
    result, _ = branching.measure_gain(
        state.experiment, state.mixture, [list(state.experiment.space)], Streams(0), 10, 0.1
    )
    assert result.gain < -result.noise


def test_check_does_not_affect_the_search(measured_settings, tiny_source, monkeypatch):
    monkeypatch.setattr(BranchingResult, "pays", property(lambda _: False))
    experiment = resolve(measured_settings, tiny_source)
    plain = resolve(measured_settings.replace(supernets=1, branching="fixed"), tiny_source)
    looked, state = SearchState(experiment), SearchState(plain)
    assert (experiment.block, plain.block) == (1, 1)
    while state.step < state.steps:
        assert train_block(looked) == train_block(state)
    assert [check["step"] for check in looked.checks] == [12]  # no further check after one that did not pay
    pairs = zip(state.mixture.networks[0].parameters(), looked.mixture.networks[0].parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    most_macs = max(experiment.cost(pooling).macs for pooling in experiment.space)
    assert 0 < looked.macs - state.macs < measuring_macs(experiment, measured_settings, 24, most_macs) / 2
    assert tried_steps(24) == 10


def test_messages():
    assert not COSTS.pays
    assert str(COSTS) == "two SuperNets reach a loss 0.050 nats higher than one at equal compute (noise: up to 0.020)"
    assert PAYS.pays
    assert str(PAYS) == "two SuperNets reach a loss 0.050 nats lower than one at equal compute (noise: up to 0.020)"
    assert not BranchingResult(0.01, 0.02, 10).pays  # within noise


def test_supernets_double_if_it_pays(measured_settings, tiny_source, always):
    always(PAYS)
    state = SearchState(resolve(measured_settings, tiny_source))
    counts = []
    while state.step < state.steps:
        used = {job["supernet"] for job in train_block(state)}
        assert used <= set(range(state.sampler.supernets))
        if state.step in (13, 19):  # all copies but the one that was just trained equal their sources
            half = state.sampler.supernets // 2
            tensors = [
                [*n.parameters(), *m] for n, m in zip(state.mixture.networks, state.mixture.momenta(), strict=True)
            ]
            same = [
                all(torch.equal(a, b) for a, b in zip(tensors[m], tensors[m + half], strict=True)) for m in range(half)
            ]
            assert same.count(False) == 1
        counts.append(state.sampler.supernets)
    assert counts == [1] * 12 + [2] * 6 + [4] * 6
    assert [(check["step"], check["supernets"]) for check in state.checks] == [(12, 2), (18, 4)]


@pytest.mark.slow
def test_interruption_at_any_step_gives_the_same_bytes(tmp_path, measured_settings, tiny_source, monkeypatch):
    monkeypatch.setattr(BranchingResult, "pays", property(lambda _: True))

    complete = poolwise.search(measured_settings, tmp_path / "whole", source=tiny_source)
    expected, meta = complete.load_checkpoint(CHECKPOINT)
    assert meta["sampler"]["supernets"] == 4
    for after in (11, 12, 13, 18, 20):
        with pytest.raises(Interrupted):
            poolwise.search(measured_settings, tmp_path / str(after), source=tiny_source, listener=After(after))
        poolwise.resume(tmp_path / str(after), source=tiny_source)
        folder = RunFolder.open(tmp_path / str(after))
        tensors, again = folder.load_checkpoint(CHECKPOINT)
        assert all(torch.equal(tensors[key], tensor) for key, tensor in expected.items())
        assert again["checks"] == meta["checks"]
        assert [event["step"] for event in folder.events("branching")] == [12, 18]


def test_interruption_within_a_trial_changes_nothing(measured_settings, tiny_source):
    state, complete = (_state(measured_settings, tiny_source, 12) for _ in range(2))
    before, calls = _tensors(state), []

    def stop():
        calls.append(0)
        if len(calls) == 50:
            raise Interrupted

    with pytest.raises(Interrupted):
        train_block(state, check_stop=stop)
    assert (state.step, state.checks) == (12, [])
    assert all(torch.equal(one, other) for one, other in zip(before, _tensors(state), strict=True))
    assert train_block(state) == train_block(complete)
    assert state.checks == complete.checks
    assert len(state.checks) == 1


def test_diverged_trial_does_not_branch(measured_settings, tiny_source, monkeypatch):
    monkeypatch.setattr(branching, "_loss", lambda *_: float("nan"))
    state = _state(measured_settings, tiny_source, 13)
    assert [(c["diverged"], c["pays"], c["gain"]) for c in state.checks] == [(True, False, 0.0)]
    assert "diverged" in state.checks[0]["said"]


@pytest.mark.parametrize(("only", "checks"), [(("4-3-3", "8-1-1"), 1), (("4-3-3", "5-2-3", "8-1-1"), 2)])
def test_few_configurations_limit_the_number_of_checks(measured_settings, tiny_source, monkeypatch, only, checks):
    monkeypatch.setattr(BranchingResult, "pays", property(lambda _: True))
    state = _state(measured_settings.replace(only=only), tiny_source, 24)
    assert len(state.checks) == checks


def test_spaces_that_are_too_large_to_list_are_sampled(measured_settings, tiny_source, monkeypatch):
    monkeypatch.setattr(branching, "LISTED", 30)
    monkeypatch.setattr(branching, "_SAMPLED", 10)
    seen = []
    real = branching.measure_gain
    monkeypatch.setattr(branching, "measure_gain", lambda *a: seen.extend(a[2][0]) or real(*a))
    state = _state(measured_settings, tiny_source, 12)
    monkeypatch.setattr(type(state.experiment.space), "__iter__", None)  # a large space must not be listed
    train_block(state)
    assert 2 <= len(seen) <= 10
    assert seen == sorted(seen)


def test_macs_of_checks_are_reserved(measured_settings, tiny_source):
    plain = measured_settings.replace(supernets=1, branching="fixed")
    experiment = resolve(plain, tiny_source)
    mean = sum(experiment.cost(pooling).macs for pooling in experiment.space) // 36
    allowed = 2000 * step_macs(experiment, mean)
    config = measured_settings.replace(steps=None, search_macs=allowed)
    state = SearchState(resolve(config, tiny_source))
    assert 0.5 * 2000 < state.steps < 2000
    fixed = SearchState(resolve(plain.replace(steps=None, search_macs=allowed), tiny_source))
    assert fixed.steps in (1999, 2000)


@pytest.mark.parametrize(("branching_result", "count"), [(COSTS, 1), (PAYS, 4)])
def test_ranking_uses_the_current_supernets(tmp_path, measured_settings, tiny_source, always, branching_result, count):
    always(branching_result)
    retraining = poolwise.run(measured_settings, tmp_path / "run", source=tiny_source)
    ranking = RunFolder.open(tmp_path / "run").read("ranking.json", "")
    trained = {role for result in retraining["results"] for role in result["roles"]}
    assert {"pick", "default"} <= trained
    assert ranking["supernets"] == count
    assert all(len(row["assignment"]) == len(row["accuracies"]) == count for row in ranking["ranking"])
    assert ranking["evaluation_batch"] == (24 if count == 1 else 12)
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"{count} SuperNet" in page
    assert page.count("Branching: after") == len(ranking["branching"]) == (1 if count == 1 else 2)
