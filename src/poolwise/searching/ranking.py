"""Step 6: score every configuration, sharing what configurations with one prefix share."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poolwise.errors import PoolwiseError, RequestError
from poolwise.networks.recalibration import Recalibrated
from poolwise.networks.switch import SwitchableNet
from poolwise.networks.walk import walk
from poolwise.problem import Problem
from poolwise.process import threads_here
from poolwise.progress import Listener
from poolwise.rng import Streams
from poolwise.runs import FORMAT, RunFolder, environment
from poolwise.searching import ranked
from poolwise.searching.beam import beam
from poolwise.searching.loop import SearchState
from poolwise.space import LISTED, Pooling
from poolwise.training import Precision, count_correct
from poolwise.workers import each, for_ranking

RANKED_CONFIGURATIONS = LISTED  # of larger spaces, what the search visited is ranked, or what a beam comes by


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
    right_P = count_all(networks, poolings, supernet_P, *problem.ranking_batches.part(i), problem.precision)
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
    owner_BP: np.ndarray,
    listener: Listener,
) -> np.ndarray:
    """right_BP: rightly classified images of each configuration in each batch of the scoring half.

    ``owner_BP`` says on which SuperNet. Batches are shared out to the workers.
    """
    jobs = [(i, list(poolings), owner_P.tolist()) for i, owner_P in enumerate(owner_BP)]
    parallel = for_ranking(problem)
    for network in networks if parallel.workers > 1 else ():
        network.share_memory()
    results = each(problem, _score_batch, jobs, listener, parallel.workers, parallel.threads, networks)
    return np.stack([_given(result) for _, result in results])


class Panel:
    """Which SuperNet scores which configuration on which batch (``rank_on``), and what that comes to.

    Args:
        problem: whose scoring half is gone through.
        supernet_P: the SuperNet that each configuration is assigned to.

    Attributes:
        owner_BP: the SuperNet of each batch and configuration: its own, or all in turn.
        turns: SuperNets that take turns; 1 where each configuration is scored by its own.
    """

    def __init__(self, problem: Problem, supernet_P: np.ndarray):
        batches = problem.ranking_batches
        self.turns = problem.settings.supernets if problem.settings.rank_on == "all" else 1
        turn_B = np.arange(batches.parts)
        self.owner_BP = np.tile(supernet_P, (batches.parts, 1))
        if self.turns > 1:
            self.owner_BP = np.repeat(turn_B[:, None] % self.turns, len(supernet_P), axis=1)
        self._images_B = np.diff(len(batches) * np.arange(batches.parts + 1) // batches.parts)
        self._half_B = turn_B // self.turns % 2

    def scores(self, right_BP: np.ndarray, assignment_PM: np.ndarray, half: int | None = None) -> np.ndarray:
        """score_P from rightly classified images of all batches, or of one of the two halves of them."""
        kept_B = np.ones(len(right_BP), bool) if half is None else self._half_B == half
        right_BP, images_B = right_BP[kept_B], self._images_B[kept_B]
        if self.turns == 1:
            return right_BP.sum(0) / images_B.sum()
        turn_B = np.flatnonzero(kept_B) % self.turns
        accuracy_MP = np.stack([right_BP[turn_B == m].sum(0) / images_B[turn_B == m].sum() for m in range(self.turns)])
        return pooled(accuracy_MP, assignment_PM)

    def halves(self, right_BP: np.ndarray, assignment_PM: np.ndarray) -> np.ndarray:
        """score_2P from two disjoint halves of the images; [0, P] where there are too few batches."""
        if len(right_BP) < 2 * self.turns:
            return np.empty((0, right_BP.shape[1]))
        return np.stack([self.scores(right_BP, assignment_PM, half) for half in (0, 1)])


def pooled(accuracy_MP: np.ndarray, assignment_PM: np.ndarray) -> np.ndarray:
    """score_P from the accuracy on every SuperNet, weighted by the assignment.

    SuperNets differ in how good they are on the whole, and so do their images. What a configuration gains or loses against
    the mean of all on the same SuperNet is what counts, so it is this that is averaged; the mean of all means is added.
    """
    gain_MP = accuracy_MP - accuracy_MP.mean(axis=1, keepdims=True)
    return accuracy_MP.mean() + (assignment_PM * gain_MP.T).sum(axis=1)


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

    Of a space above RANKED_CONFIGURATIONS, those that the search visited and the default are scored, or, with
    ``rank_beam``, what a beam over pooling positions comes by.
    """
    state = SearchState(problem)
    if not state.restore(folder) or state.step < state.steps:
        raise RequestError(
            f"the search in {folder.path} is at step {state.step} of {state.steps}: finish it first,"
            f" poolwise resume {folder.path}"
        )
    scored = _beamed(problem, state, listener) if problem.settings.rank_beam else _plain(problem, state, listener)
    listener.finish()
    if len(scored.poolings) < problem.space.size:
        listener.note(coverage(problem, len(scored.poolings)))
    return ranked.write(folder, describe(problem, state, scored), problem.settings.fusion)


