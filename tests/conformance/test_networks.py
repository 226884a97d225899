"""Conformance tests of all network families in the registry."""

import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from conftest import KINDRED, families
from poolwise.errors import RequestError
from poolwise.models import available, family
from poolwise.models.chain import batch_norm, create, running_norm
from poolwise.models.cost import CostModel
from poolwise.models.supernet import OPERATORS, SwitchableNet, plain_model
from poolwise.spaces import Pooling
from poolwise.training import Precision

NAMES = [f.name for f in available()]
FAMILIES = families(NAMES)
NORMS = [batch_norm, running_norm]
SIZE = 16


def make(name, norm=batch_norm, width=2):
    generator = torch.Generator().manual_seed(0)
    return create(family(name).build, generator, classes=5, width=width, norm=norm)


def takes(name, operator):
    """Return whether a family supports the operator. Its published operator must be supported."""
    try:
        return SwitchableNet(make(name), operator).operator == operator
    except RequestError:
        return operator == family(name).operator


BOTH_OPERATORS = ("resnet20", "resnet18")  # the other families have their second operator in the slow tests
CASES = [
    pytest.param(
        name,
        operator,
        marks=pytest.mark.slow
        if name in KINDRED or (operator != family(name).operator and name not in BOTH_OPERATORS)
        else (),
    )
    for name in NAMES
    for operator in OPERATORS
    if takes(name, operator)
]


def size_of(name):
    return SIZE * family(name).reduction


def images(batch=6, size=SIZE):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def some(name, count=8):
    """Return about ``count`` configurations spread over the space, including the first, the last and the default."""
    space = family(name).space
    places = {round(i * (len(space) - 1) / (count - 1)) for i in range(count)}
    return [space[i] for i in sorted(places | {space.index(family(name).default)})]


@pytest.mark.parametrize("name", FAMILIES)
def test_layers_are_those_of_the_space(name):
    known, chain = family(name), make(name)
    assert len(chain) == known.space.layers
    assert known.default in known.space
    assert SwitchableNet(chain).operator == chain.operator == known.operator
    assert all(stride == (1, 1) for stride in strides(chain))


def strides(chain):
    """Return the strides of all convolutions, except those of a fixed stem."""
    parts = [chain] if chain.reduction == 1 else chain.layers[1:]
    return [m.stride for part in parts for m in part.modules() if isinstance(m, torch.nn.Conv2d)]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("name", "operator"), CASES)
def test_export_is_bitwise_equal_to_the_supernet(name, operator, norm):
    network = SwitchableNet(make(name, norm), operator)
    for pooling in some(name):
        for training in (True, False):
            network.train(training)
            before = copy.deepcopy(network.state_dict())
            plain = plain_model(network, pooling)
            assert torch.equal(plain(images(size=size_of(name))), network(images(size=size_of(name)), pooling))
            assert plain.training == training
            network.load_state_dict(before)  # running averages moved
            assert not any("poolwise.models.supernet" in type(part).__module__ for part in plain.modules())


@pytest.mark.parametrize(("name", "operator"), CASES)
def test_export_sets_the_strides_and_does_not_change_the_network(name, operator):
    network = SwitchableNet(make(name), operator)
    pooling = family(name).default
    plain = plain_model(network, pooling)
    sizes, features = [], images(size=size_of(name))
    for part in plain[:-1]:
        features = part(features)
        if not isinstance(part, torch.nn.MaxPool2d):
            sizes.append(features.shape[-1])
    assert sizes == [SIZE >> depth for depth in pooling.depths()]
    largest_strides = [max(m.stride for m in part.modules() if isinstance(m, torch.nn.Conv2d)) for part in plain[:-1]
             if not isinstance(part, torch.nn.MaxPool2d)]  # fmt: skip
    if family(name).reduction > 1:
        assert largest_strides[0] == (2, 2), "the fixed stem"
        largest_strides[0] = (1, 1)
    halved = [(2, 2) if i in pooling.positions else (1, 1) for i in range(pooling.layers)]
    assert largest_strides == (halved if operator == "stride" else [(1, 1)] * pooling.layers)
    assert all(stride == (1, 1) for stride in strides(network.chain))


@pytest.mark.parametrize(("name", "operator"), CASES)
def test_halvings_that_share_a_slot(name, operator):
    network = SwitchableNet(make(name), operator)
    pooling = Pooling((2, 0, len(network) - 2))
    plain = plain_model(network, pooling)
    assert torch.equal(plain(images(size=size_of(name))), network(images(size=size_of(name)), pooling))
    assert plain[:-1](images(size=size_of(name))).shape[-1] == SIZE // 4
    assert (
        CostModel(network.chain, size_of(name), family(name).default, operator)(pooling).macs
        == flops(plain, size=size_of(name)) / 2
    )


