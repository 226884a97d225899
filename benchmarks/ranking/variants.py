"""The variants that the laboratory tries, and the stages that drop them.

A variant is written as for ``poolwise compare --methods``. Each differs from its neighbors by one thing.
"""

from __future__ import annotations

from dataclasses import dataclass

BRANCH = "mixture@draw=rounds;warm_up=0.5"

VARIANTS = {
    "one SuperNet, fair rounds": "fairnas",
    "one SuperNet, independent draws": "spos",
    "M = 4 as published": "mixture",
    "M = 4, fair rounds": "mixture@draw=rounds",
    "M = 4, fair rounds, ranked on all": "mixture@draw=rounds;rank_on=all",
    "M = 4 that never specialise, ranked on all": "mixture@draw=rounds;temperature=0;temperature_start=0;rank_on=all",
    "M = 4, branched at a half": BRANCH,
    "M = 4, branched at a half, ranked on all": f"{BRANCH};rank_on=all",
    "M = 4, branched at 0.3, ranked on all": "mixture@draw=rounds;warm_up=0.3;rank_on=all",
    "M = 4, branched at 0.7, ranked on all": "mixture@draw=rounds;warm_up=0.7;rank_on=all",
    "M = 2, branched at a half, ranked on all": f"{BRANCH};supernets=2;rank_on=all",
    "M = 8, branched at a half, ranked on all": f"{BRANCH};supernets=8;rank_on=all",
    "M = 4, branched, lower temperature, ranked on all": f"{BRANCH};temperature=20;rank_on=all",
    "M = 4, branched, parts by first pooling": "partition-first@draw=rounds;warm_up=0.5;rank_on=all",
    "M = 4, branched, random parts": "partition-random@draw=rounds;warm_up=0.5;rank_on=all",
    "M = 4, branched, affine norms by depth": f"{BRANCH};norm=affine;rank_on=all",
    "M = 4, branched, affine norms by depth, parts by first pooling": "partition-first@draw=rounds;warm_up=0.5;norm=affine",
    "one SuperNet, fair rounds, affine norms by depth": "fairnas@norm=affine",
    "one SuperNet, fair rounds, recalibrated norms": "fairnas@norm=recalibrated",
    "branched into 12 parts": "partition-first@supernets=12;draw=rounds;warm_up=0.5",
    "branched into every configuration at 0.3": "partition-first@supernets=36;draw=rounds;warm_up=0.3",
    "branched into every configuration at 0.5": "partition-random@supernets=36;draw=rounds;warm_up=0.5",
    "branched into every configuration at 0.7": "partition-first@supernets=36;draw=rounds;warm_up=0.7",
    "branched into every configuration, affine norms": "partition-random@supernets=36;draw=rounds;warm_up=0.5;norm=affine",
    "branched into every configuration, recalibrated": "partition-first@supernets=36;draw=rounds;warm_up=0.5;norm=recalibrated",
    "half the steps for proxy trainings": "fairnas@norm=affine;short=0.5",
    "the default": "fairnas@norm=affine;short=auto",
}


@dataclass(frozen=True)
class Stage:
    """The budgets and seeds that a stage adds, and the share of its variants that it keeps for the next."""

    name: str
    budgets: tuple[int, ...]
    seeds: tuple[int, ...]
    keep: float


STAGES = (
    Stage("screen", (1560,), (0,), 0.5),
    Stage("seeds", (1560,), (0, 1, 2), 0.1),  # each of the rest takes three times as long
    Stage("budgets", (780, 1560, 4680), (0, 1, 2), 1.0),
)
ALWAYS = ("one SuperNet, fair rounds", "M = 4 as published", "the default")  # reported in the docs, so never dropped
