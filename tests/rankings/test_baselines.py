"""Baselines: counts, zero-cost proxies restated from their equations, and their order over draws."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from poolwise import api
from poolwise.errors import RequestError
from poolwise.experiment import resolve
from poolwise.models.chain import Chain, PoolHead, batch_norm
from poolwise.models.supernet import SwitchableNet
from poolwise.rankings.baselines import COUNTED, counted, draw_scores, stochastic_order, untrained
from poolwise.rankings.baselines.zero_cost import ZERO_COST, Draw
from poolwise.rankings.baselines.zero_cost.az_nas import _entropy, _spectral_norm, az_nas, joined
from poolwise.rankings.baselines.zero_cost.grad_norm import grad_norm
from poolwise.rankings.baselines.zero_cost.naswot import naswot
from poolwise.rankings.baselines.zero_cost.swap import swap, unique_patterns
from poolwise.rankings.baselines.zero_cost.zico import zico
from poolwise.rng import Streams
from poolwise.spaces import Pooling

POOLING = Pooling.parse("4-3-3")


def test_counted_baselines():
    priced = api.costs("resnet20")
    named = list(map(str, priced))
    for name in COUNTED:
        assert counted(name, priced.values()).shape == (36,)
    assert named[int(counted("macs", priced.values()).argmax())] == "8-1-1"
    assert named[int(counted("receptive_field", priced.values()).argmin())] == "1-1-8"


def test_refinement_prefers_productive_convolutions_then_fewer_macs():
    costs = list(api.costs("resnet20").values())
    order = np.argsort(-counted("rf_refinement", costs), kind="stable")
    assert [(-costs[i].productive, costs[i].macs) for i in order] == sorted((-c.productive, c.macs) for c in costs)
    assert len({cost.productive for cost in costs}) < len(costs), "MACs decide between some"


@pytest.fixture
def experiment(tiny_settings, tiny_source):
    return resolve(tiny_settings, tiny_source)


@pytest.fixture
def draw(experiment):
    return drawn(experiment, 6)


def drawn(experiment, images):
    network = SwitchableNet(experiment.build(batch_norm, "init", Streams(0)))
    images_BCHW = torch.randn(images, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return Draw(network, images_BCHW, torch.arange(images) % 3, Streams(0).child("draw"))


@pytest.mark.parametrize("name", ZERO_COST.all())
def test_zero_cost_scores(experiment, name):
    states, few = (torch.get_rng_state(), np.random.get_state()[1].copy()), list(experiment.space)[::3]
    scores, macs = untrained(experiment, name, seed=3, initialisations=1, images=16, poolings=few)
    again, _ = untrained(experiment, name, seed=3, initialisations=1, images=16, poolings=few)
    other, twice = untrained(experiment, name, seed=4, initialisations=2, images=16, poolings=few)
    assert scores.shape == (12,)
    assert np.isfinite(scores).all()
    assert np.array_equal(scores, again)
    assert not np.array_equal(scores, other)
    assert len(set(scores)) > 9
    assert twice == 2 * macs > 0
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])


def test_mean_and_order_use_the_same_draws(experiment):
    few = list(experiment.space)[::9]
    drawn_RP, macs = draw_scores(experiment, "grad_norm", seed=1, draws=3, images=8, poolings=few)
    assert len({tuple(scores_P) for scores_P in drawn_RP}) == 3, "every draw has other weights and images"
    mean_P, spent = untrained(experiment, "grad_norm", seed=1, initialisations=3, images=8, poolings=few)
    order_P, also = untrained(experiment, "grad_norm-order", seed=1, initialisations=3, images=8, poolings=few)
    assert mean_P == pytest.approx(drawn_RP.mean(0))
    assert np.array_equal(order_P, stochastic_order(drawn_RP))
    assert macs == spent == also


def test_some_configurations_have_the_scores_that_they_have_among_all(experiment):
    some = experiment.space[3], experiment.space[20]
    all_P, macs = untrained(experiment, "swap", initialisations=1, images=8)
    some_P, spent = untrained(experiment, "swap", initialisations=1, images=8, poolings=some)
    assert some_P.tolist() == [all_P[3], all_P[20]]
    assert spent == 8 * sum(experiment.cost(pooling).macs for pooling in some) < macs


def test_macs_of_passes(experiment):
    few = list(experiment.space)[::9]
    total = sum(experiment.cost(pooling).macs for pooling in few)
    spent = {n: untrained(experiment, n, initialisations=1, images=8, poolings=few)[1] for n in ZERO_COST.all()}
    assert spent["naswot"] == spent["swap"] == 8 * total
    assert spent["grad_norm"] == 3 * 8 * total
    assert spent["zico"] == 3 * 2 * 8 * total, "two batches"
    assert 2 * 8 * total < spent["az_nas"] < 3 * 8 * total, "two passes, covariances and Jacobians"


def outputs(network, pooling, images):
    """Return the output of every layer and its halvings, from the layers and max-pools themselves."""
    features, depth = [images], 0
    for layer, target in zip(network.chain.layers, pooling.depths(), strict=True):
        inputs = features[-1]
        for _ in range(target - depth):
            inputs = F.max_pool2d(inputs, 2)
        features.append(layer(inputs))
        depth = target
    return features[1:]


def states(network, pooling, images):
    """Return the states of all ReLUs, [images, activations]."""
    features, codes = images, []
    inputs = [images, *outputs(network, pooling, images)]
    for layer, before, after in zip(network.chain.layers, inputs, inputs[1:], strict=False):
        if isinstance(layer, torch.nn.Sequential):
            codes.append(after > 0)
            continue
        factor = before.shape[-1] // after.shape[-1]
        features = F.max_pool2d(before, factor) if factor > 1 else before
        codes += [layer.act1(layer.norm1(layer.conv1(features))) > 0, after > 0]
    return torch.cat([code.flatten(1) for code in codes], 1).numpy()


def test_naswot_by_hand(draw):
    flat = states(draw.network, POOLING, draw.images_BCHW)
    alike = [[int((a == b).sum()) for a in flat] for b in flat]
    expected = np.linalg.slogdet(np.array(alike, float))[1]
    assert naswot(draw, POOLING) == pytest.approx(expected)
    assert all(not module._forward_hooks for module in draw.network.modules())


def test_swap_by_hand(draw):
    flat = states(draw.network, POOLING, draw.images_BCHW)
    expected = len(set(map(tuple, flat.T)))
    assert 1 < expected <= 2**6
    assert swap(draw, POOLING) == expected


@given(arrays(bool, st.tuples(st.sampled_from([1, 7, 64, 65, 130]), st.integers(1, 12))))
def test_unique_patterns_are_unique_columns(codes_BA):
    assert unique_patterns(codes_BA) == len(set(map(tuple, codes_BA.T)))


def test_zico_by_hand(draw):
    layers = [m for m in draw.network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    gradients = []
    for part in (slice(0, 3), slice(3, 6)):
        draw.network.zero_grad()
        F.cross_entropy(draw.network(draw.images_BCHW[part], POOLING), draw.labels_B[part]).backward()
        gradients.append([np.abs(layer.weight.grad.double().numpy().ravel()) for layer in layers])
    expected = 0.0
    for first, second in zip(*gradients, strict=True):
        mean, deviation = (first + second) / 2, np.abs(first - second) / 2
        expected += np.log(np.sum(mean[deviation > 0] / deviation[deviation > 0]))
    draw.network.zero_grad()
    assert zico(draw, POOLING) == pytest.approx(expected, rel=1e-4)


def test_gradient_scores_leave_no_gradients(draw):
    for score in (grad_norm, zico, az_nas):
        assert np.isfinite(score(draw, POOLING)).all()
    assert all(weight.grad is None for weight in draw.network.parameters())


def test_az_nas_by_hand(draw):
    features = outputs(draw.network, POOLING, draw.images_BCHW)
    entropies = []
    for one in features:
        samples = one.detach().double().permute(0, 2, 3, 1).reshape(-1, one.shape[1]).numpy()
        shares = np.linalg.eigvalsh((samples - samples.mean(0)).T @ (samples - samples.mean(0)))
        shares = np.maximum(shares, 0) / shares.sum()
        entropies.append(-sum(share * np.log(share) for share in shares if share > 0))
    generator, trainability = draw.streams.torch("rademacher"), []
    for before, after in itertools.pairwise(features):
        signs = torch.randint(0, 2, after.shape, generator=generator) * 2.0 - 1
        gradient = torch.autograd.grad(after, before, signs, retain_graph=True)[0].double().numpy()
        stride, jacobian = before.shape[-1] // after.shape[-1], 0.0
        for b, y, x in np.ndindex(len(after), *after.shape[2:]):
            patch = gradient[b, :, y * stride : (y + 1) * stride, x * stride : (x + 1) * stride].ravel()
            jacobian = jacobian + np.outer(patch, signs[b, :, y, x].numpy())
        norm = np.linalg.norm(jacobian, 2) / (len(after) * after.shape[-1] ** 2)
        trainability.append(-norm - 1 / (norm + 1e-6) + 2)
    values = az_nas(draw, POOLING)
    assert values == pytest.approx((sum(entropies), min(np.diff(entropies)), np.mean(trainability)), rel=1e-3)
    assert az_nas(draw, POOLING) == values, "the signs do not depend on earlier configurations"


@pytest.mark.parametrize("size", [7, 8])
def test_spectral_norm_estimates_the_jacobian(draw, size):
    generator = torch.Generator().manual_seed(1)
    weight_OI = torch.randn(3, 2, generator=generator)
    inputs = torch.randn(400, 2, size, size, generator=generator, requires_grad=True)
    after = torch.einsum("oi,bihw->bohw", weight_OI, F.avg_pool2d(inputs, 2))  # an odd size is rounded down
    signs = torch.randint(0, 2, after.shape, generator=generator) * 2.0 - 1
    (gradient,) = torch.autograd.grad(after, inputs, signs)
    jacobian = np.repeat(weight_OI.numpy() / 4, 4, axis=1)
    assert _spectral_norm(draw, gradient, signs, 2) == pytest.approx(np.linalg.norm(jacobian, 2), rel=0.05)


def test_spectral_norm_of_a_layer_that_rounds_up(draw):
    gradient, signs = torch.ones(1, 1, 7, 7), torch.ones(1, 1, 4, 4)
    full = _spectral_norm(draw, torch.ones(1, 1, 8, 8), signs, 2)
    assert _spectral_norm(draw, gradient, signs, 2) < full == pytest.approx(2.0)


def test_entropy_has_its_bounds(draw):
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)))[:, :, None, None]
    assert _entropy(draw, signs) == pytest.approx(np.log(3))
    assert _entropy(draw, signs[:, :1].expand(-1, 3, -1, -1)) == pytest.approx(0, abs=1e-6)
    assert _entropy(draw, torch.ones(4, 3, 2, 2)) == 0


@given(arrays(float, (4, 7), elements=st.floats(-5, 5)))
def test_aggregate_is_the_sum_of_logarithms_of_ranks(values_4P):
    expected = np.zeros(7)
    for values_P in values_4P:
        below = (values_P[None] < values_P[:, None]).sum(1) + (values_P[None] == values_P[:, None]).sum(1) / 2 + 0.5
        expected += np.log(below / 7)
    assert joined(values_4P[:3], values_4P[3]) == pytest.approx(expected)


scores = arrays(
    float, st.tuples(st.integers(1, 4), st.integers(2, 5)), elements=st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0])
)


@given(scores)
def test_stochastic_order_counts_all_pairs_of_draws(scores_RP):
    count = scores_RP.shape[1]
    better = np.zeros((count, count))
    for a, b in itertools.product(range(count), repeat=2):
        pairs = list(itertools.product(scores_RP[:, a], scores_RP[:, b]))
        better[a, b] = np.mean([(x > y) + 0.5 * (x == y) for x, y in pairs])
    expected = [(better[a].sum() - better[a, a]) / (count - 1) for a in range(count)]
    assert stochastic_order(scores_RP) == pytest.approx(expected)
    assert stochastic_order(scores_RP).mean() == pytest.approx(0.5)
    assert stochastic_order(np.arctan(scores_RP) * 3 + 1) == pytest.approx(expected), "the unit does not matter"


def test_one_extreme_draw_changes_the_mean_and_not_the_order():
    scores_RP = np.array([[1.0, 2.0], [1.1, 2.1], [1000.0, 2.2]])
    assert scores_RP.mean(0)[0] > scores_RP.mean(0)[1]
    assert stochastic_order(scores_RP)[0] < stochastic_order(scores_RP)[1]


def test_a_network_without_relus(draw):
    network = SwitchableNet(Chain([("a", torch.nn.Conv2d(3, 4, 1)), ("b", torch.nn.Tanh())], PoolHead(4, 2)))
    smooth = Draw(network, draw.images_BCHW, draw.labels_B % 2, draw.streams)
    for score in (naswot, swap):
        with pytest.raises(RequestError, match=f"{score.__name__} needs .* has none: use grad_norm"):
            score(smooth, Pooling.parse("1-1"))
    for score in (grad_norm, zico, az_nas):
        assert np.isfinite(score(smooth, Pooling.parse("1-1"))).all()


@pytest.mark.parametrize("model", ["mobilenetv2", "resnet18"])
def test_other_networks(draw, tiny_settings, tiny_source, model):
    experiment = resolve(tiny_settings.replace(model=model, width=2, poolings=(2,), max_configs=3), tiny_source)
    for name in ZERO_COST.all():
        scores_P, _ = untrained(experiment, name, initialisations=1, images=4)
        assert np.isfinite(scores_P).all()


def test_part_of_the_images(tiny_settings, tiny_source):
    few = resolve(tiny_settings.replace(images=12), tiny_source)
    for name in ZERO_COST.all():
        assert np.isfinite(untrained(few, name, initialisations=1, poolings=list(few.space)[::9])[0]).all()


def test_unknown_name(experiment):
    with pytest.raises(RequestError, match="unknown zero-cost proxy 'zicu'; did you mean 'zico'"):
        untrained(experiment, "zicu-order")
