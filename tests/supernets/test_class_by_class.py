"""Data sets sorted by class, as image folders are: batch statistics need batches of all classes."""

import numpy as np
import pytest

import poolwise
from conftest import draw_images
from poolwise.datasets.sources import Source
from poolwise.experiment import resolve


@pytest.fixture
def sorted_source(tiny_source):
    drawn = draw_images(192, 8, 1)
    return Source(
        "sorted", drawn.subset(np.argsort(drawn.labels, kind="stable")), tiny_source.test, tiny_source.classes
    )


@pytest.mark.parametrize("norm", ["affine", "recalibrated"])
def test_every_batch_holds_all_classes(tiny_settings, sorted_source, norm):
    experiment = resolve(tiny_settings.replace(supernets=1, method="fairnas", norm=norm), sorted_source)
    assert (np.diff(experiment.training_images.labels) >= 0).all()
    passes = [experiment.ranking_batches()] + ([experiment.calibration_batches] if norm == "recalibrated" else [])
    for batches in passes:
        labels = [labels.tolist() for _, labels in batches.ordered()]
        assert all(set(present) == {0, 1, 2} for present in labels)
    assert sorted(experiment.ranking_batches().indices) == experiment.halves[1].tolist()
    again = resolve(experiment.config, sorted_source).ranking_batches()
    assert (again.indices == experiment.ranking_batches().indices).all()


def test_ranking_accuracy_is_close_to_accuracy_during_search(tmp_path, tiny_settings, sorted_source):
    config = tiny_settings.replace(supernets=1, method="fairnas", norm="affine", steps=180, width=4)
    run = poolwise.search(config, tmp_path / "run", source=sorted_source)
    ranking = poolwise.rank(tmp_path / "run", source=sorted_source)
    scored = np.mean([row["accuracy"] for row in run.to_rows()[-40:]])
    ranked = np.mean([row["score"] for row in ranking["ranking"]])
    assert scored > 0.6, "the SuperNet learned"
    assert ranked > scored - 0.1
