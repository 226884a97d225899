"""Helpers that create and run samplers, shared by the sampler tests."""

import numpy as np
from hypothesis import strategies as st

from poolwise.rng import Streams
from poolwise.spaces import PoolingSpace, Subspace, space_of
from poolwise.supernets.samplers import Survey, Task, sampler

SPACES = [PoolingSpace(10, 2), PoolingSpace(9, 3), PoolingSpace(6, 3, shared_slots=True), PoolingSpace(4, 0)]
SPACES.append(Subspace.of(SPACES[0], list(SPACES[0])[3::4]))  # a space reduced by limits
SPACES.append(space_of(9, [1, 3], also=["4-3-2"]))  # several numbers of poolings, and the default


def make(
    method,
    space,
    *,
    supernets=3,
    steps=200,
    seed=0,
    draw="rounds",
    warm_up=0.0,
    temperature=(1.0, 100.0),
    grows=False,
    group=1,
):
    """Return a sampler and the streams that it draws from."""
    streams = Streams(seed)
    task = Task(space, supernets, steps, temperature, draw, streams["draw"], streams["assign"], warm_up, grows, group)
    return sampler(method)(task), streams


def accuracy(one, pooling, m):
    """Return an accuracy that depends only on configuration, SuperNet and step."""
    return 0.3 + 0.6 * ((7 * one.space.index(pooling) + 5 * m + 3 * len(one.visited())) % 17) / 17


def survey(one):
    """Return a survey that depends only on the configurations and on those visited."""
    generator, shift = np.random.default_rng(len(one.visited())), 3 * len(one.visited())
    accuracies_PB = (7 * np.arange(one.space.size)[:, None] + np.arange(one.surveys.batches) + shift) % 17 / 17
    outputs_PV = generator.random((one.space.size, 12), np.float32) if one.surveys.outputs else None
    return Survey(accuracies_PB, outputs_PV)


def answer(one):
    """Answer the survey if one is due."""
    if one.next_survey is not None and one.next_survey <= one.state()["step"]:
        one.learn_survey(survey(one))


def ask(one):
    answer(one)
    return one.ask()


def ask_group(one):
    answer(one)
    return one.ask_group()


def play(one, steps, reward=accuracy):
    asks = []
    for _ in range(steps):
        asks.append(ask(one))
        one.tell(*asks[-1], reward(one, *asks[-1]))
    return asks


@st.composite
def small_spaces(draw):
    layers = draw(st.integers(2, 9))
    poolings = draw(st.integers(0, min(layers - 1, 3)))
    shared = draw(st.booleans())
    return PoolingSpace(layers, poolings, 1 if shared else draw(st.integers(1, layers // (poolings + 1))), shared)
