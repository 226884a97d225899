"""The configurations within limits, in the order of the space, and the error for an impossible limit."""

import pytest
import torch

import poolwise
from poolwise import constraints
from poolwise.errors import RequestError
from poolwise.models import family
from poolwise.spaces import Pooling, PoolingSpace, Subspace
from poolwise.training import Precision

PRICED = poolwise.costs("resnet20")


def feasible(latency=None, batch=4, **limits):
    return constraints.within(
        PRICED, limits, batch, lambda poolings: {p: (latency or {}).get(p, 1.0) for p in poolings}
    )


def test_every_limit_is_kept():
    assert feasible().members == tuple(PRICED)
    cheap = feasible(max_macs=0.9)
    assert cheap.members == tuple(p for p, cost in PRICED.items() if cost.macs_ratio <= 0.9)
    small = feasible(max_memory=5.0)
    assert small.members == tuple(p for p, cost in PRICED.items() if 4 * cost.activation_bytes <= 5 * 2**20)
    assert 0 < len(small.members) < len(PRICED)
    assert set(feasible(max_macs=0.9, max_memory=5.0).members) == set(cheap.members) & set(small.members)
    assert len(feasible(max_params=1e9).members) == 36


def test_only_configurations_within_the_other_limits_are_timed():
    fast = {Pooling.parse("1-1-8"): 0.1}
    limited = feasible(latency=fast, max_macs=0.9, max_latency_ms=0.5)
    assert limited.members == (Pooling.parse("1-1-8"),)
    assert set(limited.latency_ms) == set(feasible(max_macs=0.9).members)


@pytest.mark.parametrize(
    "limits", [{"max_macs": 0.1}, {"max_params": 3.0}, {"max_memory": 0.1}, {"max_latency_ms": 0.5}]
)
def test_an_impossible_limit_names_the_smallest_and_the_flag(limits):
    (name,) = limits
    with pytest.raises(RequestError, match=f"the smallest is .* use a larger --{name.replace('_', '-')}"):
        feasible(**limits)


class Clock:
    """A clock that only moves when a network that it times is called."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def network(self, pooling, milliseconds):
        """A network that takes some time: 100 times as much when it is first called, and in one slow round later."""

        class Timed(torch.nn.Module):
            def forward(_, images_BCHW):
                slow = 100 if self.calls.count(pooling) in (0, 5) else 1
                self.calls.append(pooling)
                self.now += slow * milliseconds / 1000
                return images_BCHW

        return Timed()


def timed(build, poolings):
    cpu, precision = torch.device("cpu"), Precision.parse("float32")
    return constraints.latencies(build, poolings, torch.zeros(16, 3, 32, 32), precision, cpu)


def test_a_latency_is_the_median_of_rounds_that_time_every_network(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(constraints.time, "perf_counter", lambda: clock.now)
    takes = {Pooling.parse("1-1-8"): 2.0, Pooling.parse("4-3-3"): 3.0, Pooling.parse("8-1-1"): 5.0}
    latency_ms = timed(lambda pooling: clock.network(pooling, takes[pooling]), list(takes))
    assert latency_ms == pytest.approx(takes), "preparing kernels and a slow phase of the machine do not count"
    rounds = [tuple(clock.calls[start : start + 3]) for start in range(0, len(clock.calls), 3)]
    assert len(rounds) == constraints.ROUNDS + 1
    assert all(set(members) == set(takes) for members in rounds)
    assert len(set(rounds)) > 1, "every round has another order"


def test_every_requested_configuration_is_timed():
    width, poolings, built = family("resnet20").width, [Pooling.parse("1-1-8"), Pooling.parse("8-1-1")], []

    def build(pooling):
        built.append(pooling)
        return poolwise.network("resnet20", pooling, width=width)

    latency_ms = timed(build, poolings)
    assert built == list(latency_ms) == poolings
    assert all(milliseconds > 0 for milliseconds in latency_ms.values())


def test_a_subspace_is_a_space():
    space = PoolingSpace(10, 2)
    part = Subspace.of(space, ["5-3-2", "4-3-3", Pooling.parse("3-3-4"), "3-4-3"])
    assert [str(pooling) for pooling in part] == ["3-3-4", "3-4-3", "4-3-3", "5-3-2"]
    assert [part.index(pooling) for pooling in part] == [0, 1, 2, 3]
    assert part[-1] == Pooling.parse("5-3-2")
    assert Pooling.parse("1-1-8") not in part
    assert part.neighbours("3-4-3") == [Pooling.parse("3-3-4"), Pooling.parse("4-3-3")]
    assert part.next_stages(()) == [3, 4, 5]
    assert part.next_stages((3,)) == [3, 4]
    assert part.next_stages((3, 4)) == [3]
    assert part.to_json()["members"] == ["3-3-4", "3-4-3", "4-3-3", "5-3-2"]
    assert part == Subspace.of(space, reversed([str(pooling) for pooling in part]))
    for wrong, message in (
        (["9-9-9"], "is not in the space"),
        (["4-3-3", "4-3-3"], "twice"),
        ([], "no configuration is selected"),
    ):
        with pytest.raises(RequestError, match=message):
            Subspace.of(space, wrong)
    with pytest.raises(RequestError, match="not among the 4"):
        part.index("1-1-8")
    with pytest.raises(IndexError):
        part[4]
