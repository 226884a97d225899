"""Steps of several configurations that share a prefix: gradients, bytes, MACs, fairness and complete searches."""

import copy
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import poolwise
from conftest import After, varied_supernet
from poolwise.benchmarks.compare.compute import Compute
from poolwise.benchmarks.compare.methods import parse_methods
from poolwise.config import Config
from poolwise.errors import RequestError
from poolwise.experiment import resolve
from poolwise.models import family
from poolwise.models.chain import create, running_norm
from poolwise.models.supernet import SwitchableNet
from poolwise.pipeline.costs import search as planned_search
from poolwise.progress import Interrupted
from poolwise.spaces import Pooling
from poolwise.storage import RunFolder
from poolwise.supernets.budget import group_step_macs, mean_group_macs, search_steps
from poolwise.supernets.mixture import Job, Mixture
from poolwise.supernets.state import CHECKPOINT, SearchState
from poolwise.supernets.trainer import train_block
from poolwise.training import Precision, correct, cosine, forward_all, right_of, sgd, train_group, train_step
from poolwise.training.calibration import Timing

GROUP = [Pooling((4, 3, 3)), Pooling((4, 4, 2)), Pooling((4, 5, 1)), Pooling((5, 1, 4))]


def images(size=8, batch=6):
    images_BCHW = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return images_BCHW, torch.arange(batch) % 3


def switchable(name, norm):
    return varied_supernet(name, norm, "full").double()


def external(name):
    chain = create(family(name).build, torch.Generator().manual_seed(0), classes=3, width=None, norm=running_norm)
    chain.use_batch_statistics()
    return SwitchableNet(chain).double()


def separate_gradients(network, poolings, images_BCHW, labels_B):
    """Return the mean over configurations of the gradient of each parameter, from separate passes, and the mean loss."""
    sums, losses = {}, []
    for pooling in poolings:
        network.zero_grad(set_to_none=True)
        loss = F.cross_entropy(network(images_BCHW, pooling).float(), labels_B)  # float32, as in every step
        loss.backward()
        losses.append(loss.item())
        for key, parameter in network.named_parameters():
            if parameter.grad is not None:
                sums[key] = sums.get(key, 0) + parameter.grad.clone()
    network.zero_grad(set_to_none=True)
    return {key: value / len(poolings) for key, value in sums.items()}, float(np.mean(losses))


def check_step(network, poolings, images_BCHW, labels_B):
    """Check gradient, loss and accuracies of one grouped step without momentum against separate passes.

    The loss is in float32, where the mean of two or four losses is exact up to the sum, so gradients agree in float64.
    """
    expected, loss = separate_gradients(network, poolings, images_BCHW, labels_B)
    before = {key: parameter.detach().clone() for key, parameter in network.named_parameters()}
    with torch.no_grad():
        right = [int((network(images_BCHW, p).argmax(1) == labels_B).sum()) for p in poolings]
    optimizer = sgd(network, 0.5, 0.0, 0.0)
    forward = forward_all(network, poolings)
    stepped, logits = train_group(forward, optimizer, images_BCHW, labels_B, 0.5, Precision())
    assert stepped.item() == pytest.approx(loss, rel=1e-6)
    assert right_of(logits, labels_B).tolist() == right
    for key, parameter in network.named_parameters():
        change = (before[key] - parameter.detach()) / 0.5
        assert torch.allclose(change, expected.get(key, torch.zeros_like(change)), rtol=1e-9, atol=1e-12), key
    assert any(value.abs().max() > 1e-3 for value in expected.values())


@pytest.mark.parametrize("norm", ["batch", "affine", "recalibrated"])
@pytest.mark.parametrize("name", ["resnet20", "resnet18"])
def test_the_gradient_of_a_group_is_the_mean_of_the_separate_gradients(name, norm):
    space = family(name).space
    poolings = GROUP if name == "resnet20" else [space[5], space[6], space[7], space[len(space) - 1]]
    check_step(switchable(name, norm), poolings, *images())


