"""Weight sharing: norms and weights by depth, running averages by prefix. Each is compared to a simple reference."""

import copy
import itertools
import json

import numpy as np
import pytest
import torch
from torch import nn

import poolwise
from conftest import varied_supernet as make
from poolwise import parallelism
from poolwise.config import Config, settings
from poolwise.errors import RequestError
from poolwise.experiment import RECALIBRATION_BATCHES, resolve
from poolwise.models import family
from poolwise.models.chain import PerDepth
from poolwise.models.cost import CostModel
from poolwise.models.prefixes import walk
from poolwise.models.recalibration import Recalibrated
from poolwise.models.supernet import OPERATORS, SwitchableNet, plain_model
from poolwise.pipeline.estimates import plan
from poolwise.progress import Interrupted, Listener
from poolwise.rankings import scoring
from poolwise.rankings.scoring import recalibrate
from poolwise.rng import Streams
from poolwise.spaces import Pooling, PoolingSpace
from poolwise.storage import RunFolder
from poolwise.supernets.mixture import Mixture, count_all
from poolwise.training import Precision, sgd, train_step
from poolwise.training.calibration import Parallel

SHARINGS = settings()["sharing"].choices
VARIANTS = list(itertools.product(settings()["norm"].choices, SHARINGS))
NAMES = ("resnet20", "resnet18")  # one with pooling and one with strides


def images(seed=1, batch=6, size=8):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def some(name, step=5):
    return list(family(name).space)[::step]


def used_parameters(network, pooling):
    """Return the ids of the parameters that a configuration uses, including the head."""
    layers = [network.chain.at(i, depth) for i, depth in enumerate(pooling.depths())]
    return {id(p) for part in [*layers, network.chain.head] for p in part.parameters()}


@pytest.mark.parametrize(
    "space", [PoolingSpace(10, 2), PoolingSpace(9, 3), PoolingSpace(9, 2, 3), PoolingSpace(6, 3, shared_slots=True)]
)
def test_depths_of_a_layer_are_those_of_the_members(space):
    for layer in range(space.layers):
        assert space.depths_at(layer) == sorted({pooling.depths()[layer] for pooling in space})


def test_defaults_are_the_plain_network():
    network = make("resnet20", "batch", "full")
    assert not any(isinstance(layer, PerDepth) for layer in network.chain.layers)
    assert Config.from_flat().search.norm == "batch"
    assert Config.from_flat().search.sharing == "full"


@pytest.mark.parametrize(("norm", "sharing"), VARIANTS)
def test_what_is_copied(norm, sharing):
    network, plain = make("resnet20", norm, sharing), make("resnet20", "batch", "full")
    convolutions = sum(m.weight.numel() for m in {*network.modules()} if isinstance(m, nn.Conv2d))
    copies = {name: len(family("resnet20").space.depths_at(i)) for i, name in enumerate(plain.chain.names)}
    sizes = {
        name: sum(p.numel() for p in layer.parameters()) for name, layer in zip(copies, plain.chain.layers, strict=True)
    }
    assert convolutions == sum(sizes[name] * (copies[name] if sharing == "resolution" else 1) for name in sizes)
    affine = sum(p.numel() for p in network.parameters() if p.dim() == 1 and p is not network.chain.head.linear.bias)
    by_depth = norm == "affine" or sharing == "resolution"
    channels = {
        name: sum(m.num_features for m in layer.modules() if isinstance(m, nn.BatchNorm2d))
        for name, layer in zip(copies, plain.chain.layers, strict=True)
    }
    expected = 2 * sum(channels[name] * (copies[name] if by_depth else 1) for name in copies)
    assert affine == (0 if norm == "batch" else expected)


@pytest.mark.parametrize("sharing", SHARINGS)
def test_copies_start_with_the_plain_networks_weights(sharing):
    first = make("resnet18", "batch", "full")
    network = make("resnet18", "batch", sharing)
    for pooling in some("resnet18"):
        assert torch.equal(network(images(), pooling), first(images(), pooling))