@dataclass(frozen=True)
class Scored:
    """What was scored, in the order of the space.

    Attributes:
        poolings: P configurations.
        panel: by which SuperNets.
        right_BP: rightly classified images of each batch under each.
        rounds: configurations that were run together, whose common prefixes were computed once.
    """

    poolings: list[Pooling]
    panel: Panel
    right_BP: np.ndarray
    rounds: list[list[Pooling]]


def _plain(problem: Problem, state: SearchState, listener: Listener) -> Scored:
    """The whole space, or what was visited of a large one, in one go."""
    poolings, calibration = _covered(problem, state), problem.calibration_batches
    listener.start("rank", problem.ranking_batches.parts + (calibration.parts if calibration else 0))
    panel, right_BP = _run(problem, state, poolings, listener)
    return Scored(poolings, panel, right_BP, [poolings])


def _beamed(problem: Problem, state: SearchState, listener: Listener) -> Scored:
    """What a beam comes by, a level after the other."""
    space, width, calibration = problem.space, problem.settings.rank_beam, problem.calibration_batches
    assert width is not None
    level = problem.ranking_batches.parts + (calibration.parts if calibration else 0)
    listener.start("rank", (space.poolings + 1) * level)
    right: dict[Pooling, np.ndarray] = {}
    rounds: list[list[Pooling]] = []

    def score(poolings: Sequence[Pooling]) -> np.ndarray:
        rounds.append(list(poolings))
        panel, right_BP = _run(problem, state, poolings, listener)
        right.update(zip(poolings, right_BP.T, strict=True))
        return panel.scores(right_BP, state.sampler.assignment_of(poolings))

    draws = Streams(problem.settings.seed).child("rank")["beam"]
    poolings = list(beam(space, width, score, draws, [problem.default]))
    panel = Panel(problem, state.sampler.supernet_of(poolings))
    return Scored(poolings, panel, np.stack([right[pooling] for pooling in poolings], axis=1), rounds)


def _run(
    problem: Problem, state: SearchState, poolings: Sequence[Pooling], listener: Listener
) -> tuple[Panel, np.ndarray]:
    """Which SuperNets score ``poolings``, and right_BP."""
    supernet_P = state.sampler.supernet_of(poolings)
    panel = Panel(problem, supernet_P)
    networks = recalibrate(problem, state.nets.networks, poolings, supernet_P, listener)
    return panel, score_all(problem, networks, poolings, panel.owner_BP, listener)


def _covered(problem: Problem, state: SearchState) -> list[Pooling]:
    """What is ranked, in the order of the space; of too many that were visited, those with the highest moving averages."""
    space = problem.space
    if space.size <= RANKED_CONFIGURATIONS:
        return list(space)
    visited = [pooling for pooling, _ in state.sampler.leaders(LISTED)]
    return sorted({*visited, problem.default})


def coverage(problem: Problem, scored: int) -> str:
    """What was ranked, in a sentence."""
    settings, size = problem.settings, problem.space.size
    how = "those that the search visited, and the default"
    if settings.rank_beam:
        how = f"what a beam of width {settings.rank_beam} over pooling positions scored, the default among it"
    return f"{scored:,} of {size:,} configurations are ranked: {how}"


def describe(problem: Problem, state: SearchState, scored: Scored) -> dict[str, Any]:
    """What was scored, with its costs and what it came from, in the order of the space; ``ranked`` orders it."""
    poolings, panel, right_BP = scored.poolings, scored.panel, scored.right_BP
    supernet_P, assignment_PM = state.sampler.supernet_of(poolings), state.sampler.assignment_of(poolings)
    score_P, halves_2P = panel.scores(right_BP, assignment_PM), panel.halves(right_BP, assignment_PM)
    scores_PM = state.sampler.scores_of(poolings)
    rows = [
        {
            "pooling": str(pooling),
            "score": float(score_P[a]),
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
        **({"coverage": coverage(problem, len(poolings))} if len(poolings) < problem.space.size else {}),
        "default": str(problem.default),
        "operator": problem.family.operator,
        "ranking": rows,
        "settings": problem.settings.to_json(),
        "precision": str(state.nets.precision),
        "spent": {"search_macs": state.macs, "rank_macs": _macs(problem, state, scored)},
        "evaluation_batch": problem.ranking_batches.batch_size,
        **_recalibration(problem),
        "data": problem.describe_data(),
        **environment(),
    }


def _recalibration(problem: Problem) -> dict[str, Any]:
    """How many images recalibrated norms were averaged over, and at most how many at a time."""
    batches = problem.calibration_batches
    return {"recalibration": {"images": len(batches), "batch": batches.batch_size}} if batches else {}


def _macs(problem: Problem, state: SearchState, scored: Scored) -> int:
    """Multiply-adds of what was run, each SuperNet computing its own prefixes once a batch and round."""
    total = 0
    for poolings in scored.rounds:
        owner_P = state.sampler.supernet_of(poolings) if scored.panel.turns == 1 else np.zeros(len(poolings), int)
        groups = [[p for p, m in zip(poolings, owner_P, strict=True) if m == net] for net in set(owner_P.tolist())]
        total += sum(problem.cost.prefix_macs(group) for group in groups)
    return problem.ranked_images() * total
