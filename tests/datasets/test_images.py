import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from poolwise.datasets.augment import CropFlip, Normalize
from poolwise.datasets.batches import Batches, Shuffled
from poolwise.datasets.loading import load
from poolwise.datasets.sources import ImageSet
from poolwise.datasets.split import mixed, stratified_halves, stratified_subset
from poolwise.errors import RequestError
from poolwise.rng import Streams


@example([2] * 20 + [40], 0.25, 0)  # many classes that cannot have less than one
@given(st.lists(st.integers(2, 30), min_size=2, max_size=6), st.floats(0.1, 0.9), st.integers(0, 100))
def test_split_is_disjoint_stratified_and_seeded(sizes, share, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    first, second = stratified_halves(labels, share, Streams(seed)["split"])
    assert sorted([*first, *second]) == list(range(len(labels)))
    for label, size in enumerate(sizes):
        count = int((labels[first] == label).sum())
        assert 1 <= count < size
        assert abs(count - share * size) <= 1 + 1e-9
    again, _ = stratified_halves(labels, share, Streams(seed)["split"])
    assert np.array_equal(first, again)


def test_images_sorted_by_class_are_shuffled_and_others_are_not():
    kept = 0
    for seed in range(100):
        draws = np.random.default_rng(seed)
        labels = np.repeat(np.arange(draws.integers(2, 11)), draws.integers(20, 60))
        mixture, places = draws.permutation(labels), np.arange(len(labels))
        kept += np.array_equal(mixed(mixture, places, np.random.default_rng(0)), places)
        shuffled = mixed(labels, places, np.random.default_rng(0))
        assert sorted(shuffled) == places.tolist()
        assert np.mean(np.diff(labels[shuffled]) == 0) < 0.75
        some = np.flatnonzero(draws.random(len(labels)) < 0.5)
        assert sorted(mixed(labels, some, draws)) == some.tolist()
    assert kept >= 97  # three standard deviations
    assert mixed(np.zeros(1, int), np.zeros(1, int), np.random.default_rng(0)).tolist() == [0]


@given(st.lists(st.integers(2, 30), min_size=2, max_size=6), st.data())
def test_subset_keeps_class_shares(sizes, data):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    count = data.draw(st.integers(2 * len(sizes), len(labels)))
    chosen = stratified_subset(labels, count, np.random.default_rng(0))
    assert len(set(chosen)) == count
    counts = np.bincount(labels[chosen], minlength=len(sizes))
    exact = np.array(sizes) * count / len(labels)
    assert (counts >= 2).all()
    if (exact >= 2).all():
        assert (abs(counts - exact) < 1 + 1e-9).all()


def test_subset_rejects_too_few_images():
    with pytest.raises(RequestError, match="between 4"):
        stratified_subset(np.array([0, 0, 1, 1, 1]), 3, np.random.default_rng(0))


def augmented(augmentation, images, generator):
    return augmentation.apply(images, *augmentation.draw(len(images), generator))


def test_augmentation_against_one_image_at_a_time():
    images = torch.from_numpy(np.random.default_rng(0).integers(1, 256, (9, 8, 8, 3), dtype=np.uint8))
    result = augmented(CropFlip(pad=2, flip=True), images, np.random.default_rng(5))
    generator = np.random.default_rng(5)
    offsets, mirrored = generator.integers(0, 5, size=(2, 9)), generator.random(9) < 0.5
    framed = np.pad(images.numpy(), ((0, 0), (2, 2), (2, 2), (0, 0)))
    for b in range(9):
        cut = framed[b, offsets[0, b] : offsets[0, b] + 8, offsets[1, b] : offsets[1, b] + 8]
        assert np.array_equal(result[b].numpy(), cut[:, ::-1] if mirrored[b] else cut)
    assert mirrored.any()
    assert not mirrored.all()


def test_no_flip_means_no_flip():
    images = torch.arange(2 * 4 * 4 * 3, dtype=torch.uint8).reshape(2, 4, 4, 3)
    assert torch.equal(augmented(CropFlip(pad=0, flip=False), images, np.random.default_rng(0)), images)


def test_border_is_black_before_normalization():
    dark = ImageSet(np.full((4, 8, 8, 3), 10, np.uint8), np.zeros(4, np.int64))
    normalize = Normalize.of(np.concatenate([dark.images, np.full((4, 8, 8, 3), 30, np.uint8)]))
    moved = normalize(augmented(CropFlip(pad=4), torch.from_numpy(dark.images), np.random.default_rng(0)))
    assert moved.min() == pytest.approx(-20 / 10)  # 0 is black: (0 - mean 20) / std 10, not a frame at 0


def test_normalized_images_have_mean_0_and_deviation_1():
    images = np.random.default_rng(0).integers(0, 200, (50, 6, 6, 3), dtype=np.uint8)
    out = Normalize.of(images)(torch.from_numpy(images))
    assert torch.allclose(out.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(out.std(dim=(0, 2, 3), correction=0), torch.ones(3), atol=1e-4)


def test_shuffled_visits_all_and_resumes():
    data = ImageSet(np.zeros((10, 2, 2, 3), np.uint8), np.arange(10))
    batches = Batches(torch.from_numpy(data.images), torch.from_numpy(data.labels), None, 5, Normalize.of(data.images))
    stream = Streams(0)
    shuffled = Shuffled(batches, stream["order"])
    seen = torch.cat([shuffled.next()[1] for _ in range(2)])
    assert sorted(seen.tolist()) == list(range(10))
    shuffled.next()
    state, generators = shuffled.state(), stream.state()
    expected = [shuffled.next()[1].tolist() for _ in range(5)]
    other = Streams(0)
    other.restore(generators)
    again = Shuffled(batches, other["order"])
    again.restore(state)
    assert [again.next()[1].tolist() for _ in range(5)] == expected


def test_ordered_batches_are_even():
    data = ImageSet(np.zeros((11, 2, 2, 3), np.uint8), np.arange(11))
    batches = Batches(torch.from_numpy(data.images), torch.from_numpy(data.labels), None, 5, Normalize.of(data.images))
    labels = [labels.tolist() for _, labels in batches.ordered()]
    assert [len(part) for part in labels] == [3, 4, 4]
    assert [label for part in labels for label in part] == list(range(11))


def test_folder_is_read_and_split(image_folder):
    source = load(f"folder:{image_folder}", image_size=16, seed=0)
    assert source.classes == ("<b>cats", "dogs")
    assert source.train.images.shape[1:] == (16, 16, 3)
    assert len(source.train) + len(source.test) == 16
    assert "held out" in source.note
    assert source.fingerprint() == load(f"folder:{image_folder}", image_size=16, seed=0).fingerprint()
    assert source.fingerprint() != load(f"folder:{image_folder}", image_size=16, seed=1).fingerprint()


def test_folder_with_a_validation_part(image_folder, tmp_path):
    root = tmp_path / "split"
    for part in ("train", "val"):
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
            for i in range(3):
                Image.new("L", (9, 7), 40 * i).save(root / part / name / f"{i}.png")
    source = load(f"folder:{root}", image_size=8)
    assert (len(source.train), len(source.test)) == (6, 6)
    assert "val" in source.note


def test_unusable_folders_are_rejected(image_folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(RequestError, match="no subfolders"):
        load(f"folder:{empty}")
    (empty / "only").mkdir()
    with pytest.raises(RequestError, match="one class, 'only'"):
        load(f"folder:{empty}")
    (empty / "other").mkdir()
    with pytest.raises(RequestError, match="contains no images"):
        load(f"folder:{empty}")
    with pytest.raises(RequestError, match="does not exist"):
        load(f"folder:{tmp_path / 'nowhere'}")
    broken = image_folder / "dogs" / "broken.png"
    broken.write_bytes(b"\x89PNG not a picture")
    with pytest.raises(RequestError, match=r"broken\.png"):
        load(f"folder:{image_folder}")
    with pytest.raises(RequestError, match="did you mean 'cifar10'"):
        load("cifar-10")


def test_batches_of_a_subset_contain_only_its_images():
    data = ImageSet(np.arange(20 * 2 * 2 * 3, dtype=np.uint8).reshape(20, 2, 2, 3), np.arange(20))
    tensors = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    some = np.array([3, 4, 7, 11, 19])
    batches = Batches(*tensors, some, 2, Normalize.of(data.images))
    assert torch.cat([labels for _, labels in batches.ordered()]).tolist() == some.tolist()
    shuffled = Shuffled(batches, Streams(1)["order"])
    assert {int(label) for _ in range(6) for label in shuffled.next()[1]} == set(some.tolist())
    images, labels = batches.take(np.array([0, 2]))
    assert torch.equal(images, tensors[0][[3, 7]])
    assert labels.tolist() == [3, 7]
