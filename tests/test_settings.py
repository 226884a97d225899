import pytest

from poolwise.errors import RequestError
from poolwise.settings import PRESETS, Settings, preset


@pytest.mark.parametrize("name", PRESETS)
def test_presets_round_trip(name):
    settings = preset(name)
    assert Settings.from_json(settings.to_json()) == settings


def test_overrides_win_and_epochs_replace_the_presets_steps():
    assert preset("demo", supernets=7, lr=None).supernets == 7
    assert preset("demo", epochs=3).steps is None
    assert preset("demo", epochs=3, steps=9).steps == 9
    assert preset("demo", retrain_epochs=3).retrain_steps is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"supernets": 0}, {"supernets": -1}, {"steps": 0}, {"batch_size": 1}, {"lr_end": 1.0}, {"eval_batch_size": 1},
        {"lr": 0.0}, {"lr": float("nan")}, {"seed": -1},
        {"images": 0}, {"width": 0}, {"temperature": -1.0}, {"temperature": float("inf")}, {"draw": "round"}, {"epochs": 1.5},
        {"supernet": 3}, {"warm_up": 1.0}, {"warm_up": -0.1}, {"warm_up": "half"},
        {"augment": "flip"}, {"stream": "yes"}, {"stream": "on", "cache_images": False},
    ],
)  # fmt: skip
def test_wrong_values_are_refused(wrong):
    with pytest.raises(RequestError) as error:
        preset("demo", **wrong)
    assert next(iter(wrong)) in str(error.value) or "did you mean" in str(error.value)


def test_unknown_preset():
    with pytest.raises(RequestError, match="did you mean 'paper'"):
        preset("papers")


def test_presets_leave_the_number_of_supernets_open():
    found = preset("demo")
    assert (found.method, found.supernets, found.norm, found.short) == ("mixture", None, "affine", 0)
    others = [preset("demo", norm="recalibrated"), preset("demo", method="partition-first")]
    assert (found.rank_on, *[other.rank_on for other in others]) == ("all", "assigned", "assigned")
    assert (preset("demo", supernets="auto").method, preset("demo", supernets="auto").supernets) == ("mixture", None)
    assert (preset("demo", supernets=3).method, preset("demo", supernets=3).supernets) == ("mixture", 3)
    assert (preset("default", supernets=5, method="unbalanced").method, preset("paper").supernets) == ("unbalanced", 4)
    assert (preset("paper").short, preset("default").short, preset("demo", short="auto").short) == (0, None, None)
    others = preset("demo", model="timm:resnet26d")
    assert (others.norm, others.width) == ("batch", None)
