import numpy as np
import pytest
import torch

from poolwise import api
from poolwise.errors import RequestError
from poolwise.experiment import resolve
from poolwise.models.chain import Chain, PoolHead, batch_norm
from poolwise.models.supernet import SwitchableNet
from poolwise.rankings.baselines import COUNTED, UNTRAINED, counted, untrained
from poolwise.rankings.baselines.untrained import grad_norm, naswot
from poolwise.rng import Streams
from poolwise.spaces import Pooling


def test_counted_baselines():
    priced = api.costs("resnet20")
    named = list(map(str, priced))
    for name in COUNTED:
        assert counted(name, priced.values()).shape == (36,)
    assert named[int(counted("macs", priced.values()).argmax())] == "8-1-1"
    assert named[int(counted("receptive_field", priced.values()).argmin())] == "1-1-8"


@pytest.fixture
def experiment(tiny_settings, tiny_source):
    return resolve(tiny_settings, tiny_source)


@pytest.mark.parametrize("name", UNTRAINED)
def test_zero_cost_scores(experiment, name):
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    scores, macs = untrained(experiment, name, seed=3, initialisations=1, images=16)
    again, _ = untrained(experiment, name, seed=3, initialisations=1, images=16)
    other, twice = untrained(experiment, name, seed=4, initialisations=2, images=16)
    assert scores.shape == (36,)
    assert np.isfinite(scores).all()
    assert np.array_equal(scores, again)
    assert not np.array_equal(scores, other)
    assert len(set(scores)) > 30
    assert twice == 2 * macs > 0
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])


def test_naswot_by_hand(experiment):
    network = SwitchableNet(experiment.build(batch_norm, "init", Streams(0)))
    pooling = Pooling.parse("4-3-3")
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    plain, features, codes, depth = network.chain, images, [], 0
    for layer, target in zip(plain.layers, pooling.depths(), strict=True):
        for _ in range(target - depth):
            features = torch.nn.functional.max_pool2d(features, 2)
        depth = target
        if isinstance(layer, torch.nn.Sequential):
            features = layer(features)
            codes.append(features > 0)
        else:
            inner = layer.act1(layer.norm1(layer.conv1(features)))
            codes.append(inner > 0)
            features = layer(features)
            codes.append(features > 0)
    flat = torch.cat([code.flatten(1) for code in codes], 1)
    alike = [[int((a == b).sum()) for a in flat] for b in flat]
    expected = np.linalg.slogdet(np.array(alike, float))[1]
    assert naswot(network, pooling, images, torch.zeros(5, dtype=torch.int64)) == pytest.approx(expected)
    assert all(not module._forward_hooks for module in network.modules())


def test_grad_norm_leaves_no_gradients(experiment):
    network = SwitchableNet(experiment.build(batch_norm, "init", Streams(0)))
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    assert grad_norm(network, Pooling.parse("4-3-3"), images, labels) > 0
    assert all(weight.grad is None for weight in network.parameters())


def test_a_network_without_relus():
    network = SwitchableNet(Chain([("a", torch.nn.Conv2d(3, 4, 1)), ("b", torch.nn.Tanh())], PoolHead(4, 2)))
    with pytest.raises(RequestError, match="has none: use grad_norm"):
        naswot(network, Pooling.parse("1-1"), torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64))


def test_part_of_the_images(tiny_settings, tiny_source):
    few = resolve(tiny_settings.replace(images=12), tiny_source)
    scores, _ = untrained(few, "naswot", initialisations=1)
    assert np.isfinite(scores).all()
