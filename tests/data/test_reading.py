"""Opening image files: values of more than 8 bits, and files that are no pictures or never end."""

import io
import os
import struct

import numpy as np
import pytest
from PIL import Image

from spikeformers.data.reading import FORMATS, read_image, regular_file, upright_image

RAMP = np.linspace(0, 1, 48 * 64).reshape(48, 64)


def saved(image, form, **options):
    content = io.BytesIO()
    image.save(content, form, **options)
    return io.BytesIO(content.getvalue())


def big_endian(values):
    return Image.frombytes("I;16B", values.shape[::-1], values.astype(">u2").tobytes())


def white_is_zero():
    content = saved(Image.fromarray((65535 - RAMP * 65535).astype(np.uint16)), "TIFF").getvalue()
    tag = struct.pack("<HHI", 262, 3, 1)
    place = content.index(tag) + len(tag)
    return io.BytesIO(content[:place] + b"\0" + content[place + 1 :])


def colour_ppm(largest):
    values = np.repeat((RAMP * largest).astype(">u2")[..., None], 3, 2)
    return io.BytesIO(b"P6 64 48 %d\n" % largest + values.tobytes())


def signed_tiff(values, kind):
    """A TIFF file of whole numbers with a sign, which Pillow reads but does not write."""
    content = values.astype(kind).tobytes()
    height, width = values.shape
    tags = [
        (256, width),
        (257, height),
        (258, 8 * np.dtype(kind).itemsize),
        (259, 1),
        (262, 1),
        (273, 122),
        (277, 1),
        (279, len(content)),
        (339, 2),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return io.BytesIO(b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + content)


RAMPS = {
    "16-bit PNG": lambda: saved(Image.fromarray((RAMP * 65535).astype(np.uint16)), "PNG"),
    "16-bit TIFF": lambda: saved(Image.fromarray((RAMP * 65535).astype(np.uint16)), "TIFF"),
    "16-bit TIFF, big-endian": lambda: saved(big_endian(RAMP * 65535), "TIFF"),
    "16-bit TIFF, white is zero": white_is_zero,
    "16-bit PGM": lambda: io.BytesIO(b"P5 64 48 65535\n" + (RAMP * 65535).astype(">u2").tobytes()),
    "10-bit PGM": lambda: io.BytesIO(b"P5 64 48 1023\n" + (RAMP * 1023).astype(">u2").tobytes()),
    "16-bit JPEG 2000": lambda: saved(Image.fromarray((RAMP * 65535).astype(np.uint16)), "JPEG2000"),
    "10-bit PPM": lambda: colour_ppm(1023),
    "12-bit PPM": lambda: colour_ppm(4095),
    "12-bit PPM, plain": lambda: io.BytesIO(
        b"P2 64 48 4095\n" + b" ".join(b"%d" % value for value in (RAMP * 4095).astype(int).flat)
    ),
    "signed 16-bit TIFF": lambda: signed_tiff(RAMP * 32767, "<i2"),
    "signed 8-bit TIFF": lambda: signed_tiff((RAMP * 127).round(), "i1"),
    "float TIFF": lambda: saved(Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
    "float TIFF in 0..255": lambda: saved(Image.fromarray((RAMP * 255).astype(np.float32)), "TIFF"),
    "16-bit colour PNG": lambda: io.BytesIO(colour_of_16_bits()),
    "grey and alpha": lambda: saved(Image.fromarray((RAMP * 255).astype(np.uint8)).convert("LA"), "PNG"),
    "colour and alpha": lambda: saved(Image.fromarray((RAMP * 255).astype(np.uint8)).convert("RGBA"), "PNG"),
    "palette": lambda: saved(Image.fromarray((RAMP * 255).astype(np.uint8)).convert("P"), "PNG"),
    "CMYK": lambda: saved(Image.fromarray((RAMP * 255).astype(np.uint8)).convert("RGB").convert("CMYK"), "TIFF"),
}


def colour_of_16_bits():
    """A PNG file of 3 x 16 bits, which Pillow reads but does not write."""
    import zlib

    rows = np.repeat((RAMP * 65535).astype(">u2")[..., None], 3, 2)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = (b"IHDR", struct.pack(">IIBBBBB", 64, 48, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")
    parts = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("kind", RAMPS)
def test_a_ramp_from_black_to_white_stays_one(kind):
    image = upright_image(RAMPS[kind]())
    assert image.mode == "RGB" and image.size == (64, 48)
    coarse = {"palette": 0.03, "signed 8-bit TIFF": 0.5 / 127 + 0.5 / 255}.get(kind, 1 / 255)
    assert np.abs(np.asarray(image) / 255 - RAMP[..., None]).max() <= coarse


def test_black_and_white_of_one_bit():
    pixels = np.asarray(upright_image(saved(Image.fromarray(RAMP > 0.5), "PNG")))
    assert np.array_equal(pixels[..., 0], 255 * (RAMP > 0.5))


@pytest.mark.parametrize(
    "values, message",
    [
        (np.where(RAMP > 0.9, np.nan, RAMP).astype(np.float32), "pixels are no finite numbers"),
        (np.full(RAMP.shape, np.inf, np.float32), "no finite numbers"),
        ((RAMP * 4).astype(np.float32), "floating-point numbers from 0 to 4, which do not say what is white"),
        ((RAMP - 0.5).astype(np.float32), "floating-point numbers from -0.5"),
        ((RAMP * 2e9).astype(np.int32), "32-bit numbers from 0 to 2e"),
        (
            (RAMP * 255).astype(np.int32),
            "32-bit numbers from 0 to 255, which do not say what is white; give 8 or 16 bits",
        ),
        ((RAMP * 256).astype(np.int32), "32-bit numbers from 0 to 256"),
        ((RAMP * 100 - 50).astype(np.int32), "32-bit numbers from -50"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_values_without_a_white_are_refused(values, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        upright_image(saved(Image.fromarray(values), "TIFF"))
    saved_file = tmp_path / "a.tif"
    Image.fromarray(values).save(saved_file)
    with pytest.raises(ValueError, match=f"a.tif .*{message}"):
        read_image(saved_file)


@pytest.mark.parametrize("kind, low", [("<i2", -3), ("i1", -1)])
def test_negative_values_are_refused_instead_of_becoming_bright(kind, low):
    with pytest.raises(ValueError, match=f"-bit numbers from {low} to 9"):
        upright_image(signed_tiff(np.array([[low, 9]] * 40), kind))


@pytest.mark.parametrize("largest, kind", [(1023, "<u2"), (4095, "<u2"), (100, "u1")])
@pytest.mark.parametrize("magic", [b"P5", b"P6"])
def test_values_above_the_largest_that_is_stated_are_refused(magic, largest, kind):
    """Of which Pillow makes white: of files of the wrong order of bytes nearly all."""
    values = np.full((40, 60, 3 if magic == b"P6" else 1), largest if kind == "<u2" else 101).astype(kind)
    with pytest.raises(ValueError, match=f"it has the value .*, but states {largest} as the largest"):
        upright_image(io.BytesIO(magic + b" 60 40 %d\n" % largest + values.tobytes()))


@pytest.mark.parametrize("largest", [100, 32767])
def test_a_dark_image_stays_dark(largest):
    """No value of another image, nor the brightest of its own, says what is white."""
    assert np.asarray(upright_image(signed_tiff(np.full((48, 64), largest), "<i2"))).max() == round(
        largest / 32767 * 255
    )


def test_no_program_is_started(tmp_path, monkeypatch):
    gs, mark, picture = tmp_path / "gs", tmp_path / "ran", tmp_path / "cat.jpg"
    gs.write_text(f"#!/bin/sh\ntouch {mark}\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    picture.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(ValueError, match="not an image that Pillow can read"):
        read_image(picture)
    assert not mark.exists() and "EPS" not in FORMATS


def test_photos_with_a_second_picture_are_read():
    content = saved(Image.new("RGB", (8, 4), "red"), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 4))])
    assert upright_image(content).size == (8, 4)


def test_what_never_ends_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "folder.png").mkdir()
    for path, message in (
        (tmp_path / "a.png", "a pipe or a device"),
        (tmp_path / "folder.png", "a folder"),
        ("/dev/zero", "a pipe or"),
    ):
        with pytest.raises(ValueError, match=message):
            read_image(path)
    with pytest.raises(ValueError, match="a pipe or"), regular_file(tmp_path / "a.png"):
        pass
    with pytest.raises(ValueError, match="no image file .*none.png"):
        read_image(tmp_path / "none.png")


def test_small_files_that_stand_for_many_pixels_are_refused():
    with pytest.raises(ValueError, match="decompression bomb"):
        upright_image(io.BytesIO(b"P6 60000 60000 255\n" + bytes(100)))


@pytest.mark.parametrize(
    "error", [MemoryError("no room"), OverflowError("too large"), KeyError("name"), ZeroDivisionError()]
)
def test_whatever_a_decoder_raises_is_an_unreadable_file(tmp_path, monkeypatch, error):
    def fails(*_, **__):
        raise error

    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fails)
    with pytest.raises(ValueError, match=f"cannot read the image .*{type(error).__name__}"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("mode, side", [("L", 15_000), ("RGB", 16_500), ("F", 8_100)])
def test_an_image_of_more_memory_than_a_gigabyte_is_refused(mode, side, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    if mode == "F":
        content = b"Pf\n%d %d\n-1.0\n" % (side, side)
    else:
        content = b"P%d %d %d 255\n" % ({"L": 5, "RGB": 6}[mode], side, side)
    (tmp_path / "a.ppm").write_bytes(content + bytes(99))
    with pytest.raises(ValueError, match=f"its {side}x{side} pixels take more than 1 GiB"):
        upright_image(tmp_path / "a.ppm")
