"""The shape of each file, by its name: as much as is read of it, so that what other versions add or lack elsewhere is let be."""

from __future__ import annotations

from typing import Any

from poolwise.errors import RequestError
from poolwise.shapes.check import Shape, check, each, maybe, number, pooling, space, whole_of
from poolwise.space import Pooling, read

_COUNT, _SHARE = number(0), number(-1, 2, whole=False)
_INTERVAL = (float, float)
_IMAGES = {
    "name": str,
    "fingerprint": str,
    "classes": [str],
    "image_size": number(1, 100_000),
    "training_half": number(1),
    "scoring_half": number(1),
    "note?": str,
}
_ENVIRONMENT = {
    "versions": each(str),
    "hardware": {"processor": str, "threads": _COUNT, "accelerator?": maybe(str)},
}
_PARALLEL = {"workers": number(1, 1024), "threads": number(1, 4096), "slowdown?": number(0, 1e6, whole=False)}

# of a run that trains or ranks; a folder of stand-alone trials within a comparison has fewer
REQUEST = {
    "settings": dict,
    "stages": [str],
    "commands": [str],
    "space": space,
    "default": pooling,
    "data": {**_IMAGES, "mean?": maybe([float]), "std?": maybe([float])},
    "weights?": {"from": str, "sha256": str, "for": str, "anew": [str]},
    "calibration": {"precision": str, "parallel": _PARALLEL, "block?": maybe(number(1))},
    **_ENVIRONMENT,
}
_RUN = {
    "settings?": dict,
    "stages?": [str],
    "commands?": [str],
    "poolings?": maybe([pooling]),
    "limits?": {"latency_ms?": each(float)},
}

_ROW = {
    "pooling": pooling,
    "score": _SHARE,
    "halves?": maybe([_SHARE]),
    "accuracies?": [_SHARE],
    "shared?": _SHARE,
    "short?": [float],
    "supernet": number(0, 10_000),
    "macs": number(1),
    "macs_ratio": number(1e-9, 1e9, whole=False),
    "activation_bytes": _COUNT,
    "receptive_field": _COUNT,
    "productive": _COUNT,
    "interval?": _INTERVAL,
    "smoothed?": float,
    "estimate?": float,
    "top3?": float,
    "tie?": _COUNT,
    "rank?": _COUNT,
}
_RANKING = {
    "space": space,
    "default": pooling,
    "ranking": [_ROW],
    "picks": each(pooling),
    "short?": {"length": _COUNT, "seeds": _COUNT, "used": bool, "said": str},
    "branching?": [{"step": _COUNT, "supernets": number(1, 10_000), "said": str}],
    "supernets?": number(1, 10_000),
    "ranked_by?": str,
    "settings": dict,
    "data": _IMAGES,
    "spent": each(_COUNT),
    "precision": str,
    "evaluation_batch": number(1),
    **_ENVIRONMENT,
}
_WEIGHTS = {"reliability": float, "weight": float}
# what a page or a table at the terminal shows beside
_PICKS = {"best": pooling, "best_at_default_macs": pooling, "best_for_cost": pooling}
RANKED = {
    "picks": _PICKS,
    "ranked_by": str,
    "ranking": [
        dict.fromkeys(("smoothed", "estimate", "top3"), float) | {"interval": _INTERVAL, "tie": int, "rank": int}
    ],
    "fusion": {
        "error": float,
        "scores": _WEIGHTS,
        "productive": maybe({"weight": float}),
        "said?": str,
        "agreement": maybe(float),
        "trainings": _COUNT,
    },
    "controls": each({"tau_with_score": float}),
}

_REFINE = {
    "default": pooling,
    "steps": number(1),
    "images": {"training": _COUNT, "scoring": _COUNT},
    "trials": [{"pooling": pooling, "seed": _COUNT, "steps": number(1), "accuracy": maybe(float)}],
    "hints": each({"weight": float}),
    "noise": float,
    "stopped": str,
    "picks": _PICKS,
    "configurations": [
        {
            "pooling": pooling,
            "expected": float,
            "interval": _INTERVAL,
            "best": float,
            "trainings": _COUNT,
            "macs": number(1),
            "macs_ratio": number(1e-9, 1e9, whole=False),
            "front": each(float),
        }
    ],
}

