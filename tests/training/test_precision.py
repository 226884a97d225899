"""The number format follows from the device; images may be in read-only memory."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
import torch

import poolwise
from poolwise import api
from poolwise.config import Config
from poolwise.datasets.augment import to_tensor
from poolwise.datasets.sources import ImageSet
from poolwise.experiment import resolve
from poolwise.training import Precision, device_precision, precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("features", "machine", "capability", "expected"),
    [
        ({"avx2", "avx512f", "avx512_bf16"}, "x86_64", "AVX512", "bfloat16+channels_last"),
        ({"avx2", "avx512f", "amx_bf16"}, "x86_64", "AVX512", "bfloat16+channels_last"),
        ({"avx2", "avx512f"}, "x86_64", "AVX512", "float32+channels_last"),
        ({"avx2", "avx512_bf16"}, "x86_64", "AVX2", "float32+channels_last"),  # ATEN_CPU_CAPABILITY=avx2
        ({"asimd", "bf16"}, "aarch64", "DEFAULT", "bfloat16+channels_last"),
        ({"asimd"}, "aarch64", "DEFAULT", "float32+channels_last"),
        (set(), "arm64", "DEFAULT", "float32+channels_last"),  # a system that lists no features
    ],
)
def test_cpu_precision_follows_its_instructions(monkeypatch, features, machine, capability, expected):
    monkeypatch.setattr(precision, "_cpu_features", lambda: features)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    assert str(device_precision(CPU)) == expected


@pytest.mark.parametrize(("capability", "expected"), [((9, 0), "bfloat16"), ((8, 0), "bfloat16"), ((7, 5), "float32")])
def test_cuda_computes_in_bfloat16_from_ampere_on(monkeypatch, capability, expected):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    assert str(device_precision(torch.device("cuda"))) == expected
    assert str(device_precision(torch.device("mps"))) == "float32"


def test_tf32_is_allowed_beside_bfloat16_and_not_in_float32(monkeypatch):
    allowed = []
    monkeypatch.setattr(precision, "cudnn_kernels", allowed.append)
    for text in ("float32", "tf32", "bfloat16"):
        Precision.parse(text).kernels(torch.device("cuda"))
    assert allowed == [False, True, True]


def test_default_precision_follows_the_device_without_timing(tiny_settings, tiny_source, tmp_path, monkeypatch):
    assert Config.from_flat().hardware.precision is None
    monkeypatch.setattr("poolwise.training.calibration.CANDIDATES", ())  # a race would have nobody to win it
    api.search(tiny_settings.replace(precision=None, steps=2), tmp_path / "run", source=tiny_source)
    request = json.loads((tmp_path / "run/run.json").read_text())
    assert request["settings"]["precision"] is None
    assert request["calibration"]["precision"] == str(device_precision(CPU)) == request["plan"]["precision"]


def test_resumed_run_keeps_the_fastest_precision(tiny_settings, tiny_source):
    choices = {"precision": "float32", "parallel": {"workers": 1, "threads": 1, "slowdown": 1.0}}
    earlier = resolve(tiny_settings.replace(precision="auto"), tiny_source, choices)
    assert str(earlier.precision) == "float32"


def test_read_only_images_are_trained_on_without_a_warning(tiny_settings, tiny_source, tmp_path):
    def locked(part):
        arrays = part.images.copy(), part.labels.copy()
        for array in arrays:
            array.setflags(write=False)
        return ImageSet(*arrays)

    source = dataclasses.replace(tiny_source, train=locked(tiny_source.train), test=locked(tiny_source.test))
    config = tiny_settings.replace(steps=4, retrain_steps=2, retrain_seeds=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        poolwise.run(config, tmp_path / "run", source=source)
    writable, kept = np.zeros(3), np.zeros(3)
    kept.setflags(write=False)
    assert to_tensor(writable).data_ptr() == writable.ctypes.data
    assert to_tensor(kept).data_ptr() != kept.ctypes.data
