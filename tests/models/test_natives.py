"""The default configuration of a family equals the torchvision network."""

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.convnext import CNBlock, CNBlockConfig, ConvNeXt

from poolwise.models import family
from poolwise.models.chain import create, running_norm
from poolwise.models.cost import CostModel
from poolwise.models.supernet import plain_model


def native(name):
    known = family(name)
    arguments = {"classes": 10, "width": known.width, "norm": running_norm}
    return plain_model(create(known.build, torch.Generator().manual_seed(0), **arguments), known.default).eval()


def images(size=32):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def flops(network, size):
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(torch.zeros(1, 3, size, size))
    return counter.get_total_flops()


def theirs(name):
    """Return the torchvision network. For small images it gets the stem and the strides of the family."""
    network = getattr(torchvision.models, name.removesuffix("-imagenet"))(num_classes=10)
    if name == "mobilenet_v2":
        network.features[0][0].stride = network.features[2].conv[1][0].stride = (1, 1)
    elif not name.endswith("-imagenet"):
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    return network.eval()


@pytest.mark.parametrize(
    ("name", "their_name", "size", "macs"),
    [
        ("resnet18", "resnet18", 32, 555_422_720),
        ("resnet34", "resnet34", 32, None),
        ("resnet50", "resnet50", 32, 1_297_829_888),
        ("resnet18-imagenet", "resnet18-imagenet", 64, None),
        ("resnet34-imagenet", "resnet34-imagenet", 64, None),
        ("resnet50-imagenet", "resnet50-imagenet", 64, None),
        ("mobilenetv2", "mobilenet_v2", 32, None),
    ],
)
def test_the_default_is_bitwise_equal_to_torchvision(name, their_name, size, macs):
    ours, other = native(name), theirs(their_name)
    names = zip(ours.state_dict(), other.state_dict().values(), strict=True)  # both in the order of the layers
    ours.load_state_dict(dict(names))
    with torch.no_grad():
        assert torch.equal(ours(images(size)), other(images(size)))
    strides = [[m.stride for m in n.modules() if isinstance(m, nn.Conv2d)] for n in (ours, other)]
    assert strides[0] == strides[1]
    chain = create(family(name).build, torch.Generator(), classes=10, width=family(name).width, norm=running_norm)
    cost = CostModel(chain, size, family(name).default)(family(name).default)
    assert cost.parameters == sum(p.numel() for p in other.parameters())
    assert 2 * cost.macs == flops(other, size)
    assert macs in (None, cost.macs)


def test_vgg_has_torchvisions_features():
    ours, other = native("vgg16"), torchvision.models.vgg16_bn().eval().features[:-1]
    for conv in (part for part in other if isinstance(part, nn.Conv2d)):
        nn.init.zeros_(conv.bias)
        conv.bias = None  # a norm follows
    body = {key: value for key, value in ours.state_dict().items() if not key.startswith("head")}
    ours.load_state_dict(dict(zip(body, other.state_dict().values(), strict=True)), strict=False)
    with torch.no_grad():
        assert torch.equal(ours[:-1](images()), other(images()))


def test_convnext_is_torchvisions():
    groups = [
        CNBlockConfig(40, 80, 2),
        CNBlockConfig(80, 160, 2),
        CNBlockConfig(160, 320, 6),
        CNBlockConfig(320, None, 2),
    ]
    other = ConvNeXt(groups, stochastic_depth_prob=0.0, layer_scale=0.1, num_classes=10).eval()
    other.features[0][0] = nn.Conv2d(3, 40, 3, padding=1)
    ours, tensors = native("convnext"), [*other.features[0].state_dict().values()]
    for group in other.features[1:]:
        for part in group:
            if isinstance(part, CNBlock):
                tensors += [part.block.state_dict()[key] for key in part.block.state_dict()]
                tensors.append(part.layer_scale)
            else:
                tensors += part.state_dict().values()
    tensors += other.classifier.state_dict().values()
    state = {
        key: value.reshape(held.shape) for (key, held), value in zip(ours.state_dict().items(), tensors, strict=True)
    }
    ours.load_state_dict(state)
    with torch.no_grad():
        assert torch.allclose(ours(images()), other(images()), atol=1e-5)
