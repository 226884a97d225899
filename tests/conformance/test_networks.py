"""What every network family must do. Families are found by the registry; none is named here."""

import copy

import pytest
import torch

from poolwise.errors import RequestError
from poolwise.networks import available, family
from poolwise.networks.chain import batch_norm, create, running_norm
from poolwise.networks.cost import CostModel
from poolwise.networks.switch import SwitchableNet, export
from poolwise.searching.ranking import count_correct
from poolwise.space import Pooling
from poolwise.training import Precision

FAMILIES = [f.name for f in available()]
NORMS = [batch_norm, running_norm]
SIZE = 16


def make(name, norm=batch_norm, width=4):
    generator = torch.Generator().manual_seed(0)
    return create(family(name).build, generator, classes=5, width=width, norm=norm)


def images(batch=6, size=SIZE):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", FAMILIES)
def test_layers_are_those_of_the_space(name):
    assert len(make(name)) == family(name).space.layers
    assert family(name).default in family(name).space


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", FAMILIES)
def test_export_equals_the_switch_to_the_bit(name, norm):
    network = SwitchableNet(make(name, norm))
    for pooling in family(name).space:
        for training in (True, False):
            network.train(training)
            before = copy.deepcopy(network.state_dict())
            plain = export(network, pooling)
            assert torch.equal(plain(images()), network(images(), pooling))
            assert plain.training == training
            network.load_state_dict(before)  # running averages moved
            assert not any("poolwise.networks.switch" in type(part).__module__ for part in plain.modules())


@pytest.mark.parametrize("name", FAMILIES)
def test_exported_gradients_equal_the_switch(name):
    pooling = family(name).default
    network = SwitchableNet(make(name))
    plain = export(network, pooling)
    network(images(), pooling).sum().backward()
    plain(images()).sum().backward()
    own = [p.grad for p in network.parameters()]
    assert all(torch.equal(a, b.grad) for a, b in zip(own, plain.parameters(), strict=True))


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_reaches_every_parameter_in_every_configuration(name):
    network = SwitchableNet(make(name))
    for pooling in family(name).space:
        network.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(network(images(), pooling), torch.arange(6) % 5).backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize("name", FAMILIES)
def test_ranking_by_shared_prefixes_equals_one_by_one(name):
    network, labels = SwitchableNet(make(name)), torch.arange(6) % 5
    poolings = list(family(name).space)[::-1]
    shared = count_correct(network, poolings, images(), labels, Precision())
    plain = [int((network(images(), pooling).argmax(1) == labels).sum()) for pooling in poolings]
    assert shared == plain
    assert len(set(plain)) > 1


@pytest.mark.parametrize("name", FAMILIES)
def test_macs_equal_torch_own_counter(name):
    from torch.utils.flop_counter import FlopCounterMode

    chain = make(name)
    price = CostModel(chain, SIZE, family(name).default)
    for pooling in list(family(name).space)[::5]:
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            SwitchableNet(chain)(images(batch=3), pooling)
        assert price(pooling).macs * 2 * 3 == counter.get_total_flops()


@pytest.mark.parametrize("name", FAMILIES)
def test_activation_memory_is_what_autograd_keeps(name):
    chain = make(name, running_norm)
    price = CostModel(chain, SIZE, family(name).default)
    batch = images(batch=7)  # no layer has 7 channels
    for pooling in list(family(name).space)[::5]:
        kept, alive = {}, []

        def pack(tensor, kept=kept, alive=alive):
            if tensor.dim() > 1 and tensor.shape[0] == 7:
                kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
                alive.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = SwitchableNet(chain)(batch, pooling)
        assert price(pooling).activation_bytes * 7 == pytest.approx(sum(kept.values()), rel=1e-9)
        assert output.shape == (7, 5)


@pytest.mark.parametrize("text", ["bfloat16", "bfloat16+channels_last", "float32+channels_last"])
@pytest.mark.parametrize("name", FAMILIES)
def test_other_precisions_agree(name, text):
    precision, pooling = Precision.parse(text), family(name).default
    network = SwitchableNet(make(name))
    expected = network(images(), pooling)
    precision.place(network, torch.device("cpu"))
    with precision.active(torch.device("cpu")):
        found = network(precision.images(images()), pooling)
    assert torch.allclose(found.float(), expected, atol=0.15 if "bfloat16" in text else 1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_odd_image_sizes_run(name):
    network = SwitchableNet(make(name))
    for size in (33, 47):
        assert network(images(size=size), family(name).default).shape == (6, 5)


@pytest.mark.parametrize("name", FAMILIES)
def test_wrong_number_of_layers_is_refused(name):
    network = make(name)
    wrong = Pooling((1, len(network)))
    for call in (lambda: SwitchableNet(network)(images(), wrong), lambda: export(network, wrong)):
        with pytest.raises(RequestError, match="add up to"):
            call()


@pytest.mark.parametrize("name", FAMILIES)
def test_initial_weights_depend_on_the_generator_alone(name):
    before = torch.get_rng_state()
    first, again = make(name), make(name)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
