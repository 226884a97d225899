import pytest

import poolwise
from poolwise.errors import RequestError
from poolwise.metrics import kendall_tau_a, kendall_tau_b
from poolwise.networks import family
from poolwise.space import Pooling


@pytest.fixture(scope="module")
def costs():
    return poolwise.costs("resnet20")


@pytest.mark.parametrize(
    ("pooling", "ratio"), [("7-1-2", 2.23), ("1-1-8", 0.46), ("8-1-1", 3.66), ("5-3-2", 1.54), ("4-3-3", 1)]
)
def test_published_mac_ratios(costs, pooling, ratio):
    assert round(costs[Pooling.parse(pooling)].macs_ratio, 2) == ratio


@pytest.mark.parametrize(
    ("pooling", "productive"), [("1-1-8", 6), ("4-3-3", 11), ("5-3-2", 12), ("7-1-2", 14), ("8-1-1", 15)]
)
def test_productive_convolutions(costs, pooling, productive):
    assert costs[Pooling.parse(pooling)].productive == productive


def test_receptive_field_by_hand(costs):
    # 19 convolutions of 3x3 and two max-pools of 2x2; 4-3-3: 7 convolutions at jump 1, 6 at 2, 6 at 4
    assert costs[Pooling.parse("4-3-3")].receptive_field == 1 + 7 * 2 + 1 + 6 * 4 + 2 + 6 * 8
    assert len({c.parameters for c in costs.values()}) == 1


def test_controls_agree_with_the_published_table_as_published(costs):
    truth = poolwise.tables.load("resnet20-cifar10-published").column("standalone_mean")
    macs = [c.macs for c in costs.values()]
    productive = [c.productive for c in costs.values()]
    assert round(kendall_tau_a(macs, truth), 2) == 0.49
    assert round(kendall_tau_b(productive, truth), 2) == 0.56


def test_images_too_small_are_refused():
    with pytest.raises(RequestError, match="too small for 2 poolings"):
        poolwise.costs("resnet20", image_size=3)


def test_unknown_family_gets_a_hint():
    with pytest.raises(RequestError, match="did you mean 'resnet20'"):
        family("resnt20")
