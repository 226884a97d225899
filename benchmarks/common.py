"""Helpers that all benchmarks share: where results are written, and how repeats are summarized."""

from __future__ import annotations

import csv
import datetime
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from poolwise.storage import environment

RESULTS = Path(__file__).parent / "results"


def record(what: str, rows: Sequence[dict[str, Any]]) -> Path:
    """Write ``results/<what>_<hardware>_<torch>_<date>.csv``; every row also has the hardware, versions and date."""
    info, today = environment(), str(datetime.date.today())
    hardware = re.sub(r"[^a-z0-9]+", "-", info["hardware"]["processor"].lower()).strip("-")
    versions = " ".join(f"{name} {version}" for name, version in info["versions"].items())
    provenance = {"hardware": info["hardware"]["processor"], "versions": versions, "date": today}
    path = RESULTS / f"{what}_{hardware}_{info['versions']['torch']}_{today}.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0], *provenance])
        writer.writeheader()
        writer.writerows([{**row, **provenance} for row in rows])
    print(path)
    return path


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Return minimum, median and maximum."""
    return {
        "minimum": round(float(np.min(values)), digits),
        "median": round(float(np.median(values)), digits),
        "maximum": round(float(np.max(values)), digits),
    }
