"""What a sampler is given: its task, and the surveys that it asks for.

Legend: P configurations of the space, B scoring batches of a survey.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from poolwise.spaces import PoolingSpace


class OutOfTurn(RuntimeError):
    """Raised when ``tell`` or ``tell_group`` does not match the oldest pending ask, or a survey is not where it is due."""


@dataclass(frozen=True)
class Surveys:
    """The surveys that a method asks for. They are evenly spaced over the steps after the warm-up; the first one starts them.

    Attributes:
        count: Number of surveys in a search.
        batches: Scoring batches of each survey, B.
        most: Size of the largest space that the method accepts, because all configurations are scored.
        outputs: Whether the survey includes class probabilities.
    """

    count: int
    batches: int
    most: int
    outputs: bool = False


@dataclass(frozen=True)
class Survey:
    """Result of scoring all configurations, each on its most probable SuperNet, on the same scoring batches.

    Attributes:
        accuracies_PB: Accuracy of each configuration on each batch, float64, 0 to 1.
        outputs_PV: Class probabilities of each configuration for all images, float32, V = images x classes. None if the
            method does not ask for them.
    """

    accuracies_PB: np.ndarray
    outputs_PV: np.ndarray | None = None


@dataclass(frozen=True)
class Task:
    """Arguments of every sampler.

    Attributes:
        space: The configurations.
        supernets: Requested number of SuperNets. Methods that use a single SuperNet ignore it.
        steps: Length of the search, over which the temperature rises.
        temperature: Temperature at the start and at the end.
        draw: ``rounds`` visits every configuration once before any is repeated; ``iid`` draws independently.
        draws, assigns: Random generators for the configuration and for the SuperNet.
        warm_up: Share of the steps (0 to 1) at the start that draw uniformly, for methods that favor good configurations.
            With several SuperNets, the first one trains alone for this share; the others then start as copies of it.
        grows: Start with one SuperNet and allow ``double`` up to ``supernets``.
        group: Maximum number of configurations that ``ask_group`` returns.
    """

    space: PoolingSpace
    supernets: int
    steps: int
    temperature: tuple[float, float]
    draw: str
    draws: np.random.Generator
    assigns: np.random.Generator
    warm_up: float = 0.0
    grows: bool = False
    group: int = 1