def flops(plain, batch=3, size=SIZE):
    """Return the floating point operations for one image, counted by torch."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        plain(images(batch, size))
    return counter.get_total_flops() / batch


@pytest.mark.parametrize(("name", "operator"), CASES)
def test_exported_gradients_equal_the_supernet(name, operator):
    pooling = family(name).default
    network = SwitchableNet(make(name), operator)
    plain = plain_model(network, pooling)
    network(images(size=size_of(name)), pooling).sum().backward()
    plain(images(size=size_of(name))).sum().backward()
    gradients = [p.grad for p in network.parameters()]
    assert sum(float(grad.abs().sum()) for grad in gradients) > 0
    assert all(torch.equal(a, b.grad) for a, b in zip(gradients, plain.parameters(), strict=True))


@pytest.mark.parametrize(("name", "operator"), CASES)
def test_gradient_reaches_every_parameter_in_every_configuration(name, operator):
    network = SwitchableNet(make(name), operator)
    for pooling in some(name, 24):
        network.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(network(images(size=size_of(name)), pooling), torch.arange(6) % 5).backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize(("name", "operator"), CASES)
def test_macs_equal_torch_flop_counter(name, operator):
    chain = make(name)
    price = CostModel(chain, size_of(name), family(name).default, operator)
    for pooling in some(name):
        assert price(pooling).macs == flops(plain_model(chain, pooling, operator), size=size_of(name)) / 2


@pytest.mark.parametrize(("name", "operator"), CASES)
@pytest.mark.parametrize("width", [2, 3])
def test_activation_memory_is_what_autograd_keeps(name, operator, width):
    chain = make(name, running_norm, width)
    price = CostModel(chain, size_of(name), family(name).default, operator)
    batch = images(batch=7, size=size_of(name))  # no layer has 7 channels
    for pooling in some(name):
        saved, alive = {}, []

        def pack(tensor, saved=saved, alive=alive):
            if tensor.dim() > 1 and tensor.shape[0] == 7:
                saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
                alive.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = SwitchableNet(chain, operator)(batch, pooling)
        assert price(pooling).activation_bytes * 7 == pytest.approx(sum(saved.values()), rel=1e-9)
        assert output.shape == (7, 5)


@pytest.mark.parametrize("name", families([name for name in NAMES if takes(name, "stride")]))
def test_receptive_field_is_where_gradients_reach(name):
    """With positive weights and no norms, every pixel in the receptive field of a feature gets a gradient."""
    chain = make(name, lambda channels: torch.nn.Identity())
    for part in list(chain.modules()):  # a norm over all channels would hide the effect of one pixel
        for child, module in part.named_children():
            if isinstance(module, torch.nn.LayerNorm):
                setattr(part, child, torch.nn.Identity())
    for parameter in chain.parameters():
        torch.nn.init.constant_(parameter, 0.01)
    pooling = Pooling((3, 2, len(chain) - 5))
    reach = CostModel(chain, 512, pooling, "stride")(pooling).receptive_field
    chain = chain.double()
    size = reach + 80
    picture = torch.rand(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    features = plain_model(chain, pooling, "stride")[:-1](picture)
    features[0, 0, features.shape[2] // 2, features.shape[3] // 2].backward()
    rows = (picture.grad.abs().sum(dim=(0, 1, 3)) > 0).nonzero().flatten()
    assert int(rows[-1] - rows[0]) + 1 == reach


@pytest.mark.parametrize("text", ["bfloat16", "bfloat16+channels_last", "float32+channels_last"])
@pytest.mark.parametrize(("name", "operator"), CASES)
def test_other_precisions_agree(name, operator, text):
    precision, pooling = Precision.parse(text), family(name).default
    width = 8 if name == "convnext" else 2  # a LayerNorm of two channels keeps only the signs
    network = SwitchableNet(make(name, width=width), operator)
    expected = network(images(size=size_of(name)), pooling)
    precision.place(network, torch.device("cpu"))
    with precision.active(torch.device("cpu")):
        logits = network(precision.images(images(size=size_of(name))), pooling)
    error = (logits.float() - expected).square().mean().sqrt() / expected.std()
    # bfloat16 keeps 8 bits, the deepest family has 53 convolutions, and logits without any agreement differ by 1.4
    assert error < (0.5 if "bfloat16" in text else 1e-3)


@pytest.mark.parametrize(("name", "operator"), CASES)
def test_odd_image_sizes_run(name, operator):
    network = SwitchableNet(make(name), operator)
    for size in (33, 47):
        for pooling in (family(name).default, family(name).space[0]):
            logits = network(images(size=size), pooling)
            assert logits.shape == (6, 5)
            assert torch.equal(plain_model(network, pooling)(images(size=size)), logits)


@pytest.mark.parametrize("name", FAMILIES)
def test_wrong_number_of_layers_is_refused(name):
    network = make(name)
    wrong = Pooling((1, len(network)))
    for call in (
        lambda: SwitchableNet(network)(images(size=size_of(name)), wrong),
        lambda: plain_model(network, wrong),
    ):
        with pytest.raises(RequestError, match="add up to"):
            call()


@pytest.mark.parametrize("name", FAMILIES)
def test_unknown_operator_is_refused(name):
    with pytest.raises(RequestError, match="unknown operator 'strides'; did you mean 'stride'"):
        SwitchableNet(make(name), "strides")


@pytest.mark.parametrize("name", FAMILIES)
def test_initial_weights_depend_only_on_the_generator(name):
    before = torch.get_rng_state()
    first, again = make(name), make(name)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
