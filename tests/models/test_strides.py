"""Layers whose strides cannot be moved, and refusals, which must leave a network unchanged."""

import copy

import pytest
import torch
from torch import nn

import poolwise
from poolwise.errors import RequestError
from poolwise.models.external.chain_adapter import ExternalChain, chained
from poolwise.models.external.strides import Convolution, PoolBefore, Pooled
from poolwise.models.supernet import SwitchableNet, plain_model


def images(size=32):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def state_of(model):
    """Return everything that a move may change: attributes, hooks, submodules and modes of all modules."""
    plain = (bool, int, float, str, tuple, type(None))
    return [
        (
            name,
            type(module),
            {key: value for key, value in vars(module).items() if isinstance(value, plain)},
            list(module._forward_pre_hooks.values()),
            list(module._forward_hooks.values()),
            dict(module._modules),
        )
        for name, module in model.named_modules()
    ]


def conv(inputs, outputs, size=3, stride=1, padding=1):
    return nn.Conv2d(inputs, outputs, size, stride, padding)


class Chained(nn.Module):
    """Layers in sequence and a head."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.layers(x).mean((2, 3)))


class Block(nn.Module):
    """A user's block with the layout of a ResNet block, and any shortcut."""

    def __init__(self, shortcut, strides=(1, 1)):
        super().__init__()
        self.conv1, self.conv2 = conv(4, 4, stride=strides[0]), conv(4, 4, stride=strides[1])
        self.downsample = shortcut

    def forward(self, x):
        return self.conv2(self.conv1(x)) + (self.downsample(x) if isinstance(self.downsample, nn.Module) else x)


@pytest.mark.parametrize(("stride", "text"), [(3, "3"), ((2, 1), "(2, 1)"), ((1, 2), "(1, 2)")])
@torch.no_grad()
def test_strides_that_are_not_square_powers_of_two_stay_in_place(stride, text):
    model = Chained(conv(3, 4), conv(4, 4, stride=2), conv(4, 4, stride=stride), conv(4, 4)).eval()
    before, output, slots = state_of(model), model(images()), poolwise.slots(model)
    assert list(slots.fixed) == ["layers.2"]
    assert f"Conv2d reduces the resolution by a stride of {text}, which" in slots.fixed["layers.2"]
    assert str(slots.pooling) == "1-3"
    for pooling in ("2-2", "3-1"):
        poolwise.apply(model, pooling)
        assert model.layers[2].stride == (stride if isinstance(stride, tuple) else (stride, stride))
        assert str(poolwise.slots(model).pooling) == pooling
    poolwise.apply(model, "1-3")
    assert state_of(model) == before
    assert torch.equal(model(images()), output)


def test_a_pool_of_one_axis_is_not_moved():
    model = Chained(conv(3, 4), nn.MaxPool2d((2, 1)), conv(4, 4, stride=2), conv(4, 4))
    poolwise.apply(model, "2-1")
    poolwise.apply(model, "1-2")
    assert (model.layers[1].kernel_size, model.layers[1].stride) == ((2, 1), (2, 1))
    assert (model.layers[2].stride, model.layers[3].stride) == ((2, 2), (1, 1))


@pytest.mark.parametrize(
    "block",
    [
        lambda: Block(True),
        lambda: Block("no"),
        lambda: Block(nn.Identity()),  # would come back as None
        lambda: Block(nn.Sequential()),
        lambda: Block(nn.AvgPool2d(2), (2, 1)),
        lambda: Block(conv(4, 4, 1, 2, 0), (1, 2)),  # the second convolution has the stride
        lambda: Block(conv(4, 4, 1, (2, 1), 0), ((2, 1), 1)),
        lambda: Block(conv(4, 4, 1, 3, 0), (3, 1)),
    ],
    ids=["flag", "text", "identity", "empty", "average", "second", "one-axis", "three"],
)
@torch.no_grad()
def test_blocks_that_look_like_known_ones_get_a_pool_before_them(block):
    model = Chained(conv(3, 4), block(), conv(4, 4, stride=2), conv(4, 4)).eval()
    before, output = state_of(model), model(images(36))
    assert [slot.how for slot in poolwise.slots(model, images(36)).layers] == ["", "pool", "stride", "stride"]
    poolwise.apply(model, "1-3", images(36))
    assert [type(hook) for hook in model.layers[1]._forward_pre_hooks.values()] == [PoolBefore]
    poolwise.apply(model, "2-2", images(36))
    assert state_of(model) == before
    assert torch.equal(model(images(36)), output)


class Projected(nn.Module):
    """A user's block with attributes of torchvision's RegNet block, of other types."""

    def __init__(self):
        super().__init__()
        self.proj, self.f, self.conv = None, nn.Identity(), conv(4, 4)
        self.f.b = print

    def forward(self, x):
        return x + self.conv(x)


