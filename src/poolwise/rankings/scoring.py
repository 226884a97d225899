"""Step 6 of the method: score every configuration. Activations of common prefixes are computed once.

Legend: N batches of the scoring half, P configurations, T turns (``Panel``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from poolwise.errors import PoolwiseError, RequestError
from poolwise.experiment import Experiment
from poolwise.models.prefixes import walk
from poolwise.models.recalibration import Recalibrated
from poolwise.models.supernet import SwitchableNet
from poolwise.parallelism import for_ranking
from poolwise.process import threads_here
from poolwise.progress import Listener
from poolwise.rankings import proxy_training, ranking
from poolwise.rankings.beam import beam
from poolwise.rng import Streams
from poolwise.spaces import LISTED, Pooling
from poolwise.storage import FORMAT, RunFolder, environment
from poolwise.supernets.budget import proxy_budget, proxy_macs, scoring_macs
from poolwise.supernets.mixture import count_all
from poolwise.supernets.state import SearchState
from poolwise.training.workers import run_jobs

RANKED_CONFIGURATIONS = LISTED  # larger spaces are ranked in part: the best visited configurations, or a beam search


def _score_batch(
    experiment: Experiment,
    listener: Listener,
    networks: Any,
    i: int,
    turns: int,
    poolings: Sequence[Pooling],
    supernet_P: Sequence[int],
) -> np.ndarray:
    """Return right_P, correctly classified images of the i-th batch of the scoring half. Runs here or in a worker."""
    listener.check()
    right_P = count_all(
        networks, poolings, supernet_P, *experiment.ranking_batches(turns).part(i), experiment.precision
    )
    listener.advance()
    return right_P


def _from_worker(result: Any) -> np.ndarray:
    """Return the result of a job, or raise the error that it ended with."""
    if isinstance(result, PoolwiseError):
        raise result
    return result


def score_all(experiment: Experiment, networks: list[SwitchableNet], panel: Panel, listener: Listener) -> np.ndarray:
    """Return right_NP, correctly classified images per batch and configuration. Workers share the batches."""
    jobs = [(i, panel.turns, list(panel.poolings), judge_P.tolist()) for i, judge_P in enumerate(panel.judge_NP)]
    parallel = for_ranking(experiment)
    for network in networks if parallel.workers > 1 else ():
        network.share_memory()
    results = run_jobs(experiment, _score_batch, jobs, listener, parallel.workers, parallel.threads, networks)
    right = {job[0]: _from_worker(result) for job, result in results}  # workers finish in any order
    return np.stack([right[i] for i in range(len(jobs))])


class Panel:
    """Decide which SuperNet scores which configuration on which batch (``rank_on``), and compute the scores.

    Batch i belongs to turn i mod T, so every batch is evaluated once.

    Args:
        experiment: Experiment whose scoring half is used.
        poolings: P configurations.
        judge_TP: SuperNet that scores each configuration in turn t.
        weight_TP: Weight of each turn for each configuration.

    Attributes:
        judge_NP: SuperNet that scores each configuration on each batch.
        turns: T.
        turn_N, images_N: Turn and number of images of each batch.
    """

    def __init__(
        self, experiment: Experiment, poolings: Sequence[Pooling], judge_TP: np.ndarray, weight_TP: np.ndarray
    ):
        batches, self.poolings = experiment.ranking_batches(len(judge_TP)), poolings
        self.turns, self.judge_TP, self.weight_TP = len(judge_TP), judge_TP, weight_TP
        round_N, self.turn_N = np.divmod(np.arange(batches.parts), self.turns)
        self.judge_NP = judge_TP[self.turn_N]
        self.images_N = np.diff(len(batches) * np.arange(batches.parts + 1) // batches.parts)
        self._half_N = round_N % 2

    def scores(self, right_NP: np.ndarray, half: int | None = None) -> np.ndarray:
        """Return score_P from the correctly classified images of all batches, or of one half (0 or 1) of them."""
        accuracy_TP = self.accuracies(right_NP, half)
        return accuracy_TP[0] if self.turns == 1 else combine_turns(accuracy_TP, self.weight_TP)

    def accuracies(self, right_NP: np.ndarray, half: int | None = None) -> np.ndarray:
        """Return accuracy_TP, the accuracy in every turn, from all batches or one half of them."""
        half_N = np.ones(len(right_NP), bool) if half is None else self._half_N == half
        turn_TN = (np.arange(self.turns)[:, None] == self.turn_N) & half_N
        return np.stack([right_NP[kept_N].sum(0) / self.images_N[kept_N].sum() for kept_N in turn_TN])

    def halves(self, right_NP: np.ndarray) -> np.ndarray:
        """Return score_2P from two disjoint halves of the images, or an empty [0, P] if there are too few batches."""
        if len(right_NP) < 2 * self.turns:
            return np.empty((0, right_NP.shape[1]))
        return np.stack([self.scores(right_NP, half) for half in (0, 1)])


def combine_turns(accuracy_TP: np.ndarray, weight_TP: np.ndarray) -> np.ndarray:
    """Return score_P from the accuracy in every turn.

    SuperNets differ in their mean accuracy, and their images differ in difficulty. So the difference of each configuration
    from the mean of its turn is averaged with the weights of the turns, and the grand mean is added.
    """
    gain_TP = accuracy_TP - accuracy_TP.mean(axis=1, keepdims=True)
    return accuracy_TP.mean() + (weight_TP * gain_TP).sum(axis=0)


@torch.no_grad()
def recalibrate(
    experiment: Experiment,
    networks: list[SwitchableNet],
    poolings: Sequence[Pooling],
    supernet_P: np.ndarray,
    listener: Listener,
) -> list[SwitchableNet]:
    """Return the SuperNets with BatchNorm statistics recalibrated for the configurations that ``supernet_P`` assigns.

    Return them unchanged unless ``norm`` is ``recalibrated``. Runs in this process, with as many threads as the scoring.
    """
    batches = experiment.calibration_batches
    if batches is None:
        return networks
    views = [Recalibrated(network) for network in networks]
    members = [[p for p, judge in zip(poolings, supernet_P, strict=True) if judge == m] for m in range(len(views))]
    with threads_here(for_ranking(experiment).threads):
        for images_BCHW, _ in batches.ordered():
            for view, assigned in zip(views, members, strict=True):
                listener.check()
                with view.collecting(), experiment.precision.active(images_BCHW.device):
                    deque(walk(view, assigned, experiment.precision.images(images_BCHW)), maxlen=0)
            listener.advance()
    return list(views)


def finished_search(experiment: Experiment, folder: RunFolder) -> SearchState:
    """Return the state of the finished search in ``folder``.

    Raises:
        RequestError: If the search is not finished.
    """
    state = SearchState(experiment)
    if not state.restore(folder) or not state.finished:
        raise RequestError(
            f"the search in {folder.path} is at step {state.step} of {state.steps}:"
            f" run poolwise resume {folder.path} first"
        )
    return state


def rank(
    experiment: Experiment, folder: RunFolder, listener: Listener, state: SearchState | None = None
) -> dict[str, Any]:
    """Score the configurations of a finished search and write ``ranking.json``.

    In a space larger than RANKED_CONFIGURATIONS, only the default and the configurations that the search visited are
    scored; of more than LISTED visited ones, those with the highest scores in the search. With ``config.ranking.beam``, those
    that a beam search over pooling positions reaches are scored instead.

    Args:
        experiment: Experiment of the run.
        folder: Folder of the run.
        listener: Receives progress and notes.
        state: State of the search. By default it is read from the checkpoint in ``folder``.

    Returns:
        The content of ``ranking.json``.

    Raises:
        RequestError: If the search is not finished.
    """
    state = state or finished_search(experiment, folder)
    scored = (
        _beamed(experiment, state, listener) if experiment.config.ranking.beam else _plain(experiment, state, listener)
    )
    listener.finish()
    if len(scored.poolings) < experiment.space.size:
        listener.note(coverage(experiment, len(scored.poolings)))
    value = ranking.write(
        folder,
        describe(experiment, state, scored, proxy_training.scores(experiment, folder)),
        experiment.config.ranking.fusion,
    )
    if "short" in value:
        listener.note(value["short"]["said"])
    return value


@dataclass(frozen=True)
class Scored:
    """Scored configurations, in the order of the space.

    Attributes:
        poolings: P configurations.
        panel: The SuperNets that scored them.
        right_NP: Correctly classified images per batch and configuration.
        rounds: Groups of configurations that ran together, so that common prefixes were computed once.
    """

    poolings: list[Pooling]
    panel: Panel
    right_NP: np.ndarray
    rounds: list[list[Pooling]]


def _plain(experiment: Experiment, state: SearchState, listener: Listener) -> Scored:
    """Score the entire space, or the visited configurations of a large one, in one round."""
    poolings = _covered(experiment, state)
    listener.start("rank", _batch_count(experiment, state))
    panel, right_NP = _run(experiment, state, poolings, listener)
    return Scored(poolings, panel, right_NP, [poolings])


def _beamed(experiment: Experiment, state: SearchState, listener: Listener) -> Scored:
    """Score the configurations that a beam search reaches, one round per level."""
    space, width = experiment.space, experiment.config.ranking.beam
    assert width is not None
    listener.start("rank", (space.poolings + 1) * _batch_count(experiment, state))
    right: dict[Pooling, np.ndarray] = {}
    rounds: list[list[Pooling]] = []

    def score(poolings: Sequence[Pooling]) -> np.ndarray:
        rounds.append(list(poolings))
        panel, right_NP = _run(experiment, state, poolings, listener)
        right.update(zip(poolings, right_NP.T, strict=True))
        return panel.scores(right_NP)

    draws = Streams(experiment.config.seed).child("rank")["beam"]
    poolings = list(beam(space, width, score, draws, [experiment.default]))
    panel = _panel(experiment, state, poolings)
    return Scored(poolings, panel, np.stack([right[pooling] for pooling in poolings], axis=1), rounds)


def _run(
    experiment: Experiment, state: SearchState, poolings: Sequence[Pooling], listener: Listener
) -> tuple[Panel, np.ndarray]:
    """Score ``poolings``. Return their panel and right_NP."""
    panel = _panel(experiment, state, poolings)
    networks = recalibrate(experiment, state.mixture.networks, poolings, panel.judge_TP[0], listener)
    return panel, score_all(experiment, networks, panel, listener)


def _batch_count(experiment: Experiment, state: SearchState) -> int:
    """Return the number of batches of the scoring half, including those for recalibration."""
    calibration = experiment.calibration_batches
    turns = state.sampler.turns(experiment.config.ranking.rank_on)
    return experiment.ranking_batches(turns).parts + (calibration.parts if calibration else 0)


def _panel(experiment: Experiment, state: SearchState, poolings: Sequence[Pooling]) -> Panel:
    return Panel(experiment, poolings, *state.sampler.judges_of(poolings, experiment.config.ranking.rank_on))


def _covered(experiment: Experiment, state: SearchState) -> list[Pooling]:
    """Return the configurations to rank, in the order of the space: all, or of a large space the best visited ones."""
    space = experiment.space
    if space.size <= RANKED_CONFIGURATIONS:
        return list(space)
    visited = [pooling for pooling, _ in state.sampler.leaders(LISTED)]
    return sorted({*visited, experiment.default})


def coverage(experiment: Experiment, scored: int) -> str:
    """Return a sentence that says which configurations are ranked."""
    config, size = experiment.config, experiment.space.size
    how = "the default and those that the search visited"
    if scored >= LISTED:  # of more visited configurations, the best are ranked
        how = f"the default and the {LISTED:,} with the highest scores among those that the search visited"
    if config.ranking.beam:
        how = f"the default and those that a beam search of width {config.ranking.beam} reached"
    return f"{scored:,} of {size:,} configurations are ranked: {how}"


def describe(
    experiment: Experiment, state: SearchState, scored: Scored, proxy_scores: dict[str, list[float]] | None = None
) -> dict[str, Any]:
    """Return the content of ``ranking.json`` in the order of the space, for ``ranking.arrange`` to put in ranked order.

    ``proxy_scores`` holds the scores of proxy trainings by configuration, if there are any.
    """
    poolings, panel, right_NP = scored.poolings, scored.panel, scored.right_NP
    supernet_P, assignment_PM = state.sampler.supernet_of(poolings), state.sampler.assignment_of(poolings)
    score_P, halves_2P = panel.scores(right_NP), panel.halves(right_NP)
    scores_PM, accuracy_TP = state.sampler.scores_of(poolings), panel.accuracies(right_NP)
    rows = [
        {
            "pooling": str(pooling),
            "score": float(score_P[a]),
            "halves": halves_2P[:, a].tolist(),
            "accuracies": accuracy_TP[:, a].tolist(),
            **({"shared": float(score_P[a]), "short": proxy_scores[str(pooling)]} if proxy_scores else {}),
            "supernet": int(supernet_P[a]),
            "assignment": assignment_PM[a].tolist(),
            "scores": scores_PM[a].tolist(),
            **experiment.cost(pooling).to_json(),
        }
        for a, pooling in enumerate(poolings)
    ]
    return {
        "format": FORMAT,
        "space": experiment.space.to_json(),
        "configurations": experiment.space.size,
        "covered": len(poolings),
        **({"coverage": coverage(experiment, len(poolings))} if len(poolings) < experiment.space.size else {}),
        "default": str(experiment.default),
        "operator": experiment.family.operator,
        "ranking": rows,
        "settings": experiment.config.to_flat(),
        "precision": str(state.mixture.precision),
        **({"short": proxy_budget(experiment)._asdict()} if proxy_scores else {}),
        "spent": {"search_macs": state.macs + proxy_macs(experiment), "rank_macs": _macs(experiment, state, scored)},
        "supernets": state.sampler.supernets,
        **({"branching": state.checks} if state.checks else {}),
        "evaluation_batch": experiment.ranking_batches(panel.turns).batch_size,
        **_recalibration(experiment),
        "data": experiment.describe_data(),
        **environment(),
    }


def _recalibration(experiment: Experiment) -> dict[str, Any]:
    """Return the number of images used to recalibrate BatchNorm and their batch size, or {} without recalibration."""
    batches = experiment.calibration_batches
    return {"recalibration": {"images": len(batches), "batch": batches.batch_size}} if batches else {}


def _macs(experiment: Experiment, state: SearchState, scored: Scored) -> int:
    """Return the MACs of the scoring. Each SuperNet computes a prefix once per batch and round."""
    panel, total = scored.panel, 0
    seen_T = [int(panel.images_N[panel.turn_N == turn].sum()) for turn in range(panel.turns)]
    # images for recalibration, which requires a single turn
    seen_T[0] += experiment.ranked_images() - len(experiment.halves[1])
    for poolings in scored.rounds:
        judge_TP, _ = state.sampler.judges_of(poolings, experiment.config.ranking.rank_on)
        for judge_P, images in zip(judge_TP, seen_T, strict=True):
            total += images * scoring_macs(experiment, poolings, judge_P)
    return total
