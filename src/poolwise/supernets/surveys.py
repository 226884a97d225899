"""Score all configurations at a step of the search, for samplers that ask for it (``samplers.Surveys``).

A survey runs between two blocks, in this process. It draws its scoring batches from random streams of its own, so a search
that is resumed before a survey repeats it identically, and no other draw depends on it.

Legend: P configurations, B scoring batches of I images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from poolwise.datasets.batches import Shuffled
from poolwise.models.supernet import SwitchableNet
from poolwise.parallelism import for_search
from poolwise.process import threads_here
from poolwise.spaces import Pooling
from poolwise.supernets.budget import one_survey_macs, scoring_macs
from poolwise.supernets.samplers import Survey, Surveys
from poolwise.supernets.state import SearchState
from poolwise.training import Precision, count_correct


def survey_when_due(state: SearchState, check_stop: Callable[[], None] = lambda: None) -> None:
    """Score all configurations and pass the result to the sampler, if it asks for a survey before the current step.

    Args:
        state: State of the search. A record of the survey is appended to its ``surveys``.
        check_stop: Called before every scoring batch. It may raise; the state is then unchanged.
    """
    due, surveys = state.sampler.next_survey, state.sampler.surveys
    if due is None or due > state.step:
        return
    assert surveys is not None
    poolings = list(state.experiment.space)
    supernet_P = state.sampler.supernet_of(poolings)
    with state.watch("scoring"), threads_here(for_search(state.experiment).threads):
        survey = _score(state, surveys, poolings, supernet_P, check_stop)
    macs = one_survey_macs(state.experiment, surveys, scoring_macs(state.experiment, poolings, supernet_P))
    state.sampler.learn_survey(survey)
    state.macs += macs
    accuracy_P = survey.accuracies_PB.mean(axis=1)
    best = int(accuracy_P.argmax())
    state.surveys.append(
        {
            "step": state.step,
            "macs": macs,
            "accuracies": accuracy_P.tolist(),
            "said": f"after {state.step:,} steps: all {len(poolings):,} configurations scored on {surveys.batches} batches; the"
            f" best is {poolings[best]} ({accuracy_P[best]:.1%}), the mean {accuracy_P.mean():.1%}",
        }
    )


def _score(
    state: SearchState,
    surveys: Surveys,
    poolings: Sequence[Pooling],
    supernet_P: np.ndarray,
    check_stop: Callable[[], None],
) -> Survey:
    """Score ``poolings``, each on its SuperNet, on the same batches of the size of a training batch."""
    experiment = state.experiment
    half = experiment.batches(experiment.training_images, experiment.config.training.batch_size, experiment.halves[1])
    streams = state.streams.child(f"survey{len(state.surveys)}")
    batches, right_BP, outputs_BPV = Shuffled(half, streams["score_order"]), [], []
    for _ in range(surveys.batches):
        check_stop()
        images_BCHW, labels_B = batches.next()
        shape = (len(poolings), len(labels_B) * len(experiment.source.classes)) if surveys.outputs else (0, 0)
        right_P, outputs_PV = np.zeros(len(poolings), np.int64), np.zeros(shape, np.float32)
        for m, network in enumerate(state.mixture.networks):
            members = [a for a in range(len(poolings)) if supernet_P[a] == m]
            if members:
                right_P[members] = _right_of(
                    network,
                    [poolings[a] for a in members],
                    (images_BCHW, labels_B),
                    experiment.precision,
                    (outputs_PV, members) if surveys.outputs else None,
                )
        right_BP.append(right_P)
        outputs_BPV.append(outputs_PV)
    accuracies_PB = np.stack(right_BP, axis=1) / half.batch_size
    return Survey(accuracies_PB, np.concatenate(outputs_BPV, axis=1) if surveys.outputs else None)


def _right_of(
    network: SwitchableNet,
    poolings: Sequence[Pooling],
    batch: tuple[Tensor, Tensor],
    precision: Precision,
    outputs: tuple[np.ndarray, list[int]] | None,
) -> list[int]:
    """Count the correct images of a batch. Write class probabilities to the rows of ``outputs`` (array, row of each pooling)."""

    def keep(members: Sequence[int], logits_BK: Tensor) -> None:
        assert outputs is not None
        outputs_PV, row_P = outputs
        outputs_PV[[row_P[a] for a in members]] = logits_BK.float().softmax(dim=1).flatten().cpu().numpy()

    return count_correct(network, poolings, *batch, precision, keep if outputs else None)
