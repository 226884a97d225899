"""Schemas of ``refine.json``, ``retrain.json`` and ``verdict.json``, which select a configuration."""

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
    """Numbers of images for training and for scoring in the refine stage."""

    training: Count
    scoring: Count


class RefineTrial(Schema):
    """One training of the refine stage; the accuracy is None if it failed."""

    pooling: PoolingName
    seed: Count
    steps: Positive
    accuracy: Number | None


class HintWeight(Schema):
    """Weight of a hint: how much of the accuracies it explains."""

    weight: Number


class RefineRow(Schema):
    """One configuration after refinement.

    Attributes:
        expected: expected accuracy on the scoring half, 0 to 1.
        interval: 95% interval of that accuracy.
        best: probability that the configuration is the best.
        trainings: number of its stand-alone trainings.
        front: for each kind of cost, the probability that it is the best among those that cost no more.
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
    """``refine.json``: the result of the refine stage."""

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
    """A configuration compared to the default over paired seeds; difference and interval in percentage points."""

    difference: Number
    interval: Interval | None
    sentence: Text


class RetrainRow(Schema):
    """One retrained configuration; accuracies on the test set (0 to 1), one per seed."""

    pooling: PoolingName
    roles: tuple[Text, ...]
    accuracies: tuple[Number, ...]
    mean: Number
    std: Number | None
    macs_ratio: Number
    comparison: Omittable[PairedComparison] = None


class Sentence(Schema):
    """The sentence that describes a comparison."""

    sentence: Text


class EqualCost(Schema):
    """The pick compared to the default at equal training MACs."""

    comparison: Sentence
    training_macs_ratio: Number


class RetrainFile(FileSchema):
    """``retrain.json``: the result of the retrain stage."""

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
    """A paired comparison with its verdict: better, worse, no worse or not shown."""

    verdict: Text


class VerdictRival(Schema):
    """The pick compared to the default at equal training MACs; ``name`` identifies that default."""

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
    """``verdict.json``: the summary of a run. ``comparison`` is None if the pick is the default."""

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
