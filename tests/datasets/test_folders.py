"""Folders of classes: parts, links, odd names, broken files."""

import shutil

import numpy as np
import pytest
from PIL import Image

from poolwise.config import Config
from poolwise.datasets.loading import load
from poolwise.datasets.split import stratified_halves, stratified_subset
from poolwise.errors import RequestError
from poolwise.experiment import resolve
from poolwise.rng import Streams


def fill(folder, classes, count, start=0):
    for c, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (40 * c, start + i, 0)).save(folder / name / f"{start + i}.png")


@pytest.fixture
def root(tmp_path):
    fill(tmp_path / "data", ("a", "b"), 5)
    return tmp_path / "data"


def read(root, **how):
    return load(f"folder:{root}", image_size=8, **how)


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_train_val_and_test_are_each_used(tmp_path, val):
    for start, part in enumerate(("train", val, "test")):
        fill(tmp_path / part, ("a", "b"), 4, 100 * start)
    source = read(tmp_path)
    assert (len(source.train), len(source.test)) == (16, 8)
    assert (source.test.images[:, 0, 0, 1] >= 200).all()
    experiment = resolve(Config.from_flat(width=2, device="cpu", precision="float32"), source)
    training, scoring = experiment.halves
    assert (source.train.images[training, 0, 0, 1] < 100).all()
    assert (source.train.images[scoring, 0, 0, 1] >= 100).all()
    assert len(training) == len(scoring) == 8
    few = resolve(Config.from_flat(width=2, device="cpu", precision="float32", images=10), source)
    pixels = few.training_images.images[:, 0, 0, 1]
    assert (pixels[few.halves[0]] < 100).all()
    assert (pixels[few.halves[1]] >= 100).all()
    assert sorted(np.concatenate(few.halves)) == list(range(10))
    shutil.rmtree(tmp_path / "test")
    without_test = read(tmp_path)
    assert without_test.scoring is None
    assert (without_test.test.images[:, 0, 0, 1] >= 100).all()


def test_parts_with_different_classes_are_rejected(tmp_path):
    for part in ("train", "test"):
        fill(tmp_path / part, ("a", "b"), 3)
    fill(tmp_path / "test", ("zebra",), 2)
    with pytest.raises(RequestError, match="'zebra' that its training part lacks"):
        read(tmp_path)
    shutil.rmtree(tmp_path / "test" / "zebra")
    for name in ("val", "valid"):
        fill(tmp_path / name, ("a", "b"), 1)
    with pytest.raises(RequestError, match="'val' and 'valid'"):
        read(tmp_path)


def test_shares_of_rare_classes_are_kept():
    labels = np.repeat(np.arange(3), (9000, 300, 7))
    first, second = stratified_halves(labels, 0.2, Streams(0)["test"])
    assert np.bincount(labels[first]).tolist() == [1800, 60, 1]
    training, scoring = stratified_halves(labels[second], 0.5, Streams(0)["split"])
    for half in (training, scoring):
        assert np.bincount(labels[second][half]).tolist() == [3600, 120, 3]
    assert np.bincount(labels[stratified_subset(labels, 1000, Streams(0)["images"])]).tolist() == [966, 32, 2]


def test_imbalanced_folder_keeps_its_class_shares(tmp_path):
    fill(tmp_path, ("common",), 40)
    fill(tmp_path, ("rare",), 5)
    source = read(tmp_path)
    assert np.bincount(source.test.labels).tolist() == [8, 1]
    assert np.bincount(source.train.labels).tolist() == [32, 4]


def test_broken_files_are_listed_or_skipped(root, tmp_path):
    for i in range(12):
        (root / "a" / f"broken{i:02}.png").write_bytes(b"\x89PNG" if i else b"")
    with pytest.raises(RequestError) as error:
        read(root)
    message = str(error.value)
    assert message.startswith("12 of 22 images cannot be read")
    assert "'a/broken00.png' (the file is empty)" in message
    assert message.count("broken") == 11  # ten names and the flag
    assert "and 2 more" in message
    assert "--skip-broken" in message
    source = read(root, skip_broken=True)
    assert len(source.train) + len(source.test) == 10
    assert len(source.skipped) == 12
    assert "skipped: 12 ('a/broken00.png'," in source.note
    for i in range(12):
        (root / "a" / f"broken{i:02}.png").unlink()
    clean = read(root)
    assert clean.fingerprint() == source.fingerprint()
    experiment = resolve(Config.from_flat(width=2, device="cpu", precision="float32"), source)
    assert experiment.describe_data()["skipped"] == list(source.skipped)


def test_class_with_only_broken_files_is_rejected(root):
    for file in (root / "b").iterdir():
        file.write_bytes(b"")
    with pytest.raises(RequestError, match="class 'b' has 0 usable images"):
        read(root, skip_broken=True)


def test_class_without_images_is_rejected(root):
    for name in ("c", "d"):
        (root / name).mkdir()
        (root / name / "notes.txt").touch()
    with pytest.raises(RequestError, match=r"c' contains no images, and 1 other class folders contain none either"):
        read(root)


def test_links_out_of_the_folder_are_followed_only_on_request(root, tmp_path):
    fill(tmp_path / "elsewhere", ("c",), 5, 50)
    plain = read(root)
    (root / "a" / "out.png").symlink_to(tmp_path / "elsewhere" / "c" / "50.png")
    (root / "a" / "more").symlink_to(tmp_path / "elsewhere" / "c")
    (root / "c").symlink_to(tmp_path / "elsewhere" / "c")
    unfollowed = read(root)
    assert unfollowed.classes == ("a", "b")
    assert unfollowed.fingerprint() == plain.fingerprint()
    assert "links that were not followed: 3" in unfollowed.note
    followed = read(root, follow_links=True)
    assert followed.classes == ("a", "b", "c")
    assert np.bincount(np.concatenate([followed.train.labels, followed.test.labels])).tolist() == [11, 5, 5]
    (root / "a" / "inside.png").symlink_to(root / "a" / "1.png")
    within = read(root)
    assert len(within.train) + len(within.test) == 11
    (root / "a" / "round").symlink_to(root)
    assert len(read(root, follow_links=True).classes) == 3  # and terminates


def test_folder_of_links_names_the_flag(root, tmp_path):
    (tmp_path / "links").mkdir()
    for name in ("a", "b"):
        (tmp_path / "links" / name).symlink_to(root / name)
    with pytest.raises(RequestError, match="--follow-links"):
        read(tmp_path / "links")
    assert len(read(tmp_path / "links", follow_links=True).train) == 8


def test_odd_names(root, tmp_path):
    names = ["new\nline", "<script>", 'quo"te', "‮right", "=1+1", b"\xff\xfe".decode("utf-8", "surrogateescape")]
    fill(root, names, 3)
    (root / "a" / "._0.png").write_bytes(b"what a Mac leaves")
    (root / ".hidden").mkdir()
    source = read(root)
    assert len(source.classes) == 8
    assert "\\xff\\xfe" in source.classes
    assert " ".join(source.classes).encode()
    (root / names[-1] / "0.png").write_bytes(b"")
    with pytest.raises(RequestError) as error:
        read(root)
    assert str(error.value).encode()
    with pytest.raises(RequestError, match="not valid UTF-8"):
        read(root / names[-1])
