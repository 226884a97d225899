"""What this machine does fastest, where a request asks for measuring: on the network, batch and device at hand.

A choice is cached for the machine, network and versions it was made for, so that repeating a run repeats its bytes.
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
HOPELESS = 2.0  # thrown out after a step that took this many times the best
TOLERANCE = 0.05  # relative difference of the loss after the timed steps from float32's
_STEPS = 4
LEAST_SECONDS = 5.0  # that measuring before a run may take in any case
SHARE_OF_RUN = 0.01  # of a run that measuring before it may take
CREW_SECONDS = 5.0  # starting worker processes


@dataclass(frozen=True)
class Choice:
    """The chosen precision and, for each candidate, seconds a training step (the fastest of the timed ones).

    ``complete`` is False where the allowed time ended before the last candidate's turn.
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
    """Seconds of one batch as a line in the MACs (of one image) of its configuration: ``(base, per MAC)``.

    Attributes:
        train: one optimizer step.
        score: one forward pass without gradients.
        rank: ranking, for each multiply-add of an image (``CostModel.prefix_macs``).
        data: loading and augmenting one training batch and one scoring batch.
    """

    train: tuple[float, float]
    score: tuple[float, float]
    rank: float
    data: float

    def seconds(self, what: str, macs: float) -> float:
        """Seconds of ``train`` or ``score`` at this number of MACs."""
        base, slope = getattr(self, what)
        return base + slope * macs


def cpu_threads() -> int:
    """CPU threads that this process was given (OMP_NUM_THREADS, or one a core)."""
    return torch.get_num_threads()


@dataclass(frozen=True)
class Parallel:
    """Processes at once and CPU threads of each; ``slowdown`` is a step's time so, divided by that of one alone."""

    workers: int = 1
    threads: int = field(default_factory=cpu_threads)
    slowdown: float = 1.0


def allowed_seconds(run_seconds: float) -> float:
    """Return how many seconds measuring may take before a run of ``run_seconds``."""
    return max(LEAST_SECONDS, SHARE_OF_RUN * run_seconds)


def choose(
    build: Callable[[], nn.Module],
    images_BCHW: Tensor,
    labels_B: Tensor,
    what: dict[str, Any],
    requested: str = "auto",
    steps: float = math.inf,
) -> Choice:
    """Time real steps of each candidate and take the fastest that agrees with float32.

    Args:
        build: makes the network, the same weights each time, called once a candidate.
        images_BCHW, labels_B: one training batch on the device.
        what: names the network and batch, part of the cache's key.
        requested: ``auto``, or the only precision to time.
        steps: training steps of the run that the choice is for. Candidates whose turn comes after ``allowed_seconds`` of it
            are not tried, and the choice is then not cached.
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
    """What was measured before for this key on this machine with these versions, or what is measured now."""
    digest = hashlib.sha256(json.dumps([kind, key, environment()], sort_keys=True).encode()).hexdigest()[:20]
    cache = cache_folder() / "calibration" / f"{digest}.json"
    try:
        return check(parse_json(read_bytes(cache, 2**20), str(cache))), True
    except (OSError, RequestError, ValueError, LookupError, TypeError, AttributeError):
        pass
    value = measure()
    if value.pop("incomplete", False):
        return value, False
    with contextlib.suppress(RunFailure):  # a cache that cannot be written costs time, not the run
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
        if precision.dtype in hopeless:  # it was so in the other memory order
            continue
        if seconds and _over(start, steps, seconds):
            complete = False
            break
        network = precision.place(build(), images_BCHW.device)
        optimizer = sgd(network, 0.01, 0.9, 0.0)
        times: list[float] = []
        while len(times) < _STEPS:
            begin = time.perf_counter()
            try:
                losses[name] = float(train_step(network, optimizer, images_BCHW, labels_B, 0.01, precision))
                check_finite([losses[name]])
            except (RuntimeError, LossNotFinite):
                if name == candidates[0]:
                    raise
                losses[name] = float("nan")  # this device cannot do it
                break
            times.append(time.perf_counter() - begin)
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
    """Return whether measuring since ``start`` has taken the time that it may take before a run of ``steps``."""
    return time.perf_counter() - start > allowed_seconds(steps * min(seconds.values()))


def _hopeless(times: list[float], best: float) -> bool:
    """Whether a candidate is out of the race; its first step, which also prepares kernels, is judged more mildly."""
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
    """Time training steps and scoring passes of a few configurations and draw a line through them; and a piece of ranking.

    Args:
        networks: MACs of an image and a maker of the plain network, for each configuration.
        load: loads the batches of one step.
        walked: multiply-adds of a piece of ranking, and a maker of what does it.
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
    """Median of the calls after the first, which prepares kernels."""
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds[1:]))


def _line(macs: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """Base and slope of the least squares line, both at least 0; of one number of MACs the line through 0."""
    if len(set(macs)) == 1:
        return 0.0, float(np.mean(seconds)) / macs[0]
    slope, base = np.polyfit(macs, seconds, 1)
    if base < 0:
        return 0.0, float(np.dot(macs, seconds) / np.dot(macs, macs))
    return (float(base), float(slope)) if slope > 0 else (float(np.mean(seconds)), 0.0)


def parallel(
    together: Callable[[int, int], float], alone: float, most: int, what: dict[str, Any], allowed: float = math.inf
) -> Parallel | None:
    """How many processes of how many threads train most in a time, where trainings share nothing.

    Args:
        together: seconds of a step in each of (processes, threads) that run at the same time.
        alone: seconds of a step in one process on all threads.
        most: processes that could be of use.
        allowed: seconds that measuring may take; numbers of processes that do not fit into it are not tried.

    Returns None where there is no time to try any.
    """
    cores, candidates, needed = cpu_threads(), [], 0.0
    for count in (2**power for power in range(1, 20)):
        needed += CREW_SECONDS + _STEPS * count * alone  # steps of processes that are of no use
        if count <= min(cores, most) and needed <= allowed:
            candidates.append(count)
    if not candidates and min(cores, most) > 1:
        return None

    def measure() -> dict[str, Any]:
        best = Parallel(1, cores)
        for workers in candidates:
            slowdown = together(workers, cores // workers) / alone
            if workers / slowdown > 1.05 * best.workers / best.slowdown:  # not for less than it may cost
                best = Parallel(workers, cores // workers, slowdown)
        return asdict(best)

    key = {"what": what, "cores": cores, "candidates": candidates}
    value, _ = _remembered("parallel", key, measure, lambda stored: asdict(Parallel(**stored)))
    return Parallel(**value)


def share_of_use(supernets: int, block: int, workers: int) -> float:
    """Share of the time that workers are busy when the SuperNets of a block are divided among them, 0 to 1.

    By simulation with a fixed seed: draws fall evenly on the SuperNets, the longest chain is handed out first.
    """
    generator = np.random.Generator(np.random.PCG64(0))
    ends = []
    for chains in generator.multinomial(block, [1 / supernets] * supernets, size=400):
        loads = np.zeros(workers)
        for length in sorted(chains, reverse=True):
            loads[loads.argmin()] += length
        ends.append(loads.max())
    return float(block / workers / np.mean(ends))