def test_the_gradient_of_a_group_of_an_external_network():
    known = family("torchvision:resnet18")
    poolings = [known.space[3], known.space[4], known.space[5], known.default]
    check_step(external("torchvision:resnet18"), poolings, *images(64, 3))


def test_equal_configurations_count_twice():
    check_step(switchable("resnet20", "batch"), [GROUP[0], GROUP[1], GROUP[0], GROUP[1]], *images())


def test_each_shared_layer_runs_once():
    network, calls = switchable("resnet20", "batch"), []
    for i, layer in enumerate(network.chain.layers):
        layer.register_forward_hook(lambda *_, i=i: calls.append(i))
    train_group(forward_all(network, GROUP[:3]), sgd(network, 0.1, 0.9, 0.0), *images(), 0.1, Precision())
    assert sorted(calls) == [*range(7), *(7, 7), *(8, 8, 8), *(9, 9, 9)]


def settings(**changes):
    return Config.from_flat(
        **{
            "width": 2, "supernets": 2, "steps": 9, "batch_size": 16, "eval_batch_size": 24, "lr": 0.05, "draw": "rounds",
            "precision": "float32", "device": "cpu", "threads": 1, "workers": 1, **changes,
        }
    )  # fmt: skip


def tensors_of(state):
    return [tensor.detach().clone() for tensor in state._tensors().values()]


def test_one_configuration_a_step_gives_the_same_bytes_as_separate_calls(tiny_source):
    """The six steps with ``ask``, ``train_step``, ``correct`` and ``tell``."""
    config = settings(steps=10, block=1)
    state, plain = (SearchState(resolve(config, tiny_source)) for _ in range(2))
    for step in range(10):
        train_block(state)
        pooling, m = plain.sampler.ask()
        network, optimizer = plain.mixture.networks[m], plain.mixture.optimizers[m]
        lr = cosine(step, 10, config.training.lr, config.training.lr_end)

        def forward(images_BCHW, network=network, pooling=pooling):
            return network(images_BCHW, pooling)

        train_step(forward, optimizer, *plain.mixture.training.next(), lr, Precision())
        images_BCHW, labels_B = plain.mixture.scoring.next()
        plain.sampler.tell(pooling, m, correct(forward, images_BCHW, labels_B, Precision()).item() / len(labels_B))
    assert json.dumps(state.sampler.state()) == json.dumps(plain.sampler.state())
    assert all(torch.equal(one, other) for one, other in zip(tensors_of(state), tensors_of(plain), strict=True))


@pytest.mark.parametrize("norm", ["affine", "recalibrated"])
def test_a_group_is_scored_on_one_batch_after_the_step(tiny_source, norm):
    experiment = resolve(settings(norm=norm), tiny_source)
    mixture = Mixture(experiment, poolwise.rng.Streams(0))
    job = Job(tuple(GROUP), 1, 0.1, mixture.training.draw(), mixture.scoring.draw())
    result = mixture.train_and_score([job])[0]
    images_BCHW, labels_B = mixture.scoring.load(job.scoring)
    with torch.no_grad():
        expected = [(mixture.networks[1](images_BCHW, p).argmax(1) == labels_B).float().mean().item() for p in GROUP]
    assert result.accuracies == pytest.approx(expected)
    assert result.accuracy == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("group", [1, 4])
def test_scores_on_training_batches_are_those_before_the_step(tiny_source, group):
    experiment = resolve(settings(score_on="train"), tiny_source)
    mixture = Mixture(experiment, poolwise.rng.Streams(0))
    before = copy.deepcopy(mixture.networks[0])
    job = Job(tuple(GROUP[:group]), 0, 0.5, mixture.training.draw(), None)
    result = mixture.train_and_score([job])[0]
    images_BCHW, labels_B = mixture.training.load(job.training)
    with torch.no_grad():
        logits = [before(images_BCHW, pooling) for pooling in GROUP[:group]]
    assert result.accuracies == pytest.approx([(one.argmax(1) == labels_B).float().mean().item() for one in logits])
    assert result.loss == pytest.approx(np.mean([F.cross_entropy(one, labels_B).item() for one in logits]), rel=1e-5)


