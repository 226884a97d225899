"""Compare the loop with a slow implementation of the six steps (docs/algorithm.md) in numpy only.

The network is small enough to differentiate by hand: layers of a 1x1 convolution and a ReLU, 2x2 max pooling at the
positions of the configuration, average pooling and a linear head. Both share only initial weights and random streams.
"""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from poolwise.config import Config
from poolwise.experiment import Experiment, resolve
from poolwise.models.chain import Chain, PoolHead, batch_norm
from poolwise.models.families import registry
from poolwise.progress import Listener
from poolwise.rankings.scoring import rank
from poolwise.rng import Streams
from poolwise.storage import RunFolder
from poolwise.supernets.state import SearchState
from poolwise.supernets.trainer import train

LAYERS, WIDTH = 5, 4


def build(classes=3, width=WIDTH, norm=None):
    layers = [
        (f"layer{i}", nn.Sequential(nn.Conv2d(width if i else 3, width, 1, bias=False), nn.ReLU()))
        for i in range(LAYERS)
    ]
    return Chain(layers, PoolHead(width, classes))


@pytest.fixture
def pointwise(monkeypatch):
    monkeypatch.setattr(registry.FAMILIES, "_entries", registry.FAMILIES.all())  # a copy that this test may add to
    registry.register("pointwise", default="2-2-1", width=WIDTH, summary="test")(build)


