import copy
import io

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import poolwise
from poolwise.errors import RequestError
from poolwise.models import family
from poolwise.models.chain import create, running_norm
from poolwise.models.external.networks import build, is_other
from poolwise.models.external.strides import PoolBefore
from poolwise.models.supernet import SwitchableNet, plain_model
from poolwise.spaces import Pooling

# the placement that a network comes with, and how many there are of as many downsamplings
TORCHVISION = {
    "resnet18": ("2-2-2-2", 35),
    "resnet50": ("3-4-6-3", 455),
    "resnext50_32x4d": ("3-4-6-3", 455),
    "regnet_y_400mf": ("1-1-3-6-6", 1820),
    "vgg11_bn": ("1-1-2-2-2", 35),
    "mobilenet_v2": ("2-2-3-7-5", 3060),
    "mobilenet_v3_small": ("1-1-2-5-4", 495),
    "efficientnet_b0": ("2-2-2-6-6", 2380),
    "convnext_tiny": ("3-4-10-4", 1140),
    "densenet121": ("2-2-2-1", 20),
}
TIMM = {
    "resnet26d": ("2-2-2-2", 35),
    "resnet50": ("3-4-6-3", 455),
    "regnety_004": ("1-1-3-6-6", 1820),
    "mobilenetv2_100": ("2-2-3-7-5", 3060),
    "mobilenetv3_large_100": ("2-2-3-6-4", 1820),
    "tf_efficientnet_b0": ("2-2-2-6-6", 2380),
    "convnext_atto": ("2-3-7-3", 364),
    "densenet121": ("2-2-2-1", 20),
}
CASES = [f"torchvision:{name}" for name in TORCHVISION] + [f"timm:{name}" for name in TIMM]


def images(size=64, batch=2):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def run(model, size=64):
    return model.eval()(images(size))


