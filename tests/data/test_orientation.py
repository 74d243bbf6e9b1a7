"""Photos, masks and boxes turn as the camera says."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from spikeformers.data import ImageData, TestSet
from spikeformers.data.orientation import upright, upright_array, upright_boxes
from spikeformers.data.reading import read_image, stored_image


def saved(image, form, **options):
    content = io.BytesIO()
    image.save(content, form, **options)
    return io.BytesIO(content.getvalue())


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_photos_are_upright_in_training_tests_and_predictions_alike(tmp_path, form):
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24] = 255  # white above on the left
    for orientation in range(1, 9):
        # how a camera that stands so would store the photo: turning it as EXIF asks gives `pixels`
        stored = next(
            image
            for image in (
                Image.fromarray(np.ascontiguousarray(np.rot90(flip, k)))
                for flip in (pixels, pixels[:, ::-1])
                for k in range(4)
            )
            if np.array_equal(np.asarray(upright(image, orientation)), pixels)
        )
        exif = Image.Exif()
        exif[0x0112] = orientation
        folder = tmp_path / str(orientation) / "val" / "a"
        folder.mkdir(parents=True)
        quality = {"lossless": True} if form == "WEBP" else {"quality": 100} if form == "JPEG" else {}
        stored.save(folder / f"1.{form.lower()}", form, exif=exif, **quality)
        data = ImageData(
            "folder", str(tmp_path / str(orientation)), img_size=32, crop_pct=1.0, mean=(0,) * 3, std=(1,) * 3
        )
        seen = TestSet(data)[0][0]
        assert torch.equal(seen, data.read(folder / f"1.{form.lower()}"))
        assert np.abs(np.asarray(read_image(folder / f"1.{form.lower()}"), int) - pixels).mean() < 3
        assert seen[:, :16, :8].mean() > 0.95 and seen[:, 16:].mean() < 0.05


def test_arrays_and_boxes_turn_as_images_do():
    mask = np.zeros((5, 7), np.uint8)
    mask[1:3, 2:6] = 1
    for orientation in range(1, 9):
        turned = upright_array(mask, orientation)
        assert np.array_equal(turned, np.asarray(upright(Image.fromarray(mask), orientation)))
        rows, columns = np.nonzero(turned)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert upright_boxes(np.array([[2, 1, 6, 3]]), orientation, 7, 5).tolist() == [box]


def test_a_damaged_orientation_says_nothing():
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff\xff\xff\xff\xff\xff\xff"
    image, orientation = stored_image(saved(Image.new("RGB", (4, 2)), "JPEG", exif=exif))
    assert image.size == (4, 2) and orientation == 1
