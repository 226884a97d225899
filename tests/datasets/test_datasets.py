"""Data sets and transforms of the user."""

import dataclasses
import json
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset
from torchvision.transforms import v2

import poolwise
from poolwise.config import settings
from poolwise.datasets.augment import PerImage, augmentation, named
from poolwise.datasets.packed import Packed
from poolwise.errors import RequestError
from poolwise.experiment import resolve

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)


class UserDataset(Dataset):
    """Two classes of items, which ``make`` creates from PIXELS."""

    classes = ("cats", "dogs")

    def __init__(self, make, count=24):
        self.make, self.count = make, count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        return self.make(PIXELS[i]), i % 2


KINDS = {
    "pil": Image.fromarray,
    "array": lambda pixels: pixels,
    "uint8 tensor": lambda pixels: torch.from_numpy(pixels).permute(2, 0, 1),
    "float tensor": lambda pixels: torch.from_numpy(pixels).permute(2, 0, 1).float() / 255,
    "tv_tensor": lambda pixels: v2.functional.to_image(Image.fromarray(pixels)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_item_types_give_the_same_pixels(kind):
    source = poolwise.dataset(UserDataset(KINDS[kind]), UserDataset(KINDS[kind], 6), name="mine")
    assert np.array_equal(source.train.images, PIXELS)
    assert np.array_equal(source.test.images, PIXELS[:6])
    assert source.train.labels.tolist() == [0, 1] * 12
    assert (source.name, source.classes) == ("mine", ("cats", "dogs"))


def test_single_set_is_split_resized_and_streamed():
    source = poolwise.dataset(Subset(UserDataset(KINDS["pil"]), list(range(20))), image_size=4)
    assert source.classes == ("cats", "dogs")
    assert source.train.images.shape == (16, 4, 4, 3)
    assert np.bincount(source.test.labels).tolist() == [2, 2]
    assert "held out" in source.note
    streamed = poolwise.dataset(Subset(UserDataset(KINDS["pil"]), list(range(20))), image_size=4, stream="on")
    assert isinstance(streamed.train.images, Packed)
    assert streamed.fingerprint() == source.fingerprint()
    grey = poolwise.dataset(UserDataset(lambda pixels: torch.from_numpy(pixels[None, :, :, 0].copy())))
    assert np.array_equal(grey.train.images[..., 0], grey.train.images[..., 2])


class Endless(IterableDataset):
    def __iter__(self):
        yield from ()


def fails(_pixels):
    raise KeyError("lost")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Endless(), "IterableDataset"),
        (DataLoader(UserDataset(KINDS["pil"])), "loader.dataset"),
        (5, "train is a int"),
        (UserDataset(fails), "item 0 of train raised KeyError"),
        (UserDataset(lambda pixels: pixels.astype(np.float64)), "float64"),
        (UserDataset(lambda pixels: torch.from_numpy(pixels).permute(2, 0, 1).float()), "outside 0 to 1"),
        (UserDataset(lambda pixels: pixels[..., :2]), r"shape \(8, 8, 2\)"),
        (UserDataset(lambda pixels: pixels[:4]), "set image_size"),
        ([(PIXELS[0], 0), (PIXELS[1, :4, :4], 1)] * 8, "image 1 of train is 4 x 4 pixels and image 0 is 8 x 8"),
        ([PIXELS[0]] * 8, "item 0 of train is ndarray"),
        ([(PIXELS[0], "cat")] * 8, "has the label 'cat'"),
        ([(PIXELS[0], 0)] * 8, "one class"),
        ([(PIXELS[0], 0), (PIXELS[0], 2)] * 8, "class '1' has 0 usable images"),
    ],
)  # fmt: skip
def test_invalid_data_sets_are_rejected(wrong, message):
    with pytest.raises(RequestError, match=message):
        poolwise.dataset(wrong)


def test_test_labels_beyond_the_classes_are_rejected():
    with pytest.raises(RequestError, match="test has the label 2, but train has 2 classes"):
        poolwise.dataset(UserDataset(KINDS["array"]), [(PIXELS[0], 2)] * 4)


def shaken(image_CHW):
    """Draw from every global generator."""
    shift = torch.randint(0, 3, ()).item() + np.random.randint(3) + random.randrange(3)
    return image_CHW.roll(shift, 2)


def batch():
    return torch.from_numpy(PIXELS[:6].copy())


