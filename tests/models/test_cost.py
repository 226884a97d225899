import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import poolwise
from conftest import families
from poolwise.errors import RequestError
from poolwise.models import available, family
from poolwise.models.chain import batch_norm, create
from poolwise.models.cost import CostModel
from poolwise.models.supernet import plain_model
from poolwise.spaces import Pooling
from poolwise.statistics import kendall_tau_a, kendall_tau_b


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
    with pytest.raises(RequestError, match="too small for 2 downsamplings"):
        poolwise.costs("resnet20", image_size=3)


def test_unknown_family_gets_a_hint():
    with pytest.raises(RequestError, match="did you mean 'resnet20'"):
        family("resnt20")


def native(name, norm=batch_norm, width=64):
    known = family(name)
    return create(known.build, torch.Generator().manual_seed(0), classes=10, width=width, norm=norm)


def flops(network, size=32):
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network.to("meta")(torch.zeros(1, 3, size, size, device="meta"))
    return counter.get_total_flops()


@pytest.mark.parametrize("name", families([f.name for f in available()]))
def test_macs_at_full_width_equal_torch_flop_counter(name):
    known, chain = family(name), native(name, width=family(name).width)
    size = 32 * known.reduction
    price = CostModel(chain, size, known.default)
    for pooling in [known.default, *list(known.space)[:: len(known.space) // 6]]:
        assert price(pooling).macs * 2 == flops(plain_model(chain, pooling), size)


def test_bottleneck_by_hand():
    """Layer 4 of 4-4-6-3 (128 planes, first of its group): 1x1 before the stride, 3x3 strided, both behind it 1x1."""
    chain = native("resnet50")
    price = CostModel(chain, 32, Pooling((4, 13)))
    before, strided = price(Pooling((17,))), price(Pooling((16, 1)))
    last = 32 * 32 * (2048 * 512) + 16 * 16 * (9 * 512 * 512 + 512 * 2048)
    unstrided = 32 * 32 * (2 * 2048 * 512 + 9 * 512 * 512)
    assert before.macs - strided.macs == unstrided - last
    first = price(Pooling((4, 13))).macs - price(Pooling((5, 12))).macs
    at_32 = 32 * 32 * (256 * 128 + 9 * 128 * 128 + 128 * 512 + 256 * 512)
    at_16 = 32 * 32 * 256 * 128 + 16 * 16 * (9 * 128 * 128 + 128 * 512 + 256 * 512)
    next_at_16 = 16 * 16 * (2 * 512 * 128 + 9 * 128 * 128)
    next_strided = 32 * 32 * 512 * 128 + 16 * 16 * (9 * 128 * 128 + 128 * 512)
    assert first == at_16 + next_at_16 - at_32 - next_strided


def test_a_strided_convolution_reads_at_the_resolution_before():
    """ResNet20, 4-3-3 by hand: 8 convolutions read at jump 1, 6 at 2, 5 at 4."""
    chain = native("resnet20", width=4)
    cost = CostModel(chain, 32, Pooling((4, 3, 3)), "stride")(Pooling((4, 3, 3)))
    fields = [1]
    for jump in [1] * 8 + [2] * 6 + [4] * 5:
        fields.append(fields[-1] + 2 * jump)
    assert cost.receptive_field == fields[-1]
    assert cost.productive == sum(field < 32 for field in fields[:-1])


def test_odd_sizes_round_as_the_operators_do():
    chain = native("resnet18", width=2)
    for operator in ("pool", "stride"):
        price = CostModel(chain, 33, family("resnet18").default, operator)
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            plain_model(chain, "3-2-2-2", operator)(torch.zeros(2, 3, 33, 33))
        assert price(Pooling((3, 2, 2, 2))).macs * 4 == counter.get_total_flops()


def test_a_layer_that_cannot_stride_is_named():
    chain = native("resnet20", width=2)
    chain.layers[3] = nn.Identity()
    with pytest.raises(RequestError, match="layer 'block3' cannot take a stride"):
        CostModel(chain, 32, family("resnet20").default, "stride")


def test_costs_do_not_depend_on_whether_the_caller_wants_gradients():
    chain = create(family("resnet20").build, torch.Generator().manual_seed(0), classes=3, width=2, norm=batch_norm)
    pooling = family("resnet20").default
    with torch.no_grad():
        cost = CostModel(chain, 8, pooling)(pooling)
    assert cost == CostModel(chain, 8, pooling)(pooling)
