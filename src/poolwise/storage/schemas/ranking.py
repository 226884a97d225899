"""Schemas of ``ranking.json``: every configuration with its score and cost."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, Strict, model_validator

from poolwise.spaces import Pooling
from poolwise.storage.schemas.common import Environment, Images, Picks, Space, check_among
from poolwise.storage.schemas.fields import (
    Count,
    FileSchema,
    Flag,
    Interval,
    Number,
    Object,
    Omittable,
    PoolingName,
    Positive,
    Ratio,
    Schema,
    Share,
    SuperNets,
    Text,
    inconsistent,
)


class RankingRow(Schema):
    """One configuration of a ranking, written by any version.

    Attributes:
        score: accuracy on the scoring half (0 to 1), or a combination of several scores in that unit.
        halves: the score on each half of the scoring images.
        shared: accuracy with the shared weights only, if there are proxy trainings.
        short: negative mean training loss of each proxy training, in nats.
        supernet: index of the SuperNet that scored the configuration.
    """

    pooling: PoolingName
    score: Share
    halves: tuple[Share, ...] | None = None
    accuracies: Omittable[tuple[Share, ...]] = None
    shared: Omittable[Share] = None
    short: Omittable[tuple[Number, ...]] = None
    supernet: Annotated[int, Strict(), Field(ge=0, le=10_000)]
    macs: Positive
    macs_ratio: Ratio
    activation_bytes: Count
    receptive_field: Count
    productive: Count
    interval: Omittable[Interval] = None
    smoothed: Omittable[Number] = None
    estimate: Omittable[Number] = None
    top3: Omittable[Number] = None
    tie: Omittable[Count] = None
    rank: Omittable[Count] = None


class ProxyTrainings(Schema):
    """The proxy trainings of a search: steps per training, seeds, and whether the ranking uses them."""

    length: Count
    seeds: Count
    used: Flag
    summary: Text = Field(alias="said")


class BranchingCheck(Schema):
    """One decision on whether to split the SuperNets into more."""

    step: Count
    supernets: SuperNets
    summary: Text = Field(alias="said")


class RankingFile(FileSchema, Environment):
    """``ranking.json``, written by any version. All names are in the space, and no configuration occurs twice."""

    FILE: ClassVar[str] = "ranking.json"
    REMEDY: ClassVar[str] = "rank it first, poolwise rank {run}"

    space: Space
    default: PoolingName
    ranking: tuple[RankingRow, ...]
    picks: dict[str, PoolingName]
    short: Omittable[ProxyTrainings] = None
    branching: Omittable[tuple[BranchingCheck, ...]] = None
    supernets: Omittable[SuperNets] = None
    ranked_by: Omittable[Text] = None
    settings: Object
    data: Images
    spent: dict[str, Count]
    precision: Text
    evaluation_batch: Positive

    @model_validator(mode="after")
    def _names_agree(self) -> RankingFile:
        seen: set[str] = set()
        for row in self.ranking:
            if Pooling.parse(row.pooling) not in self.space.full:
                raise inconsistent(f"{row.pooling} is not in its space")
            if row.pooling in seen:
                raise inconsistent(f"ranks {row.pooling} twice")
            seen.add(row.pooling)
        if {len(row.halves or ()) for row in self.ranking} not in ({0}, {2}):
            raise inconsistent("has scores of the halves in only some rows")
        check_among(seen, {"default": self.default, **self.picks})
        return self


class CompleteRow(RankingRow):
    """One configuration of a complete ranking.

    Attributes:
        interval: 95% interval of the score.
        smoothed: score smoothed over neighbors.
        estimate: expected score.
        top3: probability of being among the three best, given the noise of the estimates.
        tie: index of a group in which no configuration is better than another with 90% probability, given that noise.
        rank: position in the ranking, starting at 1.
    """

    interval: Interval
    smoothed: Number
    estimate: Number
    top3: Number
    tie: Count
    rank: Count


class ScoreWeights(Schema):
    """Reliability of the scores and their weight in the estimate."""

    reliability: Number
    weight: Number


class CountWeight(Schema):
    """Weight of the number of productive convolutions in the estimate."""

    weight: Number


class Fusion(Schema):
    """The components of the estimate.

    Attributes:
        error: noise of an estimate: root mean squared difference from the prediction of its neighbors.
        productive: None if the ranking uses only scores.
        summary: description of the components, if there are others than scores and productive convolutions.
        agreement: correlation of the scores with the number of productive convolutions.
        trainings: number of stand-alone trainings that the estimate uses.
    """

    error: Number
    scores: ScoreWeights
    productive: CountWeight | None
    summary: Omittable[Text] = Field(None, alias="said")
    agreement: Number | None
    trainings: Count


class ControlAgreement(Schema):
    """Kendall tau-b between the scores and a ranking that needs no training."""

    tau_with_score: Number


class CompleteRanking(RankingFile):
    """``ranking.json`` with all fields that the report and the terminal table show."""

    ranking: tuple[CompleteRow, ...]
    picks: Picks
    ranked_by: Text
    coverage: Omittable[Text] = None
    fusion: Fusion
    controls: dict[str, ControlAgreement]


class HintRow(Schema):
    """One configuration of a ranking that is used as a hint."""

    pooling: Text
    smoothed: Number


class HintRanking(Schema):
    """The part of ``ranking.json`` that a simulation reads."""

    ranking: tuple[HintRow, ...]
    spent: dict[str, Count]
