"""From scores to ranking.json: the estimate, its uncertainty, the order and the picks. Reads and writes files only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.stats import binomtest

from poolwise.config import Config
from poolwise.spaces import Pooling
from poolwise.statistics import Fused, Together, fuse, fuse_parts, kendall_tau_b, smooth, three_picks, together
from poolwise.storage import RunFolder

OUTPUT = "ranking.json"
TOP = 3


def write(folder: RunFolder, value: dict[str, Any], fusion: bool | None) -> dict[str, Any]:
    """Put what was scored in order and write it; stand-alone trainings that the run already holds are used."""
    value = arrange(value, fusion, trained(folder))
    folder.write_json(OUTPUT, value)
    return value


def trained(folder: RunFolder) -> dict[str, float]:
    """Mean test accuracy of each configuration that the run trained stand-alone, at the greatest length of any."""
    if not (folder.path / "trials.sqlite").exists():
        return {}
    done = [trial for trial in folder.trials().all() if trial["state"] == "done"]
    longest = max((trial["budget"] for trial in done), default=0)
    found: dict[str, list[float]] = {}
    for trial in done:
        if trial["budget"] == longest:
            found.setdefault(trial["pooling"], []).append(trial["accuracy"])
    return {pooling: float(np.mean(own)) for pooling, own in found.items()}


def arrange(value: dict[str, Any], fusion: bool | None, trials: Mapping[str, float] | None = None) -> dict[str, Any]:
    """The content of ranking.json, best first, from the same in any order.

    ``fusion`` ranks by the estimate of ``metrics.fuse`` or, with short trainings, ``metrics.fuse_parts``; without, by scores as
    they are (as published), and the estimate is one of scores alone. With None it is on where short trainings are more than
    noise. The score of a configuration is then what shared weights and short trainings say together, smoothed over
    neighbouring placements. Ties in what is ranked by go to fewer MACs, then to the order of the space.
    """
    rows = sorted(value["ranking"], key=lambda row: Pooling.parse(row["pooling"]))
    both = _both(value, rows)
    used = both is not None and both.used
    if fusion is None:
        fusion = used
    fused = _fused(rows, fusion, trials or {}, both if used else None)
    images = value["data"]["scoring_half"]
    chances_P, groups_P = fused.top(TOP), fused.ties()
    for a, row in enumerate(rows):
        right = round(float(np.clip(row["score"], 0, 1)) * images)  # gains over a mean can lead a little beyond
        measured = binomtest(right, images)
        low, high = measured.proportion_ci(method="wilson")
        row |= {
            "interval": [float(low), float(high)],
            "smoothed": float(fused.smoothed[a]),
            "estimate": float(fused.estimate[a]),
            f"top{TOP}": float(chances_P[a]),
            "tie": int(groups_P[a]),
        }
    by = "estimate" if fusion else "score"
    rows.sort(key=lambda row: (-row[by], row["macs"], Pooling.parse(row["pooling"])))
    for place, row in enumerate(rows, start=1):
        row["rank"] = place
    allowed = Config.from_flat(value["settings"]).pickable(row["pooling"] for row in rows)
    return {
        **value,
        **({"short": _told(value["short"], both)} if both else {}),
        "picks": three_picks(rows, value["default"], "estimate", allowed),
        "ranked_by": by,
        "fusion": {
            "error": fused.error,
            "scores": asdict(fused.scores),
            "productive": asdict(fused.count) if fused.count else None,
            "agreement": fused.agreement,
            "trainings": len(trials or {}),
            **({"shares": dict(fused.shares), "said": _shares(fused.shares)} if fused.shares else {}),
        },
        "ranking": rows,
        "controls": {name: _control(rows, name) for name in ("macs", "productive")},
    }


def parts(rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """shared_P and own_P: accuracy on shared weights, and the mean score of short trainings."""
    return np.array([row["shared"] for row in rows]), np.array([np.mean(row["short"]) for row in rows])


def _both(value: dict[str, Any], rows: list[dict[str, Any]]) -> Together | None:
    """Shared weights and short trainings together, the scores of the rows set accordingly; None where there are no trainings."""
    if "short" not in value:
        return None
    poolings = [Pooling.parse(row["pooling"]) for row in rows]
    shared_P, own_P = parts(rows)
    both = together(poolings, shared_P, own_P)
    score_P = np.clip(smooth(poolings, both.scores).scores, 0, 1) if both.used else shared_P
    for row, score in zip(rows, score_P, strict=True):
        row["score"] = float(score)
    return both


def _told(short: dict[str, Any], both: Together) -> dict[str, Any]:
    """What short trainings are worth."""
    trainings = f"{short['seeds']} short training{'' if short['seeds'] == 1 else 's'} of {short['length']} steps"
    said = f"{trainings} of every configuration: their losses {both}"
    return {"length": short["length"], "seeds": short["seeds"], "used": both.used, "said": said}


def _shares(shares: Mapping[str, float]) -> str:
    """Which part has which share."""
    names = {
        "short": "short trainings",
        "shared": "accuracy on shared weights",
        "productive": "productive convolutions",
    }
    return ", ".join(f"{names[part]} ({100 * share:.0f} %)" for part, share in shares.items())


def _fused(rows: list[dict[str, Any]], fusion: bool, trials: Mapping[str, float], both: Together | None) -> Fused:
    """``both``: shared weights and short trainings, where these count."""
    poolings = [Pooling.parse(row["pooling"]) for row in rows]
    count_P = np.array([row["productive"] for row in rows], float) if fusion else None
    known = {a: trials[row["pooling"]] for a, row in enumerate(rows) if row["pooling"] in trials}
    if both is not None:
        return fuse_parts(poolings, both, count_P, known)
    score_P, halves = np.array([row["score"] for row in rows]), [row.get("halves") for row in rows]
    halves_2P = np.array(halves).T if halves[0] else None
    return fuse(poolings, score_P, count_P, halves_2P, known, smoothing=fusion)


def _control(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """A ranking that cost nothing: most first, ties in the order of the space; and its agreement with the scores."""
    order = sorted(rows, key=lambda row: (-row[name], Pooling.parse(row["pooling"])))
    tau = kendall_tau_b([row[name] for row in rows], [row["score"] for row in rows])
    return {"ranking": [row["pooling"] for row in order], "tau_with_score": tau}