def forward(weights, images_BCHW, positions):
    """Return logits_BK and the values that the backward pass needs."""
    *convolutions, linear, bias = weights
    x, tape = images_BCHW, []
    for i, weight in enumerate(convolutions):
        for _ in range(positions.count(i)):
            b, c, h, w = x.shape
            blocks = x.reshape(b, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(b, c, h // 2, w // 2, 4)
            tape.append(("pool", x.shape, blocks.argmax(axis=4)))
            x = blocks.max(axis=4)
        y = np.einsum("oc,bchw->bohw", weight, x)
        tape.append(("conv", x, y > 0))
        x = np.maximum(y, 0)
    mean_BC = x.mean(axis=(2, 3))
    return mean_BC @ linear.T + bias, (tape, mean_BC, x.shape)


def gradients(weights, images_BCHW, labels_B, positions):
    """Return the loss in nats and the gradient of every weight."""
    logits_BK, (tape, mean_BC, shape) = forward(weights, images_BCHW, positions)
    chances_BK = np.exp(logits_BK - logits_BK.max(axis=1, keepdims=True))
    chances_BK /= chances_BK.sum(axis=1, keepdims=True)
    batch = np.arange(len(labels_B))
    loss = -np.log(chances_BK[batch, labels_B]).mean()
    chances_BK[batch, labels_B] -= 1
    d_logits = chances_BK / len(labels_B)
    linear = weights[-2]
    weight_gradients = [d_logits.T @ mean_BC, d_logits.sum(axis=0)]
    dx = np.broadcast_to((d_logits @ linear)[:, :, None, None], shape) / (shape[2] * shape[3])
    i = LAYERS
    for kind, first, second in reversed(tape):
        if kind == "conv":
            i -= 1
            dy = dx * second
            weight_gradients.insert(0, np.einsum("bohw,bchw->oc", dy, first))
            dx = np.einsum("oc,bohw->bchw", weights[i], dy)
        else:
            b, c, h, w = first
            spread = np.zeros((b, c, h // 2, w // 2, 4))
            np.put_along_axis(spread, second[..., None], dx[..., None], axis=4)
            dx = spread.reshape(b, c, h // 2, w // 2, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(b, c, h, w)
    return loss, weight_gradients


def balanced(scores_PM, temperature):
    v_M = np.zeros(scores_PM.shape[1])
    for _ in range(20_000):
        p_PM = np.exp(temperature * (scores_PM - scores_PM.max(axis=1, keepdims=True)) + v_M)
        p_PM /= p_PM.sum(axis=1, keepdims=True)
        v_M = v_M - np.log(p_PM.mean(axis=0) * len(v_M))
        if abs(p_PM.mean(axis=0) * len(v_M) - 1).max() < 1e-9:
            break
    return p_PM


class Shuffle:
    def __init__(self, count, size, generator):
        self.count, self.size, self.generator, self.left = count, size, generator, []

    def next(self):
        if len(self.left) < self.size:
            self.left = list(self.generator.permutation(self.count))
        taken, self.left = self.left[: self.size], self.left[self.size :]
        return np.array(taken)


def augment(images, generator, pad=1):
    batch, height, width, _ = images.shape
    offsets = generator.integers(0, 2 * pad + 1, size=(2, batch))
    mirrored = generator.random(batch) < 0.5
    out = np.zeros_like(images)
    for b in range(batch):
        framed = np.zeros((height + 2 * pad, width + 2 * pad, 3), images.dtype)
        framed[pad : pad + height, pad : pad + width] = images[b]
        cut = framed[offsets[0, b] : offsets[0, b] + height, offsets[1, b] : offsets[1, b] + width]
        out[b] = cut[:, ::-1] if mirrored[b] else cut
    return out


def restated(experiment: Experiment, initial: list[list[np.ndarray]]):
    """Run steps 1 to 6. Return draws, scores_PM, assignment_PM and accuracy_P of the ranking."""
    s, streams = experiment.config, Streams(experiment.config.seed).child("search")
    training, scoring = (experiment.training_images.subset(half) for half in experiment.halves)
    everything = experiment.training_images.images.astype(float)
    mean, std = everything.mean(axis=(0, 1, 2)), everything.std(axis=(0, 1, 2))

    def normalized(images):
        return ((images - mean) / std).transpose(0, 3, 1, 2)

    poolings, weights = list(experiment.space), [[w.astype(float) for w in net] for net in initial]
    momenta = [[np.zeros_like(w) for w in net] for net in weights]
    scores_PM, rounds, draws = np.ones((len(poolings), s.search.supernets)), [], []
    train_order = Shuffle(len(training), s.training.batch_size, streams["order"])
    score_order = Shuffle(len(scoring), s.training.batch_size, streams["score_order"])
    for t in range(s.search.steps):
        # 1 a configuration
        if s.search.draw == "iid":
            a = int(streams["draw"].integers(len(poolings)))
        else:
            rounds = rounds or list(range(len(poolings)))
            place = int(streams["draw"].integers(len(rounds)))  # Fisher and Yates
            rounds[place], rounds[-1] = rounds[-1], rounds[place]
            a = rounds.pop()
        # 2 a SuperNet
        temperature = s.search.temperature_start + (s.search.temperature - s.search.temperature_start) * t / (
            s.search.steps - 1
        )
        chances = balanced(scores_PM, temperature)[a].cumsum()
        m = int((streams["assign"].random() > chances / chances[-1]).sum())
        draws.append((a, m))
        # 3 one optimizer step (5: cosine)
        lr = s.training.lr_end + (s.training.lr - s.training.lr_end) * (1 + np.cos(np.pi * t / s.search.steps)) / 2
        taken = train_order.next()
        images = normalized(augment(training.images[taken], streams["augment"]).astype(float))
        _, slopes = gradients(weights[m], images, training.labels[taken], poolings[a].positions)
        for k, slope in enumerate(slopes):
            momenta[m][k] = s.training.momentum * momenta[m][k] + slope
            weights[m][k] = weights[m][k] - lr * momenta[m][k]
        # 4 the accuracy on a scoring batch
        taken = score_order.next()
        logits, _ = forward(weights[m], normalized(scoring.images[taken].astype(float)), poolings[a].positions)
        accuracy = (logits.argmax(axis=1) == scoring.labels[taken]).mean()
        scores_PM[a, m] = 0.9 * scores_PM[a, m] + 0.1 * accuracy
    # 6 the ranking
    assignment_PM, accuracy_P = balanced(scores_PM, s.search.temperature), []
    for a, pooling in enumerate(poolings):
        m = assignment_PM[a].argmax()
        logits, _ = forward(weights[m], normalized(scoring.images.astype(float)), pooling.positions)
        accuracy_P.append((logits.argmax(axis=1) == scoring.labels).mean())
    return draws, scores_PM, assignment_PM, np.array(accuracy_P)


@pytest.mark.parametrize(("supernets", "draw"), [(1, "rounds"), (3, "rounds"), (2, "iid")])
def test_loop_equals_the_restated_steps(pointwise, tiny_source, tmp_path, supernets, draw):
    config = Config.from_flat(
        model="pointwise", supernets=supernets, steps=60, batch_size=12, eval_batch_size=48, lr=0.1, temperature=40.0,
        draw=draw, block=1, precision="float32", device="cpu", seed=20 + supernets,
    )  # fmt: skip
    experiment = resolve(config, tiny_source)
    streams = Streams(config.seed).child("search")
    initial = []
    for m in range(supernets):
        chain = experiment.build(batch_norm, f"init{m}", streams)
        arrays = [layer[0].weight.detach().numpy()[:, :, 0, 0] for layer in chain.layers]
        linear = chain.head.linear
        initial.append([*arrays, linear.weight.detach().numpy(), linear.bias.detach().numpy()])
    trained = []

    class Recorder(Listener):
        def advance(self, units=1, **info):
            trained.append(info["supernet"])  # each block has one step

    folder = RunFolder.create(tmp_path / "run", config.to_flat())
    state = SearchState.open(experiment, folder)
    train(state, folder, Recorder())
    draws, scores_PM, assignment_PM, accuracy_P = restated(experiment, initial)

    assert trained == [m for _, m in draws]
    everything = list(experiment.space)
    assert np.allclose(state.sampler.scores_of(everything), scores_PM, atol=1e-12)
    assert np.allclose(state.sampler.assignment_of(everything), assignment_PM, atol=1e-3)
    rows = {row["pooling"]: row for row in rank(experiment, folder, Listener())["ranking"]}
    score_P = [rows[str(pooling)]["score"] for pooling in experiment.space]
    assert np.allclose(score_P, accuracy_P, atol=1e-12)
    assert len(set(score_P)) > 1
