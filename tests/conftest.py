"""Fixtures of the fast tests: small images of three classes that differ in color, drawn by a seeded generator."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import poolwise
from poolwise.config import Config
from poolwise.datasets.sources import ImageSet, Source
from poolwise.models import family
from poolwise.models.chain import create
from poolwise.models.sharing import supernet
from poolwise.progress import Listener

torch.set_num_threads(1)  # the networks of the fast tests are so small that a second thread costs time


@contextlib.contextmanager
def separate_cache(tmp_path_factory):
    """Context manager: use the cache of the tests, not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POOLWISE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(autouse=True)
def isolated_cache(request, tmp_path_factory):
    """Give fast tests a cache of their own; slow ones use the user's cache for CIFAR-10."""
    if "slow" in request.keywords:
        yield
        return
    with separate_cache(tmp_path_factory):
        yield


KINDRED = {"resnet32", "resnet34", "resnet56", "resnet18-imagenet", "resnet34-imagenet", "resnet50-imagenet"}


def families(names):
    """Return parameters of a test of every family. Deeper variants of a family are marked slow."""
    return [pytest.param(name, marks=pytest.mark.slow if name in KINDRED else ()) for name in names]


def varied_supernet(name, norm, sharing):
    """Return a SuperNet of width 2 whose affine parameters all differ, so that no two norms are equal."""

    def build(kind):
        return create(family(name).build, torch.Generator().manual_seed(0), classes=3, width=2, norm=kind)

    network = supernet(build, family(name).space, norm, sharing)
    generator = torch.Generator().manual_seed(9)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight, 1, 0.3, generator=generator)
            nn.init.normal_(module.bias, 0, 0.3, generator=generator)
    return network


def draw_images(count: int, size: int, seed: int) -> ImageSet:
    """Return ``count`` images_NHWC of three classes, and their labels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    colours = np.array([[170, 90, 90], [90, 170, 90], [90, 90, 170]])
    images = generator.normal(0, 45, (count, size, size, 3)) + colours[labels][:, None, None]
    return ImageSet(np.clip(images, 0, 255).astype(np.uint8), labels.astype(np.int64))


@pytest.fixture(scope="session")
def tiny_source() -> Source:
    return Source("tiny", draw_images(96, 8, 1), draw_images(48, 8, 2), ("red", "green", "blue"))


@pytest.fixture(scope="session")
def tiny_settings() -> Config:
    return Config.from_flat(
        width=2, supernets=2, steps=30, batch_size=16, eval_batch_size=24, retrain_steps=6, retrain_seeds=2, lr=0.05,
        draw="rounds", precision="float32", device="cpu",
    )  # fmt: skip


@pytest.fixture(scope="session")
def short_settings(tiny_settings) -> Config:
    """``tiny_settings`` with fewer steps, on one thread."""
    return tiny_settings.replace(steps=20, retrain_steps=4, threads=1)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, tiny_settings, tiny_source) -> Path:
    """A finished ``poolwise.run`` with ``tiny_settings``. Tests use the copy ``finished``."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with separate_cache(tmp_path_factory):
        poolwise.run(tiny_settings, folder, source=tiny_source)
    return folder


@pytest.fixture
def finished(finished_run, tmp_path) -> Path:
    """A copy of the finished run."""
    return shutil.copytree(finished_run, tmp_path / "run")


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Return a folder of two classes with eight PNGs each; the name of one class contains HTML."""
    root = tmp_path / "pictures"
    images = draw_images(16, 20, 3).images
    for i, image in enumerate(images):
        folder = root / ("<b>cats" if i % 2 else "dogs")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    return root


class After(Listener):
    """Requests a stop after a number of steps."""

    def __init__(self, steps):
        self.left, self.stopping = steps, steps <= 0

    def advance(self, units=1, **info):
        self.left -= units
        self.stopping = self.left <= 0


def clean_environment() -> dict[str, str]:
    """Return the environment for subprocesses."""
    return {**os.environ, "COLUMNS": "120"}


def results(path):
    """Return the results of a run, without times."""
    checkpoints = {file.name: file.read_bytes() for file in sorted((path / "checkpoints").iterdir())}
    with sqlite3.connect(path / "trials.sqlite") as connection:
        trials = connection.execute("SELECT pooling, seed, accuracy, curve FROM trials ORDER BY 1, 2").fetchall()
    ranking = json.loads((path / "ranking.json").read_text())
    retrain = json.loads((path / "retrain.json").read_text())
    return checkpoints, trials, ranking["ranking"], retrain["results"]
