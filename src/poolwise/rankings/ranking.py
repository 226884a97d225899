"""Turn scores into ranking.json: the estimate, its uncertainty, the order and the picks. No network is run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import binomtest

from poolwise.config import Config
from poolwise.rankings.combine import Estimate, ProxyScores, combine, with_proxy_trainings
from poolwise.rankings.smoothing import smooth
from poolwise.spaces import Pooling
from poolwise.statistics import kendall_tau_b, three_picks
from poolwise.storage import RunFolder
from poolwise.storage.schemas import RankingFile

TOP = 3


def write(folder: RunFolder, value: dict[str, Any], fusion: bool | None) -> dict[str, Any]:
    """Rank scored configurations and write ranking.json, using stand-alone trainings that the run already contains."""
    value = arrange(value, fusion, trained(folder))
    folder.write_json(RankingFile.FILE, value)
    return value


def trained(folder: RunFolder) -> dict[str, float]:
    """Return the mean accuracy of each stand-alone trained configuration, over the trials with the most steps."""
    if not (folder.path / "trials.sqlite").exists():
        return {}
    done = [trial for trial in folder.trials().all() if trial["state"] == "done"]
    longest = max((trial["budget"] for trial in done), default=0)
    accuracies: dict[str, list[float]] = {}
    for trial in done:
        if trial["budget"] == longest:
            accuracies.setdefault(trial["pooling"], []).append(trial["accuracy"])
    return {pooling: float(np.mean(values)) for pooling, values in accuracies.items()}


def arrange(value: dict[str, Any], fusion: bool | None, trials: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Return the content of ranking.json with its rows ordered best first.

    If proxy trainings are more than noise, the score of a configuration combines its accuracy on shared weights with them
    and is smoothed over neighboring configurations. Ties go to fewer MACs, then to the order of the space.

    ``interval`` is the 95 % Wilson interval of an accuracy that equals the score, measured on the images of the scoring
    half. If the score includes proxy trainings and smoothing, it does not include their errors.

    Args:
        value: Content of ranking.json with its rows in any order. It is not modified.
        fusion: True ranks by the estimate of ``combine`` from scores and productive convolutions; False ranks by the
            scores, as published; None ranks by the estimate if proxy trainings are more than noise.
        trials: Mean accuracy of stand-alone trainings by configuration.
    """
    rows = sorted((dict(row) for row in value["ranking"]), key=lambda row: Pooling.parse(row["pooling"]))
    both = _apply_proxies(value, rows)
    used = both is not None and both.used
    if fusion is None:
        fusion = used
    combined = _combined(rows, fusion, trials or {}, both if used else None)
    images = value["data"]["scoring_half"]
    chances_P, groups_P = combined.top(TOP), combined.ties()
    for a, row in enumerate(rows):
        right = round(float(np.clip(row["score"], 0, 1)) * images)  # averaged gains can leave [0, 1] slightly
        measured = binomtest(right, images)
        low, high = measured.proportion_ci(method="wilson")
        row |= {
            "interval": [float(low), float(high)],
            "smoothed": float(combined.smoothed_P[a]),
            "estimate": float(combined.estimate_P[a]),
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
        **({"short": _proxy_summary(value["short"], both)} if both else {}),
        "picks": three_picks(rows, value["default"], "estimate", allowed),
        "ranked_by": by,
        "fusion": {**_fusion(combined), "trainings": len(trials or {})},
        "ranking": rows,
        "controls": {name: _control(rows, name) for name in ("macs", "productive")},
    }


def parts(rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Return shared_P, the accuracies on shared weights, and proxy_P, the mean scores of proxy trainings."""
    return np.array([row["shared"] for row in rows]), np.array([np.mean(row["short"]) for row in rows])


def _apply_proxies(value: dict[str, Any], rows: list[dict[str, Any]]) -> ProxyScores | None:
    """Combine shared weights and proxy trainings and set the scores of ``rows``. Return None without proxy trainings."""
    if "short" not in value:
        return None
    poolings = [Pooling.parse(row["pooling"]) for row in rows]
    shared_P, proxy_P = parts(rows)
    both = with_proxy_trainings(poolings, shared_P, proxy_P)
    score_P = np.clip(smooth(poolings, both.scores_P).scores, 0, 1) if both.used else shared_P
    for row, score in zip(rows, score_P, strict=True):
        row["score"] = float(score)
    return both


def _proxy_summary(budget: dict[str, Any], both: ProxyScores) -> dict[str, Any]:
    """Return the summary of the proxy trainings: length, seeds, whether they are used, and a sentence."""
    trainings = f"{budget['seeds']} proxy training{'' if budget['seeds'] == 1 else 's'} of {budget['length']} steps"
    message = f"{trainings} per configuration: their scores {both}"
    return {"length": budget["length"], "seeds": budget["seeds"], "used": both.used, "said": message}


_PARTS = {
    "short": "proxy trainings",
    "shared": "accuracy on shared weights",
    "scores": "accuracy on shared weights",
    "productive": "productive convolutions",
}


def _fusion(combined: Estimate) -> dict[str, Any]:
    """Return the error of the estimate, and the reliability and share of each part."""
    count = combined.shares.get("productive", 0.0)
    value: dict[str, Any] = {
        "error": combined.error,
        "scores": {"reliability": combined.reliability, "weight": 1 - count},
        "productive": None,
        "agreement": combined.agreement,
    }
    if combined.count_reliability is not None:
        value["productive"] = {"reliability": combined.count_reliability, "weight": count}
        value["shares"] = dict(combined.shares)
        value["said"] = ", ".join(f"{_PARTS[part]} ({100 * share:.0f} %)" for part, share in combined.shares.items())
    return value


def _combined(
    rows: list[dict[str, Any]], fusion: bool, trials: Mapping[str, float], both: ProxyScores | None
) -> Estimate:
    """Return the estimate of each row. ``both`` is None unless proxy trainings are used."""
    poolings = [Pooling.parse(row["pooling"]) for row in rows]
    count_P = np.array([row["productive"] for row in rows], float) if fusion else None
    trained = {a: trials[row["pooling"]] for a, row in enumerate(rows) if row["pooling"] in trials}
    if both is not None:
        return combine(poolings, both, count_P, trained=trained)
    score_P, halves = np.array([row["score"] for row in rows]), [row.get("halves") for row in rows]
    return combine(poolings, score_P, count_P, halves_2P=np.array(halves).T if halves[0] else None, trained=trained)


def _control(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return the ranking by a count, highest first with ties in the order of the space, and its tau-b with the scores."""
    order = sorted(rows, key=lambda row: (-row[name], Pooling.parse(row["pooling"])))
    tau = kendall_tau_b([row[name] for row in rows], [row["score"] for row in rows])
    return {"ranking": [row["pooling"] for row in order], "tau_with_score": tau}
