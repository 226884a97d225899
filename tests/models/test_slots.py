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

# default configuration, and number of configurations with the same number of downsamplings
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
# networks of the same kinds as others in the list, moved in the slow tests
KINDRED = {
    "torchvision:resnet50", "torchvision:resnext50_32x4d", "torchvision:vgg11_bn", "torchvision:mobilenet_v3_small",
    "torchvision:convnext_tiny", "torchvision:efficientnet_b0", "timm:resnet50", "timm:regnety_004",
    "timm:mobilenetv2_100", "timm:densenet121",
}  # fmt: skip
CASES = [
    pytest.param(name, marks=pytest.mark.slow if name in KINDRED else ())
    for name in (*(f"torchvision:{name}" for name in TORCHVISION), *(f"timm:{name}" for name in TIMM))
]


def images(size=64, batch=2):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def run(model, size=64):
    return model.eval()(images(size))


def made(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(name, classes=4).eval()
        for (
            parameter
        ) in model.parameters():  # timm initializes branches to zero, which would hide the effect of strides
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
    slots = poolwise.slots(model)
    assert [module.training for module in model.modules()] == modes
    assert (str(slots.pooling), slots.space.size) == (default, count)
    assert slots.layers[0].how == ""
    assert all(slot.how in ("stride", "pool") for slot in slots.layers[1:])
    before, state, kind = run(model), copy.deepcopy(model.state_dict()), type(model)
    for pooling in some(slots.space):
        assert poolwise.apply(model, pooling) is model
        again = poolwise.slots(model)
        assert again.pooling == pooling
        assert [slot.name for slot in again.layers] == [slot.name for slot in slots.layers]
        assert run(model).shape == before.shape
    assert type(model) is kind
    assert all(torch.equal(a, b) for a, b in zip(state.values(), model.state_dict().values(), strict=True))
    assert list(model.state_dict()) == list(state)
    moved = run(model)
    assert not torch.equal(moved, before)
    poolwise.apply(model, default)
    assert torch.equal(run(model), before), "back in the default configuration the output is bitwise equal"


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
    poolwise.apply(fresh, pooling).load_state_dict(model.state_dict())  # weights also load after the move
    assert torch.equal(run(fresh), expected)
    model.train()(images()).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_resolutions_are_those_of_the_configuration():
    model = poolwise.apply(made("torchvision:resnet18"), "1-2-2-3")
    slots = poolwise.slots(model, images(128))
    assert [slot.resolution for slot in slots.layers] == [128, 32, 16, 16, 8, 8, 4, 4]
    assert [slot.halvings for slot in slots.layers] == [0, 1, 0, 1, 0, 1, 0, 0]
    assert slots.reduction == 4
    assert slots.fixed == {"conv1": "the stem reduces the resolution by 4"}
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(images(128))
    assert sum(slot.macs for slot in slots.layers) * 4 + 2 * 2 * 512 * 4 == counter.get_total_flops()  # and the head


def test_two_downsamplings_on_one_slot():
    model = poolwise.apply(made("torchvision:resnet18"), "2-0-2-4")
    assert [slot.halvings for slot in poolwise.slots(model).layers] == [0, 0, 2, 0, 1, 0, 0, 0]


@pytest.mark.parametrize("name", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_apply_is_what_the_search_trains(name):
    """torchvision's ResNet with our stem and moved strides equals the SuperNet with the same weights."""
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
def test_families_of_this_library_move_too(name):
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
    slots = poolwise.slots(model)
    pooling = Pooling.from_positions(sorted({1, 2, *list(slots.pooling.positions)[2:]}), len(slots.layers))
    poolwise.apply(model, pooling)
    modules, resolutions = dict(model.named_modules()), {}
    for entry in model.feature_info:
        modules[entry["module"]].register_forward_hook(
            lambda _module, _inputs, features, name=entry["module"]: resolutions.update({name: features.shape[-1]})
        )
    run(model, 256)
    assert {entry["module"]: 256 // entry["reduction"] for entry in model.feature_info} == resolutions
    assert [entry["reduction"] for entry in model.feature_info] != last


@pytest.mark.parametrize(
    "name", ["torchvision:resnet18", "torchvision:efficientnet_b0", "timm:resnet26d", "timm:tf_efficientnet_b0"]
)
def test_removing_a_downsampling_doubles_the_resolution(name):
    model = made(name)
    slots, state = poolwise.slots(model), copy.deepcopy(model.state_dict())
    places, last = list(slots.pooling.positions), slots.layers[-1]
    for place in places:
        fewer = Pooling.from_positions([other for other in places if other != place], len(slots.layers))
        reductions = [entry["reduction"] for entry in getattr(model, "feature_info", [])]
        poolwise.apply(model, fewer)
        again = poolwise.slots(model).layers[-1]
        assert again.resolution >> again.halvings == 2 * (last.resolution >> last.halvings)
        assert all(torch.equal(state[key], tensor) for key, tensor in model.state_dict().items())
        new_reductions = [entry["reduction"] for entry in getattr(model, "feature_info", [])]
        assert new_reductions[-1:] == [reduction // 2 for reduction in reductions[-1:]]
        poolwise.apply(model, slots.pooling)


class CustomNet(nn.Module):
    """A user's network with blocks that the library does not know: functional ReLU and shortcut."""

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


def test_custom_module():
    model = CustomNet()
    slots = poolwise.slots(model, images(16))
    assert [slot.name for slot in slots.layers] == ["stem", "body.0", "body.1", "body.3", "body.5"]
    assert str(slots.pooling) == "3-1-1"
    before = run(model, 16)
    assert run(poolwise.apply(model, "1-1-3", images(16)), 16).shape == before.shape
    assert [slot.resolution for slot in poolwise.slots(model, images(16)).layers] == [16, 16, 8, 4, 4]
    hooks = [hook for module in model.modules() for hook in module._forward_pre_hooks.values()]
    assert [type(hook) for hook in hooks] == [PoolBefore, PoolBefore]
    assert torch.equal(run(poolwise.apply(model, "3-1-1", images(16)), 16), before)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_head_of_convolutions_is_no_layer():
    assert str(poolwise.slots(timm.create_model("vgg11", pretrained=False, num_classes=2)).pooling) == "1-1-2-2-2"


def test_fixed_downsamplings_have_a_reason():
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
            "VisionTransformer: no sequence of layers was found.* transformers and networks with several branches",
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
def test_wrong_requests_raise_one_line(call, message):
    with pytest.raises(RequestError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


class Picky(CustomNet):
    """Runs at one final resolution only, like networks with a position embedding."""

    def forward(self, x):
        x = self.body(self.stem(x))
        return self.head((x + torch.zeros(1, 4, 4, 4)).mean((2, 3)))


def test_a_network_that_cannot_run_a_configuration_is_unchanged():
    model = Picky()
    before = run(model, 16)
    with pytest.raises(RequestError, match=r"Picky does not run with 1-1-1-2 .* flattens .* use 2 downsamplings"):
        poolwise.apply(model, "1-1-1-2", images(16))
    assert torch.equal(run(model, 16), before)


def test_a_wrong_request_changes_nothing():
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
