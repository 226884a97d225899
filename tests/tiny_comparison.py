"""A small table of stand-alone accuracies, and comparisons with it: the smallest network on eight-pixel images."""

import numpy as np

from conftest import draw_images
from poolwise import api, tables
from poolwise.benchmarks.compare.config import CompareConfig
from poolwise.benchmarks.compare.protocol import Protocol
from poolwise.datasets.sources import Source
from poolwise.models import family

METHODS = ["mixture@supernets=2", "fairnas", "random", "short-all"]
REQUEST = {
    "methods": METHODS, "budgets": [60], "seeds": [1, 2], "controls": ["macs"], "resamples": 20,
    "workers": 1, "threads": 1,
}  # fmt: skip
RECIPE = {
    "preset": "paper", "model": "resnet20",
    "width": 2, "batch_size": 16, "eval_batch_size": 24, "retrain_steps": 12, "lr": 0.05,
    "precision": "float32", "device": "cpu",
}  # fmt: skip


def source():
    return Source("tiny", draw_images(96, 8, 1), draw_images(48, 8, 2), ("red", "green", "blue"))


def write_table(folder, source):
    """Write a synthetic table: configurations with more MACs are more accurate, with noise."""
    space, generator = family("resnet20").space, np.random.default_rng(0)
    costs = api.costs(width=2, image_size=8, classes=3)
    rows = []
    for pooling in space:
        accuracies = (0.5 + 0.1 * costs[pooling].macs_ratio + generator.normal(0, 0.02, 2)).tolist()
        mean, std = np.mean(accuracies), float(np.std(accuracies, ddof=1))
        rows.append({"pooling": str(pooling), "accuracies": accuracies, "mean": mean, "std": std})
    data = {"name": "tiny", "fingerprint": source.fingerprint(), "image_size": 8, "classes": list(source.classes)}
    measured = {
        "space": space.to_json(), "seeds": [1, 2], "results": rows, "failed": [], "settings": RECIPE, "data": data, "steps": 12,
    }  # fmt: skip
    return tables.write(folder, "mine", measured).parent


def compare(table, out, source, listener=None, plan=False, **fields):
    if plan:
        return api.plan_comparison(CompareConfig(table, **fields), out, source=source)
    return api.compare(CompareConfig(table, **fields), out, source=source, listener=listener)


def protocol(table, methods, budgets, seeds, out, source):
    config = CompareConfig(table, methods=methods, budgets=budgets, seeds=seeds, workers=1, threads=1)
    return Protocol(config, tables.load(table), "resnet20", out, source)
