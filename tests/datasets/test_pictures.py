"""Image files of every supported type are read as 8-bit RGB."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from poolwise.datasets import picture


def read(path, size=8):
    with picture.strict() as formats:
        return picture.read(path, size, formats)


def saved(tmp_path, image, name, **how):
    image.save(tmp_path / name, **how)
    return read(tmp_path / name)


def test_greyscale_palette_and_bilevel(tmp_path):
    assert (saved(tmp_path, Image.new("L", (8, 8), 77), "grey.png") == 77).all()
    palette = Image.new("P", (8, 8), 3)
    palette.putpalette([0, 0, 0, 1, 1, 1, 2, 2, 2, 10, 200, 30])
    assert (saved(tmp_path, palette, "palette.png") == [10, 200, 30]).all()
    assert (saved(tmp_path, Image.new("1", (8, 8), 1), "bilevel.png") == 255).all()


def test_transparent_pixels_are_blended_with_white(tmp_path):
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    half.paste((200, 10, 10, 255), (0, 0, 4, 8))
    pixels = saved(tmp_path, half, "half.png")
    assert (pixels[:, :4] == [200, 10, 10]).all()
    assert (pixels[:, 4:] == 127).all()
    hidden = Image.new("LA", (8, 8), (90, 0))
    assert (saved(tmp_path, hidden, "hidden.png") == 255).all()
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 50, 60, 70])
    assert (saved(tmp_path, palette, "clear.png", transparency=1) == 255).all()


def test_16_bits_are_scaled_and_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    for name in ("deep.png", "deep.tif"):
        pixels = saved(tmp_path, Image.fromarray(values), name)
        assert np.abs(pixels[..., 0].astype(int) - values / 257).max() <= 0.5
        assert (pixels[0, 0, 0], pixels[-1, -1, 0]) == (0, 255)
    (tmp_path / "big.tif").write_bytes(big_endian_tiff(values))
    with Image.open(tmp_path / "big.tif") as opened:
        assert opened.mode == "I;16B"
    assert np.array_equal(read(tmp_path / "big.tif")[..., 0], read(tmp_path / "deep.tif")[..., 0])


def big_endian_tiff(values):
    """Return a square 16-bit image, most significant byte first, in one strip."""
    side = len(values)
    short = {256: side, 257: side, 258: 16, 259: 1, 262: 1, 278: side}
    long = {273: 8 + 2 + 8 * 12 + 4, 279: 2 * side * side}
    rows = {tag: struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in short.items()}
    rows |= {tag: struct.pack(">HHII", tag, 4, 1, value) for tag, value in long.items()}
    head = b"MM" + struct.pack(">HIH", 42, 8, 8) + b"".join(rows[tag] for tag in sorted(rows)) + bytes(4)
    return head + values.astype(">u2").tobytes()


def test_pixels_with_an_unknown_white_level_are_rejected(tmp_path):
    Image.new("F", (8, 8), 0.5).save(tmp_path / "float.tif")
    Image.new("I", (8, 8), 70_000).save(tmp_path / "deep.tif")
    for name in ("float.tif", "deep.tif"):
        with pytest.raises(picture.Unreadable, match="unknown white level"):
            read(tmp_path / name)


def test_cmyk_and_exif_and_animation(tmp_path):
    pixels = saved(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "print.jpg", quality=100)
    assert np.abs(pixels.astype(int) - [255, 0, 0]).max() < 12
    upright = Image.new("RGB", (8, 8), "black")
    upright.paste("white", (0, 0, 8, 4))  # the upper half
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    turned = saved(tmp_path, upright.transpose(Image.Transpose.ROTATE_90), "turned.png", exif=exif)
    assert np.array_equal(turned, np.asarray(upright))
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    assert (saved(tmp_path, frames[0], "moving.gif", save_all=True, append_images=frames[1:]) == [255, 0, 0]).all()
    assert (
        saved(tmp_path, frames[0], "moving.webp", save_all=True, append_images=frames[1:], lossless=True)[..., 0] > 250
    ).all()


def test_images_are_resized_and_center_cropped(tmp_path):
    wide = Image.new("RGB", (32, 8), "black")
    wide.paste("white", (12, 0, 20, 8))
    assert (saved(tmp_path, wide, "wide.png") == 255).all()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb(side):
    """Return a PNG of a few bytes that claims side x side pixels."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")


def test_decompression_bombs_are_rejected(tmp_path, recwarn):
    for side in (10_000, 20_000):  # above Pillow's limit, and above twice as much
        (tmp_path / "bomb.png").write_bytes(bomb(side))
        with pytest.raises(picture.Unreadable, match="more pixels than Pillow's limit"):
            read(tmp_path / "bomb.png")
    assert not recwarn.list


def test_empty_truncated_and_foreign_files(tmp_path):
    encoded = io.BytesIO()
    Image.effect_noise((40, 40), 50).convert("RGB").save(encoded, "JPEG")
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.jpg").write_bytes(encoded.getvalue()[:-400])
    (tmp_path / "text.png").write_text("no image")
    Image.new("RGB", (8, 8)).save(tmp_path / "print.eps")
    (tmp_path / "print.eps").rename(tmp_path / "postscript.png")  # Pillow would call another program
    for name, message in (("empty", "empty"), ("cut", "truncated"), ("text", "none of"), ("postscript", "none of")):
        with pytest.raises(picture.Unreadable, match=message):
            read(next(tmp_path.glob(f"{name}.*")))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"]), st.data())
def test_damaged_files_are_read_or_rejected(tmp_path_factory, kind, data):
    encoded = io.BytesIO()
    Image.linear_gradient("L").resize((12, 12)).convert("RGB").save(encoded, kind)
    content = bytearray(encoded.getvalue())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind.lower()}"
    path.write_bytes(bytes(content[: data.draw(st.integers(1, len(content)))]))
    with contextlib.suppress(picture.Unreadable):  # and nothing else is raised
        assert read(path).shape == (8, 8, 3)
