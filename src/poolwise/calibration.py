"""What this machine does fastest. Measured on the network, batch and device at hand, never assumed.

A choice is cached for the machine, network and versions it was made for, so that repeating a run repeats its bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from poolwise.errors import RunFailure
from poolwise.runs import cache_folder, environment, write_atomically
from poolwise.training import LossNotFinite, Precision, sgd, train_step

CANDIDATES = ("float32", "float32+channels_last", "bfloat16+channels_last", "bfloat16")
HOPELESS = 2.0  # thrown out after a step that took this many times the best
TOLERANCE = 0.05  # relative difference of the loss after the timed steps from float32's
_STEPS = 4


@dataclass(frozen=True)
class Choice:
    """The chosen precision and, for each candidate, seconds a training step (the fastest of the timed ones)."""

    precision: Precision
    seconds: dict[str, float]
    cached: bool = False

    def to_json(self) -> dict[str, Any]:
        return {"precision": str(self.precision), "seconds_per_step": self.seconds}

    @property
    def step_seconds(self) -> float:
        return self.seconds[str(self.precision)]


def choose(
    build: Callable[[], nn.Module], images_BCHW: Tensor, labels_B: Tensor, what: dict[str, Any], requested: str = "auto"
) -> Choice:
    """Time real steps of each candidate and take the fastest that agrees with float32.

    Args:
        build: makes the network, the same weights each time, called once a candidate.
        images_BCHW, labels_B: one training batch on the device.
        what: names the network and batch, part of the cache's key.
        requested: ``auto``, or a precision to be taken as it is (it is timed all the same, for estimates).
    """
    candidates = CANDIDATES if requested == "auto" else (requested,)
    key = {"what": what, "candidates": candidates, "device": str(images_BCHW.device), "environment": environment()}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]
    cache = cache_folder() / "calibration" / f"{digest}.json"
    try:
        stored = json.loads(cache.read_text())
        return Choice(Precision.parse(stored["precision"]), dict(stored["seconds_per_step"]), cached=True)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    choice = _measure(build, images_BCHW, labels_B, candidates)
    with contextlib.suppress(RunFailure):  # a cache that cannot be written costs time, not the run
        write_atomically(cache, json.dumps(choice.to_json()))
    return choice


def _measure(
    build: Callable[[], nn.Module], images_BCHW: Tensor, labels_B: Tensor, candidates: tuple[str, ...]
) -> Choice:
    seconds: dict[str, float] = {}
    losses: dict[str, float] = {}
    for name in candidates:
        precision = Precision.parse(name)
        network = precision.place(build(), images_BCHW.device)
        optimizer = sgd(network, 0.01, 0.9, 0.0)
        times: list[float] = []
        while len(times) < _STEPS and not (times and seconds and _hopeless(times, min(seconds.values()))):
            begin = time.perf_counter()
            try:
                losses[name] = train_step(network, optimizer, images_BCHW, labels_B, 0.01, precision)
            except (RuntimeError, LossNotFinite):
                if name == candidates[0]:
                    raise
                losses[name] = float("nan")  # this device cannot do it
                break
            if images_BCHW.is_cuda:
                torch.cuda.synchronize(images_BCHW.device)
            times.append(time.perf_counter() - begin)
        seconds[name] = min(times[1:] or times or [float("inf")])
    reference = losses[candidates[0]]
    sound = [name for name in candidates if abs(losses[name] - reference) <= TOLERANCE * abs(reference)]
    finite = {name: value for name, value in seconds.items() if value != float("inf")}
    return Choice(Precision.parse(min(sound, key=seconds.__getitem__)), finite)


def _hopeless(times: list[float], best: float) -> bool:
    """Whether a candidate is out of the race; its first step, which also prepares kernels, is judged more mildly."""
    allowed = 5 * HOPELESS if len(times) == 1 else HOPELESS
    return times[-1] > allowed * best
