"""CIFAR-100 and Food101 from small generated folders in their layouts."""

import hashlib
import pickle

import numpy as np
import pytest
from PIL import Image

from poolwise.datasets import cifar100
from poolwise.datasets.loading import load
from poolwise.errors import RequestError, RunFailure


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("POOLWISE_TORCHVISION_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def tiny_cifar100(root):
    """Files of CIFAR-100's layout, and torchvision's class with their sums in place of the official ones."""
    from torchvision.datasets import CIFAR100

    folder, sums = root / CIFAR100.base_folder, {}
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (9, 3, 32, 32), dtype=np.uint8)
    content = {
        "train": {"data": images[:6].reshape(6, -1), "fine_labels": [5, 0, 2, 1, 3, 4], "coarse_labels": [0] * 6},
        "test": {"data": images[6:].reshape(3, -1), "fine_labels": [2, 4, 0], "coarse_labels": [0] * 3},
        "meta": {"fine_label_names": ["apple", "bee", "cup", "dog", "elm", "fox"], "coarse_label_names": ["all"]},
    }
    for name, value in content.items():
        payload = pickle.dumps(value)
        (folder / name).write_bytes(payload)
        sums[name] = hashlib.md5(payload).hexdigest()

    class Tiny(CIFAR100):
        url = "https://127.0.0.1:9/none"
        train_list, test_list = [["train", sums["train"]]], [["test", sums["test"]]]
        meta = {**CIFAR100.meta, "md5": sums["meta"]}  # noqa: RUF012

    return Tiny, images, folder


def test_cifar100_is_read_with_its_fine_classes(tiny_cifar100):
    kind, images, _ = tiny_cifar100
    source = cifar100.source_of(kind)
    assert source.classes == ("apple", "bee", "cup", "dog", "elm", "fox")
    assert source.train.labels.tolist() == [5, 0, 2, 1, 3, 4]
    assert source.test.labels.tolist() == [2, 4, 0]
    assert source.train.labels.dtype == np.int64
    assert np.array_equal(source.train.images, images[:6].transpose(0, 2, 3, 1))
    assert np.array_equal(source.test.images, images[6:].transpose(0, 2, 3, 1))


class Opens:
    """What a wicked file would make of being unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_changed_batch_is_rejected_before_it_is_parsed(tiny_cifar100, root):
    kind, _, folder = tiny_cifar100
    (folder / "train").write_bytes(pickle.dumps(Opens(root / "was-run")))
    with pytest.raises(RunFailure, match="corrupted"):
        cifar100.source_of(kind)
    with pytest.raises(RunFailure, match="corrupted"):
        load("cifar100")  # checked against the official checksums
    assert not (root / "was-run").exists()


def test_missing_data_sets_are_reported(root, monkeypatch):
    def unreachable(*_arguments, **_more):
        raise OSError("no route")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    with pytest.raises(RunFailure, match=r"cifar-100-python into .*POOLWISE_TORCHVISION_DATA"):
        load("cifar100")
    with pytest.raises(RequestError, match="image size 64"):
        load("cifar100", image_size=64)
    with pytest.raises(RequestError, match="food101 is not in"):
        load("food101")
    with pytest.raises(RequestError, match="did you mean 'food101'"):
        load("food-101")


@pytest.fixture
def food(root):
    """Food101's layout with two classes, three training and two test images each."""
    folder = root / "food-101"
    (folder / "meta").mkdir(parents=True)
    lines = {"train": [], "test": []}
    for c, name in enumerate(("apple_pie", "waffles")):
        (folder / "images" / name).mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (20, 10), (100 * c, 10 * i, 7)).save(folder / "images" / name / f"{i}.jpg", quality=100)
            lines["train" if i < 3 else "test"].append(f"{name}/{i}")
    for part, names in lines.items():
        (folder / "meta" / f"{part}.txt").write_text("\n".join(names) + "\n")
    return folder


def test_food101_is_read_from_its_lists(food):
    source = load("food101", image_size=8)
    assert source.classes == ("apple_pie", "waffles")
    assert source.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert source.test.labels.tolist() == [0, 0, 1, 1]
    expected = np.array([[100 * c, 10 * i, 7] for c in (0, 1) for i in (3, 4)])
    assert np.abs(source.test.images[:, 4, 4].astype(int) - expected).max() <= 3
    assert "the folder's test part" in source.note


def test_incomplete_food101_is_rejected(food):
    (food / "images" / "waffles" / "1.jpg").unlink()
    with pytest.raises(RequestError, match=r"lacks 1 of 10 images, for example 'waffles/1\.jpg'"):
        load("food101")
    (food / "meta" / "train.txt").write_text("../../secret\n")
    with pytest.raises(RequestError, match="each line must be CLASS/ID"):
        load("food101")
    (food / "meta" / "test.txt").unlink()
    (food / "meta" / "train.txt").write_text("waffles/0\n")
    with pytest.raises(RequestError, match=r"test\.txt cannot be read"):
        load("food101")