@pytest.mark.parametrize("name", [*settings()["augment"].choices, "own", "of torchvision"])
def test_same_draw_gives_same_bytes_and_keeps_global_generators(name):
    transforms = {"own": shaken, "of torchvision": v2.Compose([v2.RandomHorizontalFlip(), v2.ColorJitter(0.5, 0.5)])}
    one = PerImage(transforms[name]) if name in transforms else augmentation(name, 8, True)
    drawn = one.draw(6, np.random.default_rng(1))
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    first = one.apply(batch(), *drawn)
    torch.rand(3), np.random.rand(3), random.random()
    second = one.apply(batch(), *drawn)
    assert torch.equal(first, second)
    assert (first.dtype, first.shape) == (torch.uint8, batch().shape)
    torch.set_rng_state(before[0])
    random.setstate(before[2])
    one.apply(batch(), *drawn)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[2]
    assert torch.equal(first, batch()) == (name == "none")
    other = one.apply(batch(), *one.draw(6, np.random.default_rng(2)))
    assert torch.equal(first, other) == (name == "none")


def test_cutout_covers_one_square():
    white = torch.full((40, 8, 8, 3), 255, dtype=torch.uint8)
    one = augmentation("cutout", 8, False)
    drawn = one.draw(40, np.random.default_rng(0))
    plain = one.first.apply(white, *drawn[:-1])
    covered = one.apply(white, *drawn) != plain
    heights = covered.any(3).any(2).sum(1)
    widths = covered.any(3).any(1).sum(1)
    assert int(heights.max()) == int(widths.max()) == 4
    for image in range(40):
        rows, columns = covered[image].any(2).any(1), covered[image].any(2).any(0)
        inside = plain[image].bool().any(2) & rows[:, None] & columns[None, :]
        assert torch.equal(covered[image].any(2), inside)


@pytest.mark.parametrize("wrong", [v2.ToDtype(torch.float32), v2.Resize(4), lambda image: None])
def test_transforms_with_invalid_results_are_rejected(wrong):
    one = PerImage(wrong)
    with pytest.raises(RequestError, match="remove normalization and resizing"):
        one.apply(batch(), *one.draw(6, np.random.default_rng(0)))


def test_run_with_a_user_transform(tiny_settings, tmp_path):
    source = poolwise.dataset(UserDataset(KINDS["pil"]), UserDataset(KINDS["pil"], 6), augment=shaken)
    config = tiny_settings.replace(batch_size=4, steps=8, block=4, threads=1)
    poolwise.search(config, tmp_path / "run", source=source)
    request = json.loads((tmp_path / "run" / "run.json").read_text())
    assert request["data"]["augment"] == f"{__name__}.shaken"
    with pytest.raises(RequestError, match=r"none, differs from that of the run, .*shaken"):
        poolwise.rank(tmp_path / "run", source=dataclasses.replace(source, augment=None))
    poolwise.rank(tmp_path / "run", source=source)
    with pytest.raises(RequestError, match="omit one of them"):
        resolve(config.replace(augment="none"), source).augmentation  # noqa: B018
    local = dataclasses.replace(source, augment=lambda image: image)
    with pytest.raises(RequestError, match="top of a module, or use workers=1"):
        poolwise.search(config.replace(workers=2), tmp_path / "local", source=local)


@pytest.mark.slow
def test_user_transform_gives_the_same_bytes_in_workers(tiny_settings, tmp_path):
    source = poolwise.dataset(UserDataset(KINDS["pil"]), UserDataset(KINDS["pil"], 6), augment=shaken)
    checkpoints = []
    for workers in (1, 2):
        config = tiny_settings.replace(batch_size=4, steps=16, block=8, workers=workers, threads=1)
        folder = poolwise.search(config, tmp_path / str(workers), source=source)
        checkpoints.append((folder.path / "checkpoints" / "search.safetensors").read_bytes())
    assert checkpoints[0] == checkpoints[1]


def test_folders_accept_a_transform(image_folder):
    source = poolwise.source(f"folder:{image_folder}", image_size=8, augment=v2.RandomInvert(p=1.0))
    experiment = resolve(poolwise.Config.from_flat(width=2, device="cpu", precision="float32"), source)
    assert torch.equal(
        experiment.augmentation.apply(batch(), *experiment.augmentation.draw(6, np.random.default_rng(0))),
        255 - batch(),
    )
    assert named(source.augment) == "RandomInvert(p=1.0)"
