"""Short version of benchmarks/reliability/fuzz.py: random and damaged input for every parser."""

import contextlib
import importlib.util
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolwise.config import Config
from poolwise.errors import PoolwiseError
from poolwise.sanitize import JSON_DEPTH, parse_json, read_bytes
from poolwise.spaces import Pooling, PoolingSpace
from poolwise.storage import read_json
from poolwise.storage.schemas import Space, validate

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
SHARES = {
    "pooling": 1000,
    "space json": 400,
    "run folder": 60,
    "tables": 40,
    "trials": 60,
    "checkpoints": 60,
    "flags": 60,
}


@pytest.fixture(scope="module")
def fuzzing(tmp_path_factory):
    path = Path(__file__).parents[2] / "benchmarks" / "reliability" / "fuzz.py"
    spec = importlib.util.spec_from_file_location("fuzz", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, module.Fuzzer(tmp_path_factory.mktemp("fuzz")).targets()


def test_damaged_input_raises_one_line(fuzzing):
    module, targets = fuzzing
    for name, (target, _) in targets.items():
        outcome = module.feed(name, target, SHARES.get(name, 100), seed=1)
        assert outcome["tracebacks"] == [], name
        assert outcome["refused"] > 0, name


def test_other_errors_are_detected(fuzzing):
    module, _ = fuzzing

    def broken(r):
        raise KeyError("x")

    assert module.feed("broken", broken, 3, seed=0)["wrong"] == 3


@given(st.text())
def test_poolings(text):
    with contextlib.suppress(PoolwiseError):
        assert str(Pooling.parse(text)).replace("-", "").isascii()


@given(VALUES)
def test_spaces_and_settings(value):
    for read in (
        lambda: PoolingSpace(**validate(Space, value, "space: ").to_json()),
        lambda: Config.from_flat(value if isinstance(value, dict) else {"model": value}),
        lambda: Config.from_flat(model=value),
        lambda: Config.from_flat(steps=value, seed=value),
        lambda: Config.from_flat(only=value, profile=value),
    ):
        with contextlib.suppress(PoolwiseError):
            read()


@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_bytes_as_json(data):
    with contextlib.suppress(PoolwiseError):
        parse_json(data, "it")


def test_json_size_and_depth_are_limited(tmp_path):
    nested = "[" * (JSON_DEPTH - 1) + "]" * (JSON_DEPTH - 1)
    assert parse_json(nested, "it")
    for text, message in (
        ("[" * (JSON_DEPTH + 1) + "]" * (JSON_DEPTH + 1), "nested more than"),
        ("[" * 10**6, "nested too deeply"),
        ("9" * 10_000, "cannot be read"),
    ):
        with pytest.raises(PoolwiseError, match=message):
            parse_json(text, "it")
    with pytest.raises(PoolwiseError, match="has more than 1 MiB"):
        parse_json(b"[]" + b" " * 2**20, "it", 2**20)
    with (tmp_path / "run.json").open("wb") as file:
        file.truncate(2**40)  # takes no disk
    with pytest.raises(PoolwiseError, match="has more than 256 MiB"):
        read_json(tmp_path / "run.json")
    for path in (Path("/dev/zero"), tmp_path):
        with pytest.raises(PoolwiseError, match="is not a regular file"):
            read_bytes(path, 10)