@pytest.mark.parametrize(("norm", "sharing"), VARIANTS)
@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_equals_a_plain_network_of_its_copies_to_the_bit(name, norm, sharing):
    network = make(name, norm, sharing)
    for pooling in some(name):
        plain = plain_model(network, pooling)
        assert torch.equal(plain(images()), network(images(), pooling))
        assert {type(m).__module__ for m in plain.modules() if type(m).__module__.startswith("poolwise")} <= {
            "poolwise.models.families.resnet",
            "poolwise.models.chain",
        }
        assert not any(isinstance(m, PerDepth) for m in plain.modules())
        assert sum(p.numel() for p in plain.parameters()) <= sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("norm", "sharing"), [v for v in VARIANTS if v[0] == "affine" or v[1] == "resolution"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_changing_a_copy_changes_only_configurations_that_use_it(name, norm, sharing):
    """Changing a copy for depth d changes only the configurations whose layer has depth d."""
    network, poolings = make(name, norm, sharing), some(name, 3)
    before = [network(images(), pooling) for pooling in poolings]
    kind = nn.Conv2d if sharing == "resolution" else nn.BatchNorm2d
    for i in (1, 4, len(network) - 2):
        for depth in family(name).space.depths_at(i):
            weights = [m.weight for m in network.chain.at(i, depth).modules() if isinstance(m, kind)]
            originals = [weight.clone() for weight in weights]
            for weight in weights:
                weight[0] += 0.5
            for pooling, old in zip(poolings, before, strict=True):
                assert torch.equal(network(images(), pooling), old) == (pooling.depths()[i] != depth)
            for weight, old in zip(weights, originals, strict=True):
                weight.copy_(old)


@pytest.mark.parametrize(("norm", "sharing"), VARIANTS)
@pytest.mark.parametrize("name", NAMES)
def test_a_step_reaches_exactly_what_the_configuration_uses(name, norm, sharing):
    network = make(name, norm, sharing)
    optimizer, reached = sgd(network, 0.1, 0.9, 0.01), set()
    for parameter in network.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: reached.add(id(p)))
        optimizer.state[parameter]["momentum_buffer"] = torch.ones_like(parameter)
    for pooling in some(name, 9):
        before = {p: (p.detach().clone(), optimizer.state[p]["momentum_buffer"].clone()) for p in network.parameters()}
        train_step(lambda x, a=pooling: network(x, a), optimizer, images(), torch.arange(6) % 3, 0.1, Precision())
        assert reached == used_parameters(network, pooling)
        for parameter, (weight, momentum) in before.items():
            moved = not torch.equal(parameter, weight)
            assert moved == (id(parameter) in reached)
            assert moved != torch.equal(optimizer.state[parameter]["momentum_buffer"], momentum)
        reached.clear()


@pytest.mark.parametrize(("norm", "sharing"), VARIANTS)
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_the_walk_equals_one_by_one_to_the_bit(name, norm, sharing):
    network, poolings, seen = make(name, norm, sharing), list(family(name).space), []
    for members, logits in walk(network, poolings, images()):
        seen += members
        assert all(torch.equal(logits, network(images(), poolings[a])) for a in members)
    assert sorted(seen) == list(range(len(poolings)))


def plain_recalibrated(network, pooling, batches):
    """Return the plain network of one configuration with torch's cumulative averages over the batches."""
    plain = plain_model(network, pooling)
    for module in list(plain.modules()):
        for name, part in list(module.named_children()):
            if isinstance(part, nn.BatchNorm2d):
                norm = nn.BatchNorm2d(part.num_features, momentum=None)
                norm.load_state_dict(part.state_dict(), strict=False)
                setattr(module, name, norm)
    plain.train()
    with torch.no_grad():
        for batch in batches:
            plain(batch)
    return plain.eval()


class Calibrated:
    """The part of an Experiment that recalibration needs: batches of six images."""

    precision = Precision()

    def __init__(self, seeds):
        self.seeds, self.calibration_batches = seeds, self

    def ordered(self):
        return ((images(seed), torch.arange(6) % 3) for seed in self.seeds)


@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_recalibration_along_prefixes_equals_one_by_one_to_the_bit(name, sharing, monkeypatch):
    monkeypatch.setattr(scoring, "for_ranking", lambda experiment: Parallel(1, torch.get_num_threads()))
    network, poolings = make(name, "recalibrated", sharing), some(name, 3)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    seeds = (3, 4, 5)
    owner_P = np.arange(len(poolings)) % 2
    nets = [network, make(name, "recalibrated", sharing)]
    views = recalibrate(Calibrated(seeds), nets, poolings, owner_P, Listener())
    views[1] = copy.deepcopy(views[1])  # serialized as for another process
    expected = [plain_recalibrated(network, pooling, [images(seed) for seed in seeds]) for pooling in poolings]
    logits = [plain(images(7)) for plain in expected]
    for pooling, owner, logits_BK in zip(poolings, owner_P, logits, strict=True):
        assert torch.equal(views[owner](images(7), pooling), logits_BK)
        assert not torch.equal(network(images(7), pooling), logits_BK)  # batch statistics differ
    for m in (0, 1):
        owned = [a for a in range(len(poolings)) if owner_P[a] == m]
        for members, logits_BK in walk(views[m], [poolings[a] for a in owned], images(7)):
            assert all(torch.equal(logits_BK, logits[owned[a]]) for a in members)
    labels = torch.arange(6) % 3
    right_P = count_all(views, poolings, owner_P, images(7), labels, Precision())
    assert right_P.tolist() == [int((logits_BK.argmax(1) == labels).sum()) for logits_BK in logits]
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_recalibrated_scores_do_not_depend_on_their_batch():
    network, pooling = make("resnet20", "recalibrated", "full"), family("resnet20").default
    view = Recalibrated(network)
    with view.collecting():
        view(images(3), pooling)
    logits = view(images(4), pooling)
    assert torch.allclose(logits[:2], view(images(4)[:2], pooling), atol=1e-5)
    with pytest.raises(AssertionError, match="no averages"):
        view(images(4), family("resnet20").space[0])


