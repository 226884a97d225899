"""What every benchmark shares: where results go, and how repeats are summed up."""

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
    """Write ``results/<what>_<hardware>_<torch>_<date>.csv``; every row says hardware, versions and date as well."""
    found, today = environment(), str(datetime.date.today())
    hardware = re.sub(r"[^a-z0-9]+", "-", found["hardware"]["processor"].lower()).strip("-")
    versions = " ".join(f"{name} {version}" for name, version in found["versions"].items())
    also = {"hardware": found["hardware"]["processor"], "versions": versions, "date": today}
    path = RESULTS / f"{what}_{hardware}_{found['versions']['torch']}_{today}.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0], *also])
        writer.writeheader()
        writer.writerows([{**row, **also} for row in rows])
    print(path)
    return path


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Minimum, median and maximum."""
    return {
        "minimum": round(float(np.min(values)), digits),
        "median": round(float(np.median(values)), digits),
        "maximum": round(float(np.max(values)), digits),
    }
