"""All examples run."""

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import clean_environment

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("timm_model.py", "back to the default configuration: the output is bitwise equal"),
        ("own_module.py", "back to 3-2-2: the output is bitwise equal"),
        ("torchvision_folder.py", "retrained the pick and the default on 180 images"),
        ("finetune.py", "both runs used 24 training images"),
        ("export_onnx.py", "shape of the logits of four images: (4, 3)"),
    ],
)
def test_examples_run(name, last, tmp_path):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=tmp_path,
        env=clean_environment(),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == last


def test_every_example_is_run():
    listed = next(mark for mark in test_examples_run.pytestmark if mark.name == "parametrize").args[1]
    assert {name for name, _ in listed} == {path.name for path in EXAMPLES.glob("*.py")}
