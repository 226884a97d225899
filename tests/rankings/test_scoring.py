"""The walk over common prefixes: same bits as one forward pass per configuration, each prefix once, little memory."""

import weakref

import numpy as np
import pytest
import torch

from conftest import KINDRED, families
from poolwise.errors import RequestError
from poolwise.models import available, family
from poolwise.models.chain import batch_norm, create
from poolwise.models.cost import CostModel
from poolwise.models.prefixes import walk
from poolwise.models.supernet import OPERATORS, SwitchableNet
from poolwise.spaces import Pooling
from poolwise.supernets.mixture import count_all
from poolwise.training import Precision, count_correct

NAMES = [f.name for f in available()]
FAMILIES = families(NAMES)
CPU = torch.device("cpu")


def make(name, seed=0, operator=None, norm=batch_norm):
    generator = torch.Generator().manual_seed(seed)
    return SwitchableNet(create(family(name).build, generator, classes=3, width=2, norm=norm), operator)


def images(seed=1, batch=6, size=8):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def size_of(name):
    return max(8, 2 ** family(name).default.poolings) * family(name).reduction


def members_of(name):
    """Return the entire space of the families in the paper, and about 60 configurations of all others."""
    space = family(name).space
    return list(space)[:: 1 if name in ("resnet20", "resnet18", "resnet50") else max(len(space) // 60, 1)]


def nodes(poolings):
    """Return the distinct prefixes of all configurations, which must be computed at least."""
    return {tuple(pooling.depths()[: i + 1]) for pooling in poolings for i in range(pooling.layers)}


class Watched(SwitchableNet):
    """Counts the layers it computes and the activations alive while it does."""

    def __init__(self, network):
        super().__init__(network.chain, network.operator)
        self.calls, self.most, self.alive = 0, 0, weakref.WeakSet()

    def layer(self, prefix, features_BCHW):
        features_BCHW = super().layer(prefix, features_BCHW)
        self.calls += 1
        self.alive.add(features_BCHW)
        self.most = max(self.most, len(self.alive))
        return features_BCHW


@pytest.mark.parametrize("text", ["float32", "float32+channels_last"])
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_logits_of_the_space_equal_single_forward_passes_to_the_bit(name, text):
    precision, network = Precision.parse(text), make(name)
    precision.place(network, CPU)
    batch, poolings = precision.images(images(size=size_of(name))), members_of(name)[::-1]
    seen = []
    for members, logits in walk(network, poolings, batch):
        seen += members
        for a in members:
            assert torch.equal(logits, network(batch, poolings[a]))
    assert sorted(seen) == list(range(len(poolings)))


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("name", families([name for name in NAMES if name != "vgg16"]))  # its layers have no stride
@torch.no_grad()
def test_either_operator_and_shared_slots(name, operator):
    network = make(name, operator=operator)
    layers = len(network)
    poolings = [Pooling((2, 0, layers - 2)), Pooling((2, layers - 2)), Pooling((2, 1, layers - 3)), Pooling((layers,))]
    for members, logits in walk(network, poolings, images(size=size_of(name))):
        assert torch.equal(logits, network(images(size=size_of(name)), poolings[members[0]]))


@pytest.mark.parametrize("name", FAMILIES)
def test_each_prefix_once_and_one_activation_per_pooling(name):
    network, poolings = Watched(make(name)), members_of(name)
    right = count_correct(network, poolings, images(size=size_of(name)), torch.arange(6) % 3, Precision())
    assert network.calls == len(nodes(poolings))
    assert network.most <= family(name).space.poolings + 2  # one per number of poolings so far, and the new one
    assert not network.alive
    assert len(set(right)) > 1


@pytest.mark.parametrize("name", FAMILIES)
def test_counts_equal_those_of_single_forward_passes(name):
    network, labels = make(name), torch.arange(6) % 3
    poolings = members_of(name)[::7]
    plain = [int((network(images(size=size_of(name)), pooling).argmax(1) == labels).sum()) for pooling in poolings]
    assert count_correct(network, poolings, images(size=size_of(name)), labels, Precision()) == plain
    assert count_correct(network, poolings * 2, images(size=size_of(name)), labels, Precision()) == plain * 2


@pytest.mark.parametrize("text", ["bfloat16", "bfloat16+channels_last"])
@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_runs(name, text):
    precision, network, labels = Precision.parse(text), make(name), torch.arange(6) % 3
    precision.place(network, CPU)
    poolings = members_of(name)[::11]
    right = count_correct(network, poolings, images(size=size_of(name)), labels, precision)
    with precision.active(CPU), torch.no_grad():
        plain = [network(precision.images(images(size=size_of(name))), pooling) for pooling in poolings]
    assert all(logits.dtype == torch.bfloat16 for logits in plain)
    assert right == [int((logits.argmax(1) == labels).sum()) for logits in plain]


@pytest.mark.parametrize("name", FAMILIES)
def test_each_prefix_once_per_batch_and_supernet(name):
    poolings = members_of(name)[::5]
    supernet_P = np.arange(len(poolings)) % 3  # the fourth SuperNet has no configurations
    networks = [Watched(make(name, seed)) for seed in range(4)]
    batches = [(images(seed, size=size_of(name)), torch.arange(6) % 3) for seed in (1, 2)]
    right_P = sum(count_all(networks, poolings, supernet_P, *batch, Precision()) for batch in batches)
    members = [[p for p, m in zip(poolings, supernet_P, strict=True) if m == n] for n in range(4)]
    assert [network.calls for network in networks] == [2 * len(nodes(poolings)) for poolings in members]
    for a in (0, len(poolings) // 2, len(poolings) - 1):
        network = networks[supernet_P[a]]
        right = sum(int((network(batch, poolings[a]).argmax(1) == labels).sum()) for batch, labels in batches)
        assert right_P[a] == right


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(("name", "ratio"), [("resnet20", 2.0), ("resnet18", 1.9), ("resnet50", 4.3)])
def test_macs_saved_by_common_prefixes(name, ratio, operator):
    known = family(name)
    chain = create(known.build, torch.Generator().manual_seed(0), classes=10, width=16, norm=batch_norm)
    price, poolings = CostModel(chain, 32, known.default, operator), list(known.space)
    one_by_one = sum(price(pooling).macs for pooling in poolings)
    assert one_by_one / price.prefix_macs(poolings) == pytest.approx(ratio, rel=0.05)
    assert price.prefix_macs(poolings[:1] * 3) == price(poolings[0]).macs


def test_prefix_macs_equal_the_macs_of_the_walk():
    from torch.utils.flop_counter import FlopCounterMode

    for name in set(NAMES) - KINDRED:
        network, poolings = make(name), members_of(name)[::9]
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            list(walk(network, poolings, images(size=size_of(name))))
        price = CostModel(network.chain, size_of(name), family(name).default)
        assert price.prefix_macs(poolings) * 2 * 6 == counter.get_total_flops()


def test_other_lengths_are_rejected():
    with pytest.raises(RequestError, match="add up to"):
        list(walk(make("resnet20"), [Pooling((4, 3, 3)), Pooling((4, 3))], images()))
