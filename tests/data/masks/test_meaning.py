"""Values in masks and the classes that they stand for."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from spikeformers.data import TestSet

VALUES = np.array([[0, 1, 2, 3], [3, 2, 255, 0]])


@pytest.mark.parametrize(
    "options, want",
    [
        ({"classes": 4}, [[0, 1, 2, 3], [3, 2, 255, 0]]),
        ({"classes": 3, "reduce_zero": True}, [[255, 0, 1, 2], [2, 1, 255, 255]]),
        ({"classes": 3, "ignore": (3, 255)}, [[0, 1, 2, 255], [255, 2, 255, 0]]),
        ({"classes": ("a", "b", "c"), "ignore": [255, 3]}, [[0, 1, 2, 255], [255, 2, 255, 0]]),
    ],
)
def test_values_of_masks(tmp_path, options, want, write, masks):
    write(tmp_path, "1", VALUES)
    (_, target), label = TestSet(masks(tmp_path, **options))[0]
    assert label == 0 and target.dtype == torch.int64 and target.tolist() == want


def palette(values):
    image = Image.fromarray(values.astype(np.uint8)).convert("P")
    image.putdata(values.flatten().tolist())
    image.putpalette([10, 20, 30] * 256)
    return image


@pytest.mark.parametrize(
    "image",
    [palette(VALUES), Image.fromarray(VALUES.astype(np.uint16)), Image.fromarray(VALUES.astype(np.uint8))],
    ids=["palette", "16 bits", "8 bits"],
)
def test_masks_are_read_by_their_index(tmp_path, image, write, masks):
    write(tmp_path, "1", image)
    with Image.open(tmp_path / "annotations" / "training" / "1.png") as saved:
        assert saved.mode == image.mode
    assert TestSet(masks(tmp_path, classes=4))[0][0][1].tolist() == VALUES.tolist()


def test_values_above_255_can_be_ignored(tmp_path, write, masks):
    write(tmp_path, "1", Image.fromarray(np.array([[0, 1000, 65535]], np.uint16)))
    assert TestSet(masks(tmp_path, ignore=(1000, 65535)))[0][0][1].tolist() == [[0, 255, 255]]


def test_masks_of_colours_say_what_is_expected(tmp_path, write, masks):
    write(tmp_path, "1", Image.new("RGB", (4, 4)))
    with pytest.raises(
        ValueError, match="mask .*1.png has the pixel format RGB.*expected is a PNG file, grey of 8 or 16"
    ):
        masks(tmp_path).source(training=False)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_masks_of_few_bits_keep_their_values(tmp_path, bits, write, masks):
    """Pillow stretches grey of 2 and 4 bits over 0 to 255."""
    values = np.arange(16).reshape(2, 8) % 2**bits
    write(tmp_path, "1", np.zeros((2, 8)))
    packed = np.packbits((values[..., None] >> np.arange(bits)[::-1] & 1).astype(np.uint8).reshape(2, -1), axis=1)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 8, 2, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    content = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    (tmp_path / "annotations" / "training" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert TestSet(masks(tmp_path, classes=2**bits))[0][0][1].tolist() == values.tolist()


@pytest.mark.parametrize("value", [-1, -65535, 65536, 2**31 - 1])
def test_values_that_would_wrap_are_named(tmp_path, value, write, masks):
    write(tmp_path, "1", np.zeros((2, 8)))
    source = masks(tmp_path).source(training=False)
    with pytest.raises(ValueError, match=f"its mask .*1.png has the value {value}; allowed"):
        source.meaning.classes_of(np.array([[0, value]]), source.mask_file(0))
