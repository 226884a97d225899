import pytest
import torch

from poolwise.models.chain import create, running_norm
from poolwise.models.families.resnet import resnet20
from poolwise.models.supernet import plain_model
from poolwise.training import calibration


def choose(**options):
    def build():
        return plain_model(
            create(resnet20, torch.Generator().manual_seed(0), classes=3, width=2, norm=running_norm), "4-3-3"
        )

    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return calibration.choose(build, images, torch.tensor([0, 1, 2, 0]), {"test": options}, **options)


def test_auto_selects_the_fastest_and_caches_it():
    first = choose()
    assert not first.cached
    assert set(first.seconds) <= set(calibration.CANDIDATES)
    sound = first.seconds[str(first.precision)]
    assert sound == first.step_seconds
    again = choose()
    assert again.cached
    assert (again.precision, again.seconds) == (first.precision, first.seconds)


def test_requested_precision_is_used():
    assert str(choose(requested="float32+channels_last").precision) == "float32+channels_last"


def test_unsupported_and_inaccurate_formats_are_skipped(monkeypatch):
    original = calibration.train_step

    def faulty(network, optimizer, images, labels, lr, precision):
        if precision.dtype == "bfloat16":
            raise RuntimeError("not implemented for bfloat16")
        loss = original(network, optimizer, images, labels, lr, precision)
        return 2 * loss if precision.channels_last else loss

    monkeypatch.setattr(calibration, "train_step", faulty)
    choice = calibration._measure(
        lambda: plain_model(
            create(resnet20, torch.Generator().manual_seed(0), classes=3, width=2, norm=running_norm), "4-3-3"
        ),
        torch.randn(4, 3, 8, 8),
        torch.tensor([0, 1, 2, 0]),
        calibration.CANDIDATES,
    )
    assert str(choice.precision) == "float32"
    assert not any(name.startswith("bfloat16") for name in choice.seconds)


def test_least_squares_line():
    assert calibration._line([1.0, 2.0, 3.0], [3.0, 5.0, 7.0]) == pytest.approx((1.0, 2.0))
    assert calibration._line([5.0, 5.0], [1.0, 2.0]) == pytest.approx((0.0, 0.3)), "one number of MACs gives no base"
    assert calibration._line([1.0, 2.0], [2.0, 1.0]) == pytest.approx((1.5, 0.0))
