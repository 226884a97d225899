"""Tabular benchmarks: loading, queries and damaged files."""

import json
import shutil
from importlib import resources

import pytest

from poolwise import tables
from poolwise.errors import RequestError
from poolwise.statistics import kendall_tau_a

PUBLISHED = "resnet20-cifar10-published"


def test_published_table():
    table = tables.load(PUBLISHED)
    assert PUBLISHED in tables.names()
    assert len(table.space) == 36
    assert table.columns[:3] == ["standalone_mean", "standalone_std", "supernets1_mean"]
    assert (len(table.columns), table.columns[-1]) == (10, "supernets8_std")
    accuracy = dict(zip(map(str, table.space), table.column("standalone_mean"), strict=True))
    assert (accuracy["4-3-3"], accuracy["7-1-2"], max(accuracy, key=accuracy.get)) == (90.52, 92.01, "7-1-2")
    assert table.query("4-3-3") == 90.52
    assert table.ceiling() is None
    assert 0.05 < table.noise() < 0.3


def test_all_packaged_tables_load():
    for name in tables.names():
        table = tables.load(name)
        assert table.name == name
        assert all(len(table.column(column)) == len(table.space) for column in table.columns)
        for seed in table.seeds:
            assert table.query(table.space[0], seed) == table.column(f"seed{seed}")[0]


def test_published_agreement():
    table = tables.load(PUBLISHED)
    truth = table.column("standalone_mean")
    taus = [round(kendall_tau_a(table.column(f"supernets{m}_mean"), truth), 2) for m in (1, 2, 4, 8)]
    assert taus == [0.15, 0.31, 0.60, 0.53]  # published as 0.14, truncated from 0.146


def test_unknown_names_are_rejected():
    with pytest.raises(RequestError, match="did you mean 'resnet20-cifar10-published'"):
        tables.load("resnet20-cifar10-publish")
    with pytest.raises(RequestError, match="Columns: standalone_mean"):
        tables.load(PUBLISHED).column("standalone")
    with pytest.raises(RequestError, match="means over seeds only"):
        tables.load(PUBLISHED).query("4-3-3", 1)
    with pytest.raises(RequestError, match="not in the space"):
        tables.load(PUBLISHED).query("4-3-4")


@pytest.fixture
def copy(tmp_path):
    folder = resources.files("poolwise.storage").joinpath("data")
    for ending in ("csv", "json"):
        with resources.as_file(folder.joinpath(f"{PUBLISHED}.{ending}")) as path:
            shutil.copy(path, tmp_path / f"mine.{ending}")
    return tmp_path


def change(folder, old, new):
    path = folder / "mine.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_table_on_disk_equals_the_packaged_one(copy):
    for path in (copy, copy / "mine.csv", copy / "mine.json"):
        assert tables.load(path).values == tables.load(PUBLISHED).values


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1-2-7,", "1-2-8,", "line 3: pooling '1-2-8' is not in the space"),
        ("1-2-7,", "1-1-8,", "line 3: 1-1-8 occurs twice"),
        ("1-2-7,", "hello,", "line 3: pooling 'hello'"),
        ("87.69", "nan", "line 3 has too many entries or one that is not finite"),
        ("87.69", "87.69,3", "too many"),
        ("87.69", "good", "not a number"),
        ("standalone_mean", "accuracy", "no column of mean accuracies"),
        ("pooling,", "name,", "no column 'pooling'"),
    ],
)
def test_damaged_tables(copy, old, new, message):
    change(copy, old, new)
    with pytest.raises(RequestError, match=message):
        tables.load(copy)


def test_inconsistent_files_are_rejected(copy):
    text = (copy / "mine.csv").read_text()
    (copy / "mine.csv").write_text("\n".join(text.splitlines()[:-2]) + "\n")
    with pytest.raises(RequestError, match="2 of 36 configurations are missing, among them"):
        tables.load(copy)
    about = json.loads((copy / "mine.json").read_text())
    (copy / "mine.json").write_text(json.dumps({**about, "space": {"layers": 9, "poolings": 2}}))
    with pytest.raises(RequestError, match="does not match its space"):
        tables.load(copy)
    (copy / "mine.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(RequestError, match="does not describe a space"):
        tables.load(copy)
    (copy / "mine.csv").write_bytes(b"\xff\xfe\x00")
    (copy / "mine.json").write_text(json.dumps(about))
    with pytest.raises(RequestError, match="cannot be read"):
        tables.load(copy)
    (copy / "mine.csv").unlink()
    with pytest.raises(RequestError, match="it holds none"):
        tables.load(copy)