def test_a_search_that_scores_on_training_batches_draws_no_scoring_batch(tiny_source):
    state = SearchState(resolve(settings(score_on="train", block=1), tiny_source))
    untouched = state.mixture.scoring.state()
    train_block(state)
    assert state.mixture.scoring.state() == untouched
    price = state.experiment.cost(state.experiment.space[state.sampler.visited()[0]]).macs
    assert state.macs == 3 * 16 * price


# MACs a pixel of the layers of ResNet20 with 2, 4 and 8 channels: two 3x3 convolutions each after the stem, and the 1x1
# convolutions of the shortcuts of layers 4 and 7, where the network widens
A_PIXEL = [27 * 2, *[2 * 9 * 4] * 3, 9 * 8 + 9 * 16 + 8, *[2 * 9 * 16] * 2, 9 * 32 + 9 * 64 + 32, *[2 * 9 * 64] * 2]
HEAD = 8 * 3


def layer(i, depth):
    """Return the MACs of layer i after ``depth`` poolings of an image of 8 x 8 pixels."""
    return (8 // 2**depth) ** 2 * A_PIXEL[i]


@pytest.mark.parametrize("score_on", ["held-out", "train"])
def test_macs_of_a_group_by_hand(tiny_source, score_on):
    """5-3-2, 5-4-1 and 6-1-3 share layers 0 to 4. The first two also share layers 5 to 7, after a pool."""
    experiment = resolve(settings(score_on=score_on), tiny_source)
    forward = (
        sum(layer(i, 0) for i in range(5))
        + sum(layer(i, 1) for i in (5, 6, 7))
        + (layer(8, 2) + layer(9, 2))
        + (layer(8, 1) + layer(9, 2))
        + (layer(5, 0) + layer(6, 1) + layer(7, 2) + layer(8, 2) + layer(9, 2))
        + 3 * HEAD
    )
    poolings = [Pooling(stages) for stages in ((5, 3, 2), (5, 4, 1), (6, 1, 3))]
    assert group_step_macs(experiment, poolings) == (3 * 16 + (16 if score_on == "held-out" else 0)) * forward
    assert forward < sum(experiment.cost(pooling).macs for pooling in poolings)


@pytest.mark.parametrize(("group", "draw"), [(6, "rounds"), (5, "rounds"), (5, "iid"), (50, "rounds")])
def test_the_estimated_mean_is_the_mean_over_what_is_drawn(tiny_source, group, draw):
    state = SearchState(resolve(settings(group=group, draw=draw, supernets=1), tiny_source))
    drawn = []
    for _ in range(300):
        poolings, m = state.sampler.ask_group()
        drawn.append(state.experiment.cost.prefix_macs(poolings))
        state.sampler.tell_group(poolings, m, [0.5] * len(poolings))
    mean = mean_group_macs(state.experiment, state.experiment.config)
    assert np.mean(drawn) == pytest.approx(mean, rel=0.02)
    assert (np.std(drawn) > 0) == (group < 36)


@pytest.mark.parametrize("score_on", ["held-out", "train"])
@pytest.mark.parametrize("group", [1, 6])
def test_plans_and_comparisons_count_groups(tiny_source, group, score_on):
    experiment = resolve(settings(group=group, score_on=score_on, supernets=1, steps=240), tiny_source)
    state = SearchState(experiment)
    while state.step < 240:
        poolings, m = state.sampler.ask_group()
        state.sampler.tell_group(poolings, m, [0.5] * len(poolings))
        state.advance([Job(poolings, m, 0.1, None, None)])
    timing = Timing((0.0, 1e-9), (0.0, 1e-9), 0.0, 0.0)
    plan = planned_search(experiment, timing)[0]
    assert plan.macs == pytest.approx(state.macs, rel=0.02)
    compute = Compute(experiment)
    steps = compute.search_steps(state.macs + compute.ranking(experiment.config), experiment.config)
    assert steps == pytest.approx(240, rel=0.02)
    in_macs = resolve(
        settings(group=group, score_on=score_on, supernets=1, steps=None, search_macs=state.macs), tiny_source
    )
    assert search_steps(in_macs) == pytest.approx(240, rel=0.02)
    assert (group == 6) == (
        plan.memory_bytes > planned_search(resolve(settings(), tiny_source), timing)[0].memory_bytes
    )


CHANGES = [
    {"group": 4, "supernets": 2, "block": 3},
    {"group": 3, "supernets": 3, "warm_up": 0.35, "block": 4, "score_on": "train", "norm": "affine"},
    {"group": 5, "method": "partition-random", "block": 2, "draw": "iid"},
    {"group": 4, "method": "mcts", "supernets": 1, "search_macs": 80_000_000, "steps": None},
]


@pytest.mark.slow
@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: changes.get("method", f"mixture-{changes['group']}"))
def test_an_interrupted_search_and_one_in_workers_give_the_same_bytes(tmp_path, tiny_source, changes):
    config = settings(**changes)
    complete = poolwise.search(config, tmp_path / "whole", source=tiny_source).load_checkpoint(CHECKPOINT)
    with pytest.raises(Interrupted):
        poolwise.search(config, tmp_path / "cut", source=tiny_source, listener=After(5))
    assert 0 < RunFolder.open(tmp_path / "cut").load_checkpoint(CHECKPOINT)[1]["step"] < complete[1]["step"]
    poolwise.resume(tmp_path / "cut", source=tiny_source)
    runs = [RunFolder.open(tmp_path / "cut")]
    if changes["group"] == 4 and changes.get("supernets") == 2:
        runs.append(poolwise.search(config.replace(workers=2), tmp_path / "two", source=tiny_source))
    for run in runs:
        tensors, meta = run.load_checkpoint(CHECKPOINT)
        assert json.dumps(meta) == json.dumps(complete[1])
        assert all(torch.equal(tensors[key], tensor) for key, tensor in complete[0].items())


