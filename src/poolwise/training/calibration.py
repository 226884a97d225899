"""Measure which number format and which processes are fastest for a given network, batch and device.

Choices are cached by machine, network and versions, so that a repeated run gives the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from poolwise.errors import RequestError, RunFailure
from poolwise.sanitize import parse_json, read_bytes
from poolwise.storage import cache_folder, environment, write_atomically
from poolwise.training import LossNotFinite, Precision, check_finite, correct, sgd, train_step

CANDIDATES = ("float32", "float32+channels_last", "bfloat16+channels_last", "bfloat16")
CUDA_CANDIDATES = (*CANDIDATES, "tf32", "tf32+channels_last")
HOPELESS = 2.0  # a candidate is dropped after a step that takes this many times the best
TOLERANCE = 0.05  # maximum relative difference from the loss of float32 after the timed steps
_STEPS = 4
LEAST_SECONDS = 5.0  # minimum time allowed for measuring before a run
SHARE_OF_RUN = 0.01  # share of the run time allowed for measuring
CREW_SECONDS = 5.0  # time to start worker processes


@dataclass(frozen=True)
class Choice:
    """A chosen precision.

    Attributes:
        precision: The fastest precision that agrees with float32.
        seconds: Seconds of the fastest timed training step, by candidate.
        cached: Whether the choice was read from the cache.
        complete: Whether all candidates were tried within the allowed time.
    """

    precision: Precision
    seconds: dict[str, float]
    cached: bool = False
    complete: bool = True

    def to_json(self) -> dict[str, Any]:
        return {"precision": str(self.precision), "seconds_per_step": self.seconds}

    @classmethod
    def from_json(cls, value: dict[str, Any], cached: bool = False) -> Choice:
        return cls(Precision.parse(value["precision"]), dict(value["seconds_per_step"]), cached)

    @property
    def step_seconds(self) -> float:
        return self.seconds[str(self.precision)]


@dataclass(frozen=True)
class Timing:
    """Seconds per batch as a linear function of the MACs of a configuration (one image): ``(base, per MAC)``.

    Attributes:
        train: One optimizer step.
        score: One forward pass without gradients.
        rank: Seconds of ranking per MAC and image (``CostModel.prefix_macs``).
        data: Seconds to load and augment one training batch and one scoring batch.
    """

    train: tuple[float, float]
    score: tuple[float, float]
    rank: float
    data: float

    def seconds(self, what: str, macs: float) -> float:
        """Return the seconds of ``train`` or ``score`` at this number of MACs."""
        base, slope = getattr(self, what)
        return base + slope * macs


def cpu_threads() -> int:
    """Return the number of CPU threads of this process (OMP_NUM_THREADS, or one per core)."""
    return torch.get_num_threads()


@dataclass(frozen=True)
class Parallel:
    """Parallel processes and CPU threads of each; ``slowdown`` is the time of a step relative to a single process."""

    workers: int = 1
    threads: int = field(default_factory=cpu_threads)
    slowdown: float = 1.0


def allowed_seconds(run_seconds: float) -> float:
    """Return the seconds allowed for measuring before a run of ``run_seconds``."""
    return max(LEAST_SECONDS, SHARE_OF_RUN * run_seconds)


def choose(
    build: Callable[[], nn.Module],
    images_BCHW: Tensor,
    labels_B: Tensor,
    what: dict[str, Any],
    requested: str = "auto",
    steps: float = math.inf,
) -> Choice:
    """Time training steps with each candidate and choose the fastest that agrees with float32.

    Args:
        build: Builds the network with the same weights each time; called once per candidate.
        images_BCHW, labels_B: One training batch on the device.
        what: Describes the network and batch; part of the cache key.
        requested: ``auto``, or the only precision to time.
        steps: Training steps of the run. If measuring takes longer than ``allowed_seconds`` of such a run, the
            remaining candidates are skipped and the choice is not cached.
    """
    automatic = CUDA_CANDIDATES if images_BCHW.is_cuda else CANDIDATES
    candidates = automatic if requested == "auto" else (requested,)
    key = {"what": what, "candidates": candidates, "device": str(images_BCHW.device)}

    def measure() -> dict[str, Any]:
        choice = _measure(build, images_BCHW, labels_B, candidates, steps)
        return {**choice.to_json(), "incomplete": not choice.complete}

    value, cached = _remembered("precision", key, measure, lambda stored: Choice.from_json(stored).to_json())
    return Choice.from_json(value, cached)


def _remembered(
    kind: str, key: dict[str, Any], measure: Callable[[], dict[str, Any]], check: Callable[[Any], dict[str, Any]]
) -> tuple[dict[str, Any], bool]:
    """Return the cached value for this key, machine and versions, or measure it; also whether it was cached."""
    digest = hashlib.sha256(json.dumps([kind, key, environment()], sort_keys=True).encode()).hexdigest()[:20]
    cache = cache_folder() / "calibration" / f"{digest}.json"
    try:
        return check(parse_json(read_bytes(cache, 2**20), str(cache))), True
    except (OSError, RequestError, ValueError, LookupError, TypeError, AttributeError):
        pass
    value = measure()
    if value.pop("incomplete", False):
        return value, False
    with contextlib.suppress(RunFailure):  # failing to write the cache must not stop the run
        write_atomically(cache, json.dumps(value))
    return value, False


def _measure(
    build: Callable[[], nn.Module],
    images_BCHW: Tensor,
    labels_B: Tensor,
    candidates: tuple[str, ...],
    steps: float = math.inf,
) -> Choice:
    start, complete = time.perf_counter(), True
    seconds: dict[str, float] = {}
    losses: dict[str, float] = {}
    hopeless: set[str] = set()
    for name in candidates:
        precision = Precision.parse(name)
        if precision.dtype in hopeless:  # too slow in the other memory order
            continue
        if seconds and _over(start, steps, seconds):
            complete = False
            break
        network = precision.place(build(), images_BCHW.device)
        optimizer = sgd(network, 0.01, 0.9, 0.0)
        times: list[float] = []
        while len(times) < _STEPS:
            started = time.perf_counter()
            try:
                losses[name] = float(train_step(network, optimizer, images_BCHW, labels_B, 0.01, precision))
                check_finite([losses[name]])
            except (RuntimeError, LossNotFinite):
                if name == candidates[0]:
                    raise
                losses[name] = float("nan")  # not supported on this device
                break
            times.append(time.perf_counter() - started)
            if _over(start, steps, {**seconds, name: times[-1]}):
                break
            if seconds and _hopeless(times, min(seconds.values())):
                hopeless.add(precision.dtype)
                break
        seconds[name] = min(times[1:] or times or [float("inf")])
    reference = losses[candidates[0]]
    sound = [name for name in losses if abs(losses[name] - reference) <= TOLERANCE * abs(reference)]
    finite = {name: value for name, value in seconds.items() if value != float("inf")}
    return Choice(Precision.parse(min(sound, key=seconds.__getitem__)), finite, complete=complete)


def _over(start: float, steps: float, seconds: dict[str, float]) -> bool:
    """Return whether measuring since ``start`` has exceeded the time allowed before a run of ``steps``."""
    return time.perf_counter() - start > allowed_seconds(steps * min(seconds.values()))


def _hopeless(times: list[float], best: float) -> bool:
    """Return whether a candidate is too slow. The limit is higher for its first step, which warms up."""
    allowed = 5 * HOPELESS if len(times) == 1 else HOPELESS
    return times[-1] > allowed * best


def timing(
    networks: Sequence[tuple[float, Callable[[], nn.Module]]],
    images_BCHW: Tensor,
    labels_B: Tensor,
    precision: Precision,
    load: Callable[[], Any],
    walked: tuple[float, Callable[[], Callable[[], Any]]],
    what: dict[str, Any],
) -> Timing:
    """Time training steps, scoring passes, data loading and part of a ranking.

    Args:
        networks: For each configuration, its MACs (one image) and a function that builds the plain network.
        images_BCHW, labels_B: One training batch on the device.
        precision: Number format and memory order.
        load: Loads the batches of one step.
        walked: MACs of part of a ranking, and a function that prepares this work and returns it as a function.
        what: Describes the network and batch; part of the cache key.
    """

    def measure() -> dict[str, Any]:
        macs, train, score = [], [], []
        for cost, build in networks:
            network = precision.place(build(), images_BCHW.device)
            optimizer = sgd(network, 0.01, 0.9, 0.0)
            step = lambda n=network, o=optimizer: float(train_step(n, o, images_BCHW, labels_B, 0.01, precision))  # noqa: E731
            passed = lambda n=network: int(correct(n, images_BCHW, labels_B, precision))  # noqa: E731
            macs.append(cost)
            train.append(_typical(step, _STEPS))
            score.append(_typical(passed, _STEPS))
        amount, prepare = walked
        rank = _typical(prepare(), _STEPS) / amount
        return asdict(Timing(_line(macs, train), _line(macs, score), rank, _typical(load, _STEPS)))

    key = {
        "what": what,
        "precision": str(precision),
        "device": str(images_BCHW.device),
        "macs": [m for m, _ in networks],
        "walked": walked[0],
    }
    value, _ = _remembered("timing", key, measure, lambda stored: asdict(_timing(stored)))
    return _timing(value)


def _timing(value: dict[str, Any]) -> Timing:
    (a, b), (c, d) = value["train"], value["score"]
    return Timing((float(a), float(b)), (float(c), float(d)), float(value["rank"]), float(value["data"]))


def _typical(call: Callable[[], Any], times: int) -> float:
    """Return the median seconds of a call, without the first, which warms up."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:]))