def made(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(name, classes=4).eval()
        for parameter in model.parameters():  # timm's branches begin at zero: the shortcuts alone see no placement
            if parameter.dim() and not parameter.any():
                nn.init.normal_(parameter, std=0.5)
        return model


def some(space):
    return [space[len(space) * i // 4] for i in range(4)] + [space[len(space) - 1]]


@pytest.mark.parametrize("name", CASES)
def test_downsamplings_move_and_come_back(name):
    model, (_, _, short) = made(name), name.partition(":")
    default, count = (TORCHVISION if name.startswith("torchvision") else TIMM)[short]
    modes = [module.training for module in model.train().modules()]
    found = poolwise.slots(model)
    assert [module.training for module in model.modules()] == modes
    assert (str(found.pooling), found.space.size) == (default, count)
    assert found.layers[0].how == ""
    assert all(slot.how in ("stride", "pool") for slot in found.layers[1:])
    before, state, kind = run(model), copy.deepcopy(model.state_dict()), type(model)
    for pooling in some(found.space):
        assert poolwise.apply(model, pooling) is model
        again = poolwise.slots(model)
        assert again.pooling == pooling
        assert [slot.name for slot in again.layers] == [slot.name for slot in found.layers]
        assert run(model).shape == before.shape
    assert type(model) is kind
    assert all(torch.equal(a, b) for a, b in zip(state.values(), model.state_dict().values(), strict=True))
    assert list(model.state_dict()) == list(state)
    moved = run(model)
    assert not torch.equal(moved, before)
    poolwise.apply(model, default)
    assert torch.equal(run(model), before), "back at its own placement a network is what it was, to the bit"


@pytest.mark.parametrize(
    "name", ["torchvision:resnet18", "torchvision:mobilenet_v2", "torchvision:convnext_tiny", "timm:resnet26d"]
)
def test_moved_networks_are_copied_saved_and_trained_as_before(name):
    model, fresh = made(name), made(name)
    pooling = poolwise.slots(model).space[3]
    poolwise.apply(model, pooling)
    expected = run(model)
    assert torch.equal(run(copy.deepcopy(model)), expected)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    assert torch.equal(run(torch.load(buffer, weights_only=False)), expected)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    poolwise.apply(fresh, pooling).load_state_dict(model.state_dict())  # weights load after the move as well
    assert torch.equal(run(fresh), expected)
    model.train()(images()).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_resolutions_are_those_of_the_placement():
    model = poolwise.apply(made("torchvision:resnet18"), "1-2-2-3")
    found = poolwise.slots(model, images(128))
    assert [slot.resolution for slot in found.layers] == [128, 32, 16, 16, 8, 8, 4, 4]
    assert [slot.halvings for slot in found.layers] == [0, 1, 0, 1, 0, 1, 0, 0]
    assert found.reduction == 4
    assert found.fixed == {"conv1": "the stem reduces the resolution by 4"}
    whole = FlopCounterMode(display=False)
    with whole, torch.no_grad():
        model(images(128))
    assert sum(slot.macs for slot in found.layers) * 4 + 2 * 2 * 512 * 4 == whole.get_total_flops()  # and the head


def test_two_downsamplings_on_one_slot():
    model = poolwise.apply(made("torchvision:resnet18"), "2-0-2-4")
    assert [slot.halvings for slot in poolwise.slots(model).layers] == [0, 0, 2, 0, 1, 0, 0, 0]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_apply_is_what_the_search_trains(name):
    """torchvision's ResNet with our stem, its strides moved, against the network of the search with the same weights."""
    theirs = getattr(torchvision.models, name)(num_classes=10)
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    assert poolwise.slots(theirs).space == family(name).space
    chain = create(family(name).build, torch.Generator().manual_seed(0), classes=10, width=64, norm=running_norm)
    chain.load_state_dict(dict(zip(chain.state_dict(), theirs.state_dict().values(), strict=True)))
    network = SwitchableNet(chain).eval()
    for pooling in some(family(name).space):
        with torch.no_grad():
            assert torch.equal(run(poolwise.apply(theirs, pooling), 32), network(images(32), pooling))


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "vgg16", "convnext"])
def test_networks_of_the_house_move_as_well(name):
    known = family(name)
    chain = create(known.build, torch.Generator().manual_seed(0), classes=3, width=2, norm=running_norm).eval()
    model = plain_model(chain, known.default)
    assert poolwise.slots(model).pooling == known.default
    for pooling in some(known.space):
        assert torch.equal(run(poolwise.apply(model, pooling), 32), run(plain_model(chain, pooling), 32))


@pytest.mark.parametrize("name", ["resnet26d", "tf_efficientnet_b0", "convnext_atto"])
def test_feature_info_stays_true(name):
    model = made(f"timm:{name}")
    last = [entry["reduction"] for entry in model.feature_info]
    found = poolwise.slots(model)
    pooling = Pooling.from_positions(sorted({1, 2, *list(found.pooling.positions)[2:]}), len(found.layers))
    poolwise.apply(model, pooling)
    modules, told = dict(model.named_modules()), {}
    for entry in model.feature_info:
        modules[entry["module"]].register_forward_hook(
            lambda _module, _given, features, name=entry["module"]: told.update({name: features.shape[-1]})
        )
    run(model, 256)
    assert {entry["module"]: 256 // entry["reduction"] for entry in model.feature_info} == told
    assert [entry["reduction"] for entry in model.feature_info] != last


@pytest.mark.parametrize(
    "name", ["torchvision:resnet18", "torchvision:efficientnet_b0", "timm:resnet26d", "timm:tf_efficientnet_b0"]
)
def test_each_stride_can_be_given_up_for_twice_the_resolution(name):
    model = made(name)
    found, state = poolwise.slots(model), copy.deepcopy(model.state_dict())
    places, last = list(found.pooling.positions), found.layers[-1]
    for place in places:
        fewer = Pooling.from_positions([other for other in places if other != place], len(found.layers))
        reductions = [entry["reduction"] for entry in getattr(model, "feature_info", [])]
        poolwise.apply(model, fewer)
        again = poolwise.slots(model).layers[-1]
        assert again.resolution >> again.halvings == 2 * (last.resolution >> last.halvings)
        assert all(torch.equal(state[key], tensor) for key, tensor in model.state_dict().items())
        told = [entry["reduction"] for entry in getattr(model, "feature_info", [])]
        assert told[-1:] == [reduction // 2 for reduction in reductions[-1:]]
        poolwise.apply(model, found.pooling)


class Own(nn.Module):
    """A user's network: a functional ReLU and a shortcut within its blocks, nothing known to the library."""

    class Block(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.one, self.two = (
                nn.Conv2d(channels, channels, 3, padding=1),
                nn.Conv2d(channels, channels, 3, padding=1),
            )

        def forward(self, x):
            return torch.relu(x + self.two(torch.relu(self.one(x))))

    def __init__(self, head=True):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Sequential(
            self.Block(4), self.Block(4), nn.MaxPool2d(2), self.Block(4), nn.MaxPool2d(2), self.Block(4)
        )
        self.head = nn.Linear(4, 2)
        self.pooled = head

    def forward(self, x):
        x = self.body(self.stem(x))
        return self.head(x.mean((2, 3)))


def test_own_module():
    model = Own()
    found = poolwise.slots(model, images(16))
    assert [slot.name for slot in found.layers] == ["stem", "body.0", "body.1", "body.3", "body.5"]
    assert str(found.pooling) == "3-1-1"
    before = run(model, 16)
    assert run(poolwise.apply(model, "1-1-3", images(16)), 16).shape == before.shape
    assert [slot.resolution for slot in poolwise.slots(model, images(16)).layers] == [16, 16, 8, 4, 4]
    hooks = [hook for module in model.modules() for hook in module._forward_pre_hooks.values()]
    assert [type(hook) for hook in hooks] == [PoolBefore, PoolBefore]
    assert torch.equal(run(poolwise.apply(model, "3-1-1", images(16)), 16), before)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_head_of_convolutions_is_no_layer():
    assert str(poolwise.slots(timm.create_model("vgg11", pretrained=False, num_classes=2)).pooling) == "1-1-2-2-2"


def test_what_cannot_move_is_said():
    blurred = poolwise.slots(timm.create_model("resnetblur50", pretrained=False))
    assert blurred.pooling == Pooling((16,))
    assert "layer2.0" in blurred.fixed
    assert "not supported" in blurred.fixed["layer2.0"]
    assert poolwise.slots(made("torchvision:vgg11_bn")).fixed == {"features.28": "it comes after the last layer"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: poolwise.slots(made("torchvision:vit_b_16"), torch.zeros(1, 3, 224, 224)),
            "VisionTransformer: no sequence .* position embedding, encoder.pos_embedding",
        ),
        (
            lambda: poolwise.slots(made("torchvision:resnet18"), torch.zeros(1, 1, 64, 64)),
            "does not run on images of 1x1x64x64",
        ),
        (lambda: poolwise.slots(nn.Linear(3, 3)), "Linear"),
        (lambda: poolwise.apply(made("torchvision:resnet18"), "4-3-3"), "for 10 layers and the network has 8"),
        (lambda: poolwise.apply(made("torchvision:resnet18"), "x"), "write stage lengths"),
        (lambda: build("torchvision:resnet19"), "did you mean"),
        (lambda: build("timm:none_such"), "timm has no model"),
    ],
)
def test_wrong_requests_are_told(call, message):
    with pytest.raises(RequestError, match=message) as told:
        call()
    assert "\n" not in str(told.value)


class Picky(Own):
    """Runs at one final resolution only, as networks with a fixed table of positions do."""

    def forward(self, x):
        x = self.body(self.stem(x))
        return self.head((x + torch.zeros(1, 4, 4, 4)).mean((2, 3)))


def test_a_network_that_does_not_run_so_is_left_alone():
    model = Picky()
    before = run(model, 16)
    with pytest.raises(RequestError, match=r"Picky does not run with 1-1-1-2 .* flattens .* use 2 downsamplings"):
        poolwise.apply(model, "1-1-1-2", images(16))
    assert torch.equal(run(model, 16), before)


def test_nothing_changes_where_a_request_is_wrong():
    model = made("torchvision:resnet18")
    before = run(model)
    with pytest.raises(RequestError):
        poolwise.apply(model, "1-1")
    assert torch.equal(run(model), before)


def test_names_of_other_libraries():
    assert is_other("timm:resnet18")
    assert is_other("torchvision:resnet18")
    assert not is_other("resnet18")
    assert not is_other("folder:resnet18")