def test_a_round_of_a_search_trains_every_configuration_once(tiny_source):
    state = SearchState(resolve(settings(group=6, steps=12), tiny_source))
    for visits in (1, 2):
        while state.step < 6 * visits:
            train_block(state)
        assert sorted(state.sampler.visited()) == list(range(36))
        scores_PM = state.sampler.scores_of(list(state.experiment.space))
        assert (scores_PM < 1).any(axis=1).all()


def test_a_search_in_groups_learns_and_ranks(tmp_path, tiny_source):
    config = settings(group=6, steps=24, supernets=1, norm="affine", lr=0.1)
    run = poolwise.search(config, tmp_path / "run", source=tiny_source)
    poolwise.rank(tmp_path / "run", source=tiny_source)
    ranking = json.loads((run.path / "ranking.json").read_text())
    assert ranking["settings"]["group"] == 6
    scores = [row["score"] for row in ranking["ranking"]]
    assert max(scores) > 0.6  # a third by chance
    state = SearchState(resolve(config, tiny_source))
    state.restore(run)
    assert ranking["spent"]["search_macs"] == state.macs
    assert state.sampler.state()["step"] == 24


def test_a_diverged_group_names_its_configurations(tmp_path, tiny_source):
    with pytest.raises(poolwise.PoolwiseError, match=r"configuration \d-\d-\d, \d-\d-\d, .*SuperNet"):
        poolwise.search(settings(group=3, lr=1e30, lr_end=0.0, norm="affine"), tmp_path / "run", source=tiny_source)


def test_group_is_a_variant_of_a_comparison():
    spec = parse_methods(["fairnas@group=6;score_on=train"], 4)[0]
    assert spec.label == "fairnas@group=6;score_on=train"
    assert dict(spec.fields) == {"group": 6, "score_on": "train"}
    with pytest.raises(RequestError, match="score_on"):
        parse_methods(["fairnas@score_on=test"], 4)
