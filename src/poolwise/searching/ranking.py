"""Step 6: score every configuration, sharing what configurations with one prefix share."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poolwise.errors import PoolwiseError, RequestError
from poolwise.networks.recalibration import Recalibrated
from poolwise.networks.switch import SwitchableNet
from poolwise.networks.walk import walk
from poolwise.problem import Problem
from poolwise.progress import Listener
from poolwise.runs import FORMAT, RunFolder, environment
from poolwise.searching import ranked
from poolwise.searching.loop import SearchState
from poolwise.space import Pooling
from poolwise.training import Precision, count_correct
from poolwise.workers import each, for_ranking, threads_here

RANKED_CONFIGURATIONS = 20_000  # of larger spaces, what the search visited is ranked


def count_all(
    networks: Sequence[SwitchableNet],
    poolings: Sequence[Pooling],
    supernet_P: Sequence[int],
    images_BCHW: Tensor,
    labels_B: Tensor,
    precision: Precision,
) -> np.ndarray:
    """right_P: rightly classified images of one batch under each configuration, on the SuperNet that it is scored by."""
    right_P = np.zeros(len(poolings), np.int64)
    for m, network in enumerate(networks):
        own = [a for a in range(len(poolings)) if supernet_P[a] == m]
        if own:
            right_P[own] = count_correct(network, [poolings[a] for a in own], images_BCHW, labels_B, precision)
    return right_P


def _score_batch(
    problem: Problem, listener: Listener, networks: Any, i: int, poolings: Sequence[Pooling], supernet_P: Sequence[int]
) -> np.ndarray:
    """right_P of the i-th batch of the scoring half, here or in a worker."""
    listener.check()
    batches = problem.batches(problem.training_images, problem.settings.eval_batch_size, problem.halves[1])
    right_P = count_all(networks, poolings, supernet_P, *batches.part(i), problem.precision)
    listener.advance()
    return right_P


def _given(result: Any) -> np.ndarray:
    """The result of a job, or the error that it ended with."""
    if isinstance(result, PoolwiseError):
        raise result
    return result


def score_all(
    problem: Problem,
    networks: list[SwitchableNet],
    poolings: Sequence[Pooling],
    supernet_P: np.ndarray,
    listener: Listener,
) -> np.ndarray:
    """right_BP: rightly classified images of each configuration in each batch of the scoring half.

    Batches are shared out to the workers.
    """
    batches = problem.batches(problem.training_images, problem.settings.eval_batch_size, problem.halves[1])
    jobs = [(i, list(poolings), supernet_P.tolist()) for i in range(batches.parts)]
    parallel = for_ranking(problem)
    for network in networks if parallel.workers > 1 else ():
        network.share_memory()
    results = each(problem, _score_batch, jobs, listener, parallel.workers, parallel.threads, networks)
    return np.stack([_given(result) for _, result in results])


@torch.no_grad()
def recalibrate(
    problem: Problem,
    networks: list[SwitchableNet],
    poolings: Sequence[Pooling],
    supernet_P: np.ndarray,
    listener: Listener,
) -> list[SwitchableNet]:
    """The SuperNets with running averages for the configurations that ``supernet_P`` gives them.

    As they are where ``norm`` is not ``recalibrated``. Runs in this process, on as many threads as the scoring.
    """
    batches = problem.calibration_batches
    if batches is None:
        return networks
    views = [Recalibrated(network) for network in networks]
    members = [[p for p, owner in zip(poolings, supernet_P, strict=True) if owner == m] for m in range(len(views))]
    with threads_here(for_ranking(problem).threads):
        for images_BCHW, _ in batches.ordered():
            for view, own in zip(views, members, strict=True):
                listener.check()
                with view.collecting(), problem.precision.active(images_BCHW.device):
                    deque(walk(view, own, problem.precision.images(images_BCHW)), maxlen=0)
            listener.advance()
    return list(views)


def rank(problem: Problem, folder: RunFolder, listener: Listener) -> dict[str, Any]:
    """Score the finished search's configurations and write ``ranking.json``. RequestError where it is not finished.

    Of a space above RANKED_CONFIGURATIONS, those that the search visited and the default are scored.
    """
    state = SearchState(problem)
    if not state.restore(folder) or state.step < state.steps:
        raise RequestError(
            f"the search in {folder.path} is at step {state.step} of {state.steps}: finish it first,"
            f" poolwise resume {folder.path}"
        )
    poolings = _covered(problem, state)
    if len(poolings) < problem.space.size:
        listener.note(
            f"{len(poolings)} of {problem.space.size} configurations are ranked: those that the search visited, and the default"
        )
    supernet_P = state.sampler.supernet_of(poolings)
    batches = problem.batches(problem.training_images, problem.settings.eval_batch_size, problem.halves[1])
    calibration = problem.calibration_batches
    listener.start("rank", batches.parts + (calibration.parts if calibration else 0))
    networks = recalibrate(problem, state.nets.networks, poolings, supernet_P, listener)
    right_BP = score_all(problem, networks, poolings, supernet_P, listener)
    listener.finish()
    return ranked.write(folder, describe(problem, state, poolings, right_BP), problem.settings.fusion)


def _covered(problem: Problem, state: SearchState) -> list[Pooling]:
    """What is ranked, in the order of the space."""
    space = problem.space
    if space.size <= RANKED_CONFIGURATIONS:
        return list(space)
    return [space[a] for a in sorted({*state.sampler.visited(), space.index(problem.default)})]


def describe(problem: Problem, state: SearchState, poolings: Sequence[Pooling], right_BP: np.ndarray) -> dict[str, Any]:
    """What was scored, with its costs and what it came from, in the order of ``poolings``; ``ranked`` orders it."""
    images = len(problem.halves[1])
    supernet_P, assignment_PM = state.sampler.supernet_of(poolings), state.sampler.assignment_of(poolings)
    scores_PM, halves_2P = state.sampler.scores_of(poolings), _halves(problem, right_BP)
    rows = [
        {
            "pooling": str(pooling),
            "score": float(right_BP[:, a].sum() / images),
            "halves": halves_2P[:, a].tolist(),
            "supernet": int(supernet_P[a]),
            "assignment": assignment_PM[a].tolist(),
            "scores": scores_PM[a].tolist(),
            **problem.cost(pooling).to_json(),
        }
        for a, pooling in enumerate(poolings)
    ]
    return {
        "format": FORMAT,
        "space": problem.space.to_json(),
        "configurations": problem.space.size,
        "covered": len(poolings),
        "default": str(problem.default),
        "operator": problem.family.operator,
        "ranking": rows,
        "settings": problem.settings.to_json(),
        "precision": str(state.nets.precision),
        "spent": {"search_macs": state.macs, "rank_macs": _macs(problem, poolings, supernet_P)},
        "evaluation_batch": min(problem.settings.eval_batch_size, images),
        **_recalibration(problem),
        "data": problem.describe_data(),
        **environment(),
    }


def _halves(problem: Problem, right_BP: np.ndarray) -> np.ndarray:
    """accuracy_2P on every second batch from the first and from the second; [0, P] where there is one batch only."""
    images, parts = len(problem.halves[1]), len(right_BP)
    if parts < 2:
        return np.empty((0, right_BP.shape[1]))
    count_B = np.diff(images * np.arange(parts + 1) // parts)
    return np.stack([right_BP[i::2].sum(0) / count_B[i::2].sum() for i in (0, 1)])


def _recalibration(problem: Problem) -> dict[str, Any]:
    """How many images recalibrated norms were averaged over, and at most how many at a time."""
    batches = problem.calibration_batches
    return {"recalibration": {"images": len(batches), "batch": batches.batch_size}} if batches else {}


def _macs(problem: Problem, poolings: Sequence[Pooling], supernet_P: np.ndarray) -> int:
    """Multiply-adds of ``recalibrate`` and ``score_all``, each SuperNet computing its own prefixes once."""
    groups = [[p for p, m in zip(poolings, supernet_P, strict=True) if m == net] for net in set(supernet_P.tolist())]
    return problem.ranked_images() * sum(problem.cost.prefix_macs(group) for group in groups)