_COMPARISON = {"difference": float, "interval": maybe(_INTERVAL), "sentence": str}
_RETRAIN = {
    "verdict": str,
    "default": pooling,
    "steps": number(1),
    "training_images": _COUNT,
    "test_images": _COUNT,
    "results": [
        {
            "pooling": pooling,
            "roles": [str],
            "accuracies": [float],
            "mean": float,
            "std": maybe(float),
            "macs_ratio": float,
            "comparison?": _COMPARISON,
        }
    ],
    "equal_cost": [{"comparison": {"sentence": str}, "training_macs_ratio": float}],
}

_EXHAUSTIVE = {
    "space": space,
    "steps": number(1),
    "seeds": [_COUNT],
    "results": [{"pooling": pooling, "accuracies": [maybe(float)], "mean": maybe(float), "std": maybe(float)}],
    "failed": [{"pooling": pooling, "seed": _COUNT, "error": str}],
    "noise?": maybe(float),
    "ceiling?": maybe(float),
    "settings": {"model": str, "width": maybe(_COUNT)},
    "data": {"test": _COUNT},
}

TABLE = {
    "space": space,
    "steps?": number(1),
    "model?": str,
    "width?": maybe(number(1, 1_000_000)),
    "source?": str,
    "seeds?": maybe([_COUNT]),
    "precision?": str,
    "data?": {"image_size?": number(1, 100_000), "classes?": [str], "fingerprint?": maybe(str)},
    "recipe?": maybe({"batch_size?": number(1)}),
}
_STUDY = {"table": str, "commands?": [str], "recipe?": dict, "precision?": str, "threads?": maybe(number(1, 4096))}
_TRIALS = {
    "scores": [float],
    "accuracies": bool,
    "spent_macs": _COUNT,
    "points": [{"spent_macs": _COUNT, "scores": [float]}],
}
_PROFILE = {"stage": str, "steps": number(1), "seconds": each(number(0, 1e12, whole=False))}

# one stand-alone training, as its SQLite row; a curve is [[step, loss], ...]
TRIAL = {
    "pooling": pooling,
    "seed": _COUNT,
    "budget": number(1),
    "accuracy": maybe(_SHARE),
    "curve": [(float, float)],
    "state": str,
    "seconds": maybe(float),
    "error": maybe(str),
}

EVENTS: dict[str, Shape] = {
    "stage": {"stage": str, "planned": maybe(float), "seconds": float},
    "search": {
        "step": _COUNT,
        "loss": float,
        "accuracy?": float,
        "entropy?": float,
    },
    "assignment": {"step": _COUNT, "assignment": [[_SHARE]]},
}


def _ranking(value: Any, where: str) -> None:
    """Types, and that names agree with each other."""
    check(value, _RANKING, where)
    members, seen = read(whole_of(value["space"])), set()
    for row in value["ranking"]:
        if Pooling.parse(row["pooling"]) not in members:
            raise RequestError(f"{where}{row['pooling']} is not in its space: the file is damaged")
        if row["pooling"] in seen:
            raise RequestError(f"{where}ranks {row['pooling']} twice: the file is damaged")
        seen.add(row["pooling"])
    if {len(row.get("halves") or ()) for row in value["ranking"]} not in ({0}, {2}):
        raise RequestError(f"{where}its rows have halves of the score for some alone: the file is damaged")
    _among(seen, {"default": value["default"], **value["picks"]}, where)


def _refine(value: Any, where: str) -> None:
    check(value, _REFINE, where)
    check(value["picks"], each(pooling), f"{where}picks")
    known = {row["pooling"] for row in value["configurations"]}
    _among(known, {"default": value["default"], **value["picks"]}, where)


def _among(known: set[str], named: dict[str, str], where: str) -> None:
    for name, one in named.items():
        if one not in known:
            raise RequestError(
                f"{where}{name} {Pooling.parse(one)} is not among its configurations: the file is damaged"
            )


_FILES: dict[str, Shape] = {
    "run.json": _RUN,
    "ranking.json": _ranking,
    "refine.json": _refine,
    "retrain.json": _RETRAIN,
    "exhaustive.json": _EXHAUSTIVE,
    "study.json": _STUDY,
    "trials.json": _TRIALS,
    "profile.json": _PROFILE,
}


def check_file(name: str, value: Any, where: str) -> None:
    """RequestError where the content of a file of this name cannot be what poolwise wrote; others are let be."""
    if name in _FILES:
        check(value, _FILES[name], f"{where}: ")