def test_a_projection_of_another_kind_is_no_residual_block():
    assert [slot.how for slot in poolwise.slots(Chained(conv(3, 4), Projected())).layers] == ["", "pool"]


@pytest.mark.parametrize(
    ("size", "stride", "padding"),
    [(2, 2, 0), (4, 2, 1), (4, 4, 0), (6, 2, 2), ((2, 3), 2, (0, 1)), ((4, 1), 2, (1, 0))],
)
@torch.no_grad()
def test_even_kernels_keep_the_resolution_at_every_stride(size, stride, padding):
    layer = conv(4, 4, size, stride, padding)
    halving = Convolution(layer)
    assert halving.is_movable
    at_first, halvings = layer.padding, halving.halvings
    for other in (0, 1, 2):
        halving.place(other)
        assert layer(torch.zeros(1, 4, 32, 32)).shape[2:] == (32 >> other, 32 >> other)
    halving.place(halvings)
    assert (layer.stride, layer.padding) == ((stride, stride), at_first)


def test_convolutions_whose_padding_cannot_be_restored_get_a_pool():
    layers = [conv(4, 4, 4, 2, 0), conv(4, 4, 3, 1, "same"), nn.Conv2d(4, 4, 4, 2, 1, padding_mode="circular")]
    for layer in layers:
        slots = poolwise.slots(Chained(conv(3, 4), layer, conv(4, 4, stride=2)))
        assert isinstance(slots.parts[1][1], Pooled)
        assert ("layers.1" in slots.fixed) == (layer.stride == (2, 2))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_move_that_fails_in_the_middle_changes_nothing(error, monkeypatch):
    model = Chained(conv(3, 4), Block(None), conv(4, 4, 2, 2, 0), Block(True), conv(4, 4))
    model.layers[2].eval()
    before = state_of(model)

    def fail(halving, halvings):
        assert model.layers[2].padding == "same", "others are moved before"
        assert isinstance(model.layers[1].downsample, nn.MaxPool2d)
        raise error

    monkeypatch.setattr(Pooled, "place", fail)
    with pytest.raises(error):
        poolwise.apply(model, "1-4")
    assert state_of(model) == before
    slots = poolwise.slots(model)
    with pytest.raises(error):
        slots.place(poolwise.Pooling.parse("1-4"))
    assert state_of(model) == before


class OneResolution(Chained):
    def forward(self, x):
        x = self.layers(x)
        return self.head((x + torch.zeros(1, 4, 16, 16)).mean((2, 3)))


def test_a_refusal_restores_strides_paddings_shortcuts_and_hooks():
    model = OneResolution(conv(3, 4), Block(None), conv(4, 4, 2, 2, 0), Block(True), conv(4, 4))
    model.layers[0].register_forward_pre_hook(lambda *_: None)
    before = state_of(model)
    with pytest.raises(RequestError, match=r"does not run with 1-2-2 .* use 1 downsamplings") as refusal:
        poolwise.apply(model, "1-2-2", images())
    assert "\n" not in str(refusal.value)
    assert state_of(model) == before


def test_a_feature_info_of_another_kind_is_left_alone():
    for info in (7, ["a"], lambda: None, [{"module": "layers.1", "reduction": 2}]):
        model = Chained(conv(3, 4), conv(4, 4, stride=2), conv(4, 4))
        model.feature_info = copy.copy(info)
        poolwise.apply(model, "2-1")
        expected = (
            [{"module": "layers.1", "reduction": 1}] if info == [{"module": "layers.1", "reduction": 2}] else info
        )
        assert model.feature_info == expected


def test_a_forward_of_an_instance_is_kept():
    model = Chained(conv(3, 4), conv(4, 4, stride=2), conv(4, 4)).eval()
    replaced = model.layers[1].forward
    model.layers[1].forward = replaced
    chain = chained(model, images())
    SwitchableNet(chain)(images(), poolwise.Pooling.parse("1-2"))
    assert vars(model.layers[1])["forward"] is replaced


def test_external_networks_support_the_operator_stride_only():
    chain = chained(Chained(conv(3, 4), conv(4, 4, stride=2), conv(4, 4)), images())
    assert isinstance(chain, ExternalChain)
    for refused in (
        lambda: SwitchableNet(chain, "pool"),
        lambda: plain_model(chain, "2-1", "pool"),
        lambda: plain_model(SwitchableNet(chain), "2-1", operator="pool"),
    ):
        with pytest.raises(RequestError, match="operator 'pool' is not supported by an external network"):
            refused()
    network, pooling = SwitchableNet(chain).eval(), poolwise.Pooling.parse("2-1")
    with torch.no_grad():
        assert torch.equal(network(images(), pooling), plain_model(network, pooling, "stride")(images()))
