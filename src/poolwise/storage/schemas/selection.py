"""``refine.json``, ``retrain.json`` and ``verdict.json``: the stand-alone trainings that select a configuration."""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator

from poolwise.storage.schemas.common import Environment, Picks, check_among
from poolwise.storage.schemas.fields import (
    Count,
    FileSchema,
    Interval,
    Number,
    Omittable,
    PoolingName,
    Positive,
    Ratio,
    Schema,
    Text,
)


class RefineImages(Schema):
    """Number of images that the trainings of refinement use, and of those that judge them."""

    training: Count
    scoring: Count


class RefineTrial(Schema):
    """One training of refinement; no accuracy where it failed."""

    pooling: PoolingName
    seed: Count
    steps: Positive
    accuracy: Number | None


class HintWeight(Schema):
    """How much of the accuracies a hint explains."""

    weight: Number


class RefineRow(Schema):
    """One configuration after refinement.

    Attributes:
        expected: expected accuracy on the scoring half, 0 to 1.
        interval: its 95 % interval.
        best: probability that it is the best.
        trainings: number of its stand-alone trainings.
        front: probability that it is best at no more than its cost, for each kind of cost.
    """

    pooling: PoolingName
    expected: Number
    interval: Interval
    best: Number
    trainings: Count
    macs: Positive
    macs_ratio: Ratio
    front: dict[str, Number]


class RefineFile(FileSchema):
    """``refine.json``."""

    FILE: ClassVar[str] = "refine.json"
    REMEDY: ClassVar[str] = "refine it first, poolwise refine {run}"

    default: PoolingName
    steps: Positive
    images: RefineImages
    trials: tuple[RefineTrial, ...]
    hints: dict[str, HintWeight]
    noise: Number
    stopped: Text
    picks: Picks
    configurations: tuple[RefineRow, ...]

    @model_validator(mode="after")
    def _names_agree(self) -> RefineFile:
        check_among({row.pooling for row in self.configurations}, {"default": self.default, **self.picks})
        return self


class PairedComparison(Schema):
    """A configuration compared to the default over paired seeds; difference and interval in points."""

    difference: Number
    interval: Interval | None
    sentence: Text


class RetrainRow(Schema):
    """One configuration that was retrained; accuracies on the test set, 0 to 1, one for each seed."""

    pooling: PoolingName
    roles: tuple[Text, ...]
    accuracies: tuple[Number, ...]
    mean: Number
    std: Number | None
    macs_ratio: Number
    comparison: Omittable[PairedComparison] = None


class Sentence(Schema):
    """The sentence of a comparison."""

    sentence: Text


class EqualCost(Schema):
    """The pick compared to the default at as many training MACs."""

    comparison: Sentence
    training_macs_ratio: Number


class RetrainFile(FileSchema):
    """``retrain.json``."""

    FILE: ClassVar[str] = "retrain.json"
    REMEDY: ClassVar[str] = "retrain it first, poolwise retrain {run}"

    verdict: Text
    default: PoolingName
    steps: Positive
    training_images: Count
    test_images: Count
    results: tuple[RetrainRow, ...]
    equal_cost: tuple[EqualCost, ...]


class VerdictComparison(PairedComparison):
    """A paired comparison and its verdict: better, worse, no worse or not shown."""

    verdict: Text


class VerdictRival(Schema):
    """The pick compared to the default at as many training MACs, by the name of that default."""

    name: Text
    training_macs_ratio: Number
    comparison: VerdictComparison


class VerdictOther(Schema):
    """Another retrained configuration compared to the default."""

    pooling: PoolingName
    roles: tuple[Text, ...]
    macs_ratio: Number
    comparison: VerdictComparison


class VerdictFile(FileSchema, Environment):
    """``verdict.json``: the result of a run on one page. No comparison where the default itself is the pick."""

    FILE: ClassVar[str] = "verdict.json"
    REMEDY: ClassVar[str] = "retrain it first, poolwise retrain {run}"

    verdict: Text
    sentence: Text
    pick: PoolingName
    default: PoolingName
    macs_ratio: Ratio
    margin: Number
    comparison: VerdictComparison | None
    looks: tuple[Count, Count] | None
    equal_cost: tuple[VerdictRival, ...]
    others: tuple[VerdictOther, ...]
    steps: Positive
    training_images: Count
    test_images: Count
