"""Images on disk: the same bytes as in memory, also after changes to the cache."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import poolwise
from conftest import clean_environment
from poolwise.cli import main
from poolwise.datasets import decoding
from poolwise.datasets.loading import load
from poolwise.datasets.packed import Packed, store
from poolwise.errors import RequestError, RunFailure
from poolwise.experiment import resolve
from poolwise.pipeline.estimates import plan

POOLWISE = shutil.which("poolwise", path=str(Path(sys.executable).parent))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POOLWISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


def read(root, **how):
    return load(f"folder:{root}", image_size=8, **how)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-9, 8), max_size=20), st.lists(st.integers(0, 8), min_size=1, max_size=9))
def test_packed_images_are_indexed_like_an_array(tmp_path_factory, wanted, rows):
    images = np.random.default_rng(0).integers(0, 256, (9, 2, 3, 3), dtype=np.uint8)
    path = tmp_path_factory.getbasetemp() / "pixels.rgb"
    store(images, path)
    packed = Packed(path, (2, 3, 3), np.arange(9))
    assert np.array_equal(packed[np.array(wanted, np.int64)], images[np.array(wanted, np.int64)])
    some = pickle.loads(pickle.dumps(packed.subset(np.array(rows))))  # noqa: S301 (our own)
    assert np.array_equal(some[1:], images[rows][1:])
    assert (some.shape, some.nbytes, len(some)) == (images[rows].shape, images[rows].nbytes, len(rows))


def test_streamed_images_equal_those_in_memory(image_folder):
    held, streamed = read(image_folder, stream="off"), read(image_folder, stream="on")
    assert isinstance(held.train.images, np.ndarray)
    assert isinstance(streamed.train.images, Packed)
    assert np.array_equal(streamed.train.images[:], held.train.images)
    assert streamed.fingerprint() == held.fingerprint()
    assert streamed.train.held_bytes == held.cached_bytes == 0
    assert streamed.cached_bytes == 16 * 8 * 8 * 3
    assert isinstance(read(image_folder, room=100).train.images, Packed)
    assert isinstance(read(image_folder, room=10**6).train.images, np.ndarray)


@pytest.mark.slow
def test_search_gives_the_same_bytes_streamed_and_in_memory(image_folder, tiny_settings, tmp_path):
    results = []
    for stream, workers in (("off", 1), ("on", 2)):
        config = tiny_settings.replace(data=f"folder:{image_folder}", image_size=8, batch_size=4, steps=16, block=8,
            stream=stream, workers=workers, threads=1,
        )  # fmt: skip
        out = tmp_path / f"{stream}{workers}"
        poolwise.search(config, out)
        poolwise.rank(out)
        ranking = json.loads((out / "ranking.json").read_text())
        results.append((ranking["ranking"], ranking["data"], (out / "checkpoints" / "search.safetensors").read_bytes()))
    assert results[0] == results[1]


def test_cached_images_are_decoded_again_only_after_a_change(image_folder, cache, monkeypatch):
    first = read(image_folder, cache_images=True)
    assert isinstance(first.train.images, np.ndarray)
    reads = []
    true = decoding.picture.read
    monkeypatch.setattr(decoding.picture, "read", lambda *a: reads.append(a) or true(*a))
    assert read(image_folder, stream="on").fingerprint() == first.fingerprint()
    assert not reads
    Image.new("RGB", (20, 20), "red").save(image_folder / "dogs" / "0.png")
    assert read(image_folder, stream="on").fingerprint() != first.fingerprint()
    assert len(reads) == 16
    (pixels,) = cache.glob("*/*.rgb")  # the older state is gone
    content = pixels.read_bytes()
    pixels.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # one bit
    again = read(image_folder, stream="on")
    assert len(reads) == 32
    assert pixels.read_bytes() == content
    assert len(again.train) + len(again.test) == 16


def test_cache_lists_broken_files(image_folder):
    (image_folder / "dogs" / "broken.png").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(
            RequestError, match=r"1 of 17 images cannot be read: 'dogs/broken.png' \(the file is empty\)"
        ):
            read(image_folder, stream="on")
    streamed = read(image_folder, stream="on", skip_broken=True)
    assert streamed.skipped == ("dogs/broken.png",)
    assert streamed.fingerprint() == read(image_folder, skip_broken=True).fingerprint()


def test_missing_or_truncated_cache_file_is_reported(image_folder, cache):
    source = read(image_folder, stream="on")
    (pixels,) = cache.glob("*/*.rgb")
    os.truncate(pixels, 1000)
    with pytest.raises(RunFailure, match="are truncated; run the same command again to rebuild them"):
        source.fingerprint()
    pixels.unlink()
    source = pickle.loads(pickle.dumps(source))  # noqa: S301 (as a worker has it, which opens the file itself)
    with pytest.raises(RunFailure, match="No such file"):
        source.fingerprint()


def test_insufficient_disk_and_memory_are_reported(image_folder, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=decoding._SPARE + 3000))
    with pytest.raises(RequestError, match="POOLWISE_CACHE to a larger disk"):
        read(image_folder, stream="on")
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=3000))
    with pytest.raises(RequestError, match="use --stream on or a smaller --image-size"):
        read(image_folder, stream="off")
    with pytest.raises(RequestError, match="omit --no-cache-images"):
        read(image_folder, cache_images=False)


def test_full_disk_leaves_no_files(image_folder, cache):
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        " resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        f" from poolwise.datasets.loading import load; load({f'folder:{image_folder}'!r}, image_size=8, stream='on')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean_environment())
    assert "RunFailure: cannot write the cache" in done.stderr
    assert not [path for path in cache.iterdir() if path.suffix != ".lock"]
    assert len(read(image_folder, stream="on").train) > 0


def test_plan_of_a_streamed_search_counts_disk_not_memory(image_folder, tiny_settings):
    config = tiny_settings.replace(data=f"folder:{image_folder}", image_size=64, batch_size=4)
    held, streamed = (plan(resolve(config.replace(stream=s)), ["search"]) for s in ("off", "on"))
    assert held.streamed_bytes == 0
    assert streamed.streamed_bytes == 16 * 64 * 64 * 3
    assert held.memory_bytes - streamed.memory_bytes == streamed.streamed_bytes
    assert "of images in the cache" in streamed.lines()[-1]


def test_data_command_fills_the_cache(image_folder, cache, capsys):
    (image_folder / "dogs" / "broken.png").write_bytes(b"GIF89a")
    arguments = ["data", f"folder:{image_folder}", "--image-size", "8"]
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "--skip-broken" in message
    main([*arguments, "--skip-broken", "--json"])
    assert json.loads(capsys.readouterr().out)["skipped"] == ["dogs/broken.png"]
    assert len(list(cache.glob("*/*.rgb"))) == 1


@pytest.mark.slow
def test_installed_command_on_a_streamed_folder(image_folder, tmp_path):
    (image_folder / "dogs" / "broken.png").write_bytes(b"GIF89a")
    out, data = tmp_path / "run", f"folder:{image_folder}"
    arguments = [
        *(
            "run",
            "--data",
            data,
            "--image-size",
            8,
            "--stream",
            "on",
            "--skip-broken",
            "--augment",
            "cutout",
            "--width",
            2,
        ),
        *("--steps", 8, "--batch-size", 4, "--supernets", 2, "--retrain-steps", 2, "--retrain-seeds", 2, "--out", out),
        *("--device", "cpu", "--precision", "float32"),
    ]
    environment = {**clean_environment(), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [POOLWISE, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    request = json.loads((out / "run.json").read_text())
    assert request["data"]["skipped"] == ["dogs/broken.png"]
    assert (request["settings"]["stream"], request["settings"]["augment"]) == ("on", "cutout")
    assert request["plan"]["streamed_bytes"] == 16 * 8 * 8 * 3
    assert "skipped: 1" in (out / "report.html").read_text()