def _line(macs: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """Return base and slope of the least-squares line, both at least 0. For a single number of MACs, the base is 0."""
    if len(set(macs)) == 1:
        return 0.0, float(np.mean(seconds)) / macs[0]
    slope, base = np.polyfit(macs, seconds, 1)
    if base < 0:
        return 0.0, float(np.dot(macs, seconds) / np.dot(macs, macs))
    return (float(base), float(slope)) if slope > 0 else (float(np.mean(seconds)), 0.0)


def parallel(
    measure_step: Callable[[int, int], float],
    single_seconds: float,
    most: int,
    what: dict[str, Any],
    allowed: float = math.inf,
) -> Parallel | None:
    """Find the numbers of processes and threads with the highest throughput for independent trainings.

    Args:
        measure_step: Measures the seconds of a step when (processes, threads) run in parallel.
        single_seconds: Seconds of a step in one process on all threads.
        most: Maximum number of processes.
        what: Describes the network and batch; part of the cache key.
        allowed: Seconds allowed for measuring; numbers of processes that would take longer are not tried.

    Returns:
        The best choice; None if there is no time to try any.
    """
    cores, candidates, needed = cpu_threads(), [], 0.0
    for count in (2**power for power in range(1, 20)):
        needed += CREW_SECONDS + _STEPS * count * single_seconds  # warm-up and timing steps
        if count <= min(cores, most) and needed <= allowed:
            candidates.append(count)
    if not candidates and min(cores, most) > 1:
        return None

    def measure() -> dict[str, Any]:
        best = Parallel(1, cores)
        for workers in candidates:
            slowdown = measure_step(workers, cores // workers) / single_seconds
            if workers / slowdown > 1.05 * best.workers / best.slowdown:  # ignore gains within measurement noise
                best = Parallel(workers, cores // workers, slowdown)
        return asdict(best)

    key = {"what": what, "cores": cores, "candidates": candidates}
    value, _ = _remembered("parallel", key, measure, lambda stored: asdict(Parallel(**stored)))
    return Parallel(**value)


def share_of_use(supernets: int, block: int, workers: int) -> float:
    """Return the share of time, 0 to 1, that workers are busy when they share the SuperNets of a block.

    Simulated with a fixed seed: each draw selects a SuperNet uniformly, and the SuperNets with the most draws are
    assigned first.
    """
    generator = np.random.Generator(np.random.PCG64(0))
    ends = []
    for chains in generator.multinomial(block, [1 / supernets] * supernets, size=400):
        loads = np.zeros(workers)
        for length in sorted(chains, reverse=True):
            loads[loads.argmin()] += length
        ends.append(loads.max())
    return float(block / workers / np.mean(ends))