@pytest.mark.parametrize("operator", OPERATORS)
def test_both_operators(operator):
    network = make("resnet20", "affine", "resolution")
    other = SwitchableNet(network.chain, operator)
    for pooling in some("resnet20", 11):
        assert torch.equal(plain_model(other, pooling)(images()), other(images(), pooling))


def test_outside_of_the_space_is_refused():
    network = make("resnet20", "batch", "resolution")
    with pytest.raises(RequestError, match="of the space that the network was built for"):
        network(images(), Pooling((9, 1)))
    with pytest.raises(RequestError, match="plain chain"):
        CostModel(network.chain, 8, family("resnet20").default)


def shorter(config, **changes):
    return config.replace(**{"steps": 12, "block": 4, "threads": 1, "workers": 1, **changes})


def bytes_of(path):
    ranking = json.loads((path / "ranking.json").read_text())
    ranking["settings"].pop("workers")
    checkpoints = {file.name: file.read_bytes() for file in sorted((path / "checkpoints").iterdir())}
    return ranking, checkpoints


class StopsOnce(Listener):
    def advance(self, units=1, **info):
        self.stopping = True


FAST = {("recalibrated", "full")}  # the other variants resume in the slow tests


@pytest.mark.parametrize(
    ("norm", "sharing"), [pytest.param(*v, marks=() if v in FAST else pytest.mark.slow) for v in VARIANTS]
)
def test_search_and_rank_resume_to_the_same_bytes(norm, sharing, tiny_settings, tiny_source, tmp_path):
    config = shorter(tiny_settings, norm=norm, sharing=sharing)
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    poolwise.search(config, straight, source=tiny_source)
    value = poolwise.rank(straight, source=tiny_source)
    with pytest.raises(Interrupted):
        poolwise.search(config, stopped, source=tiny_source, listener=StopsOnce())
    poolwise.resume(stopped, source=tiny_source)
    poolwise.rank(stopped, source=tiny_source)
    assert bytes_of(straight) == bytes_of(stopped)
    assert value["settings"]["norm"] == norm
    expected = {"images": min(RECALIBRATION_BATCHES * 24, 48), "batch": 24}
    assert value.get("recalibration") == (expected if norm == "recalibrated" else None)
    loaded = RunFolder.open(straight).load_checkpoint("search")
    nets = Mixture(resolve(config, tiny_source), Streams(0))
    names = [name for name, _ in nets.networks[0].named_parameters()]
    assert {f"{m}.{part}.{name}" for m in (0, 1) for part in ("weight", "momentum") for name in names} == set(loaded[0])


@pytest.mark.slow
def test_one_worker_and_two_search_to_the_same_bytes(tiny_settings, tiny_source, tmp_path):
    for workers in (1, 2):
        config = shorter(tiny_settings, norm="affine", sharing="full", workers=workers)  # copies that share modules
        poolwise.search(config, tmp_path / str(workers), source=tiny_source)
        poolwise.rank(tmp_path / str(workers), source=tiny_source)
    assert bytes_of(tmp_path / "1") == bytes_of(tmp_path / "2")


@pytest.mark.slow
def test_two_workers_rank_with_the_same_averages(tiny_settings, tiny_source, tmp_path, monkeypatch):
    config = shorter(tiny_settings, norm="recalibrated", sharing="resolution")
    folder = poolwise.search(config, tmp_path / "run", source=tiny_source)
    one_worker = poolwise.rank(folder.path, source=tiny_source)
    experiment = resolve(config.replace(workers=2), tiny_source, folder.request()["calibration"])
    monkeypatch.setattr(parallelism, "SMALL_RANKING_MACS", 0)
    assert scoring.rank(experiment, folder, Listener())["ranking"] == one_worker["ranking"]


def test_plans_count_the_copies(tiny_settings, tiny_source):
    plain = resolve(shorter(tiny_settings), tiny_source)
    assert plain.supernet_parameters == plain.cost(plain.default).parameters
    for norm, sharing in VARIANTS[1:]:
        experiment = resolve(shorter(tiny_settings, norm=norm, sharing=sharing), tiny_source)
        network = Mixture(experiment, Streams(0)).networks[0]
        count = sum(p.numel() for p in network.parameters())
        assert experiment.supernet_parameters == count > plain.supernet_parameters
        more, less = (plan(one, ["search"]) for one in (experiment, plain))
        extra = 2 * (count - plain.supernet_parameters)
        assert more.memory_bytes - less.memory_bytes == 8 * extra
        assert more.disk_bytes - less.disk_bytes == 2 * 8 * extra  # the last two checkpoints are kept


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"norm": "afine"}, "unknown norm 'afine'; did you mean 'affine'"),
        ({"norm": "recalibrated", "compile": "default"}, "--compile off"),
        ({"norm": None}, "norm is None"),
        ({"sharing": "resolutions"}, "unknown sharing 'resolutions'; did you mean 'resolution'"),
    ],
)
def test_wrong_values_are_refused(wrong, message):
    with pytest.raises(RequestError, match=message):
        Config.from_flat(**wrong)
