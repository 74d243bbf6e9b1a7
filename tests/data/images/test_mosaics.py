"""Images on large sheets."""

import numpy as np
import pytest
from PIL import Image

from spikeformers.data import ImageData, TestSet, TrainingSet

GREY = {"channels": 1, "mean": (0.5,), "std": (0.25,)}


def mosaic(root, labels=(3, 1, 2, 0, 1, 1, 2), arrays=None, tile=4):
    """Two sheets of 2 x 2 tiles; tile i is grey 10 * i. The last tile is empty."""
    for sheet in range(2):
        pixels = np.zeros((2 * tile, 2 * tile, 3), np.uint8)
        for place in range(4):
            row, column = divmod(place, 2)
            pixels[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile] = 10 * (4 * sheet + place)
        for split in ("train", "test"):
            Image.fromarray(pixels).save(root / f"{split}_{sheet:02d}.png")
    labels = np.array(labels, np.uint8)
    np.savez(root / "labels.npz", y_train=labels, y_test=labels[::-1], classes=["a", "b", "c", "d"], **(arrays or {}))


@pytest.mark.parametrize("arrays", [{}, {"tile": 4}], ids=["inferred", "stated"])
def test_mosaics(tmp_path, arrays):
    mosaic(tmp_path, arrays=arrays)
    data = ImageData("mosaics", str(tmp_path), img_size=4, **GREY)
    training, test = data.source(training=True), data.source(training=False)
    assert training.classes == ["a", "b", "c", "d"] and len(training) == len(test) == 7
    assert [training[i][1] for i in range(7)] == [3, 1, 2, 0, 1, 1, 2] and [test[i][1] for i in range(7)] == [
        2,
        1,
        1,
        0,
        2,
        1,
        3,
    ]
    assert [(training[i][0].size, training[i][0].getextrema()[0]) for i in range(7)] == [
        ((4, 4), (10 * i,) * 2) for i in range(7)
    ]
    assert training.where(5).endswith("train_01.png")
    assert TestSet(data)[2][0].unique().item() == pytest.approx((20 / 255 - 0.5) / 0.25)


def test_mosaics_that_do_not_fit(tmp_path):
    data = ImageData("mosaics", str(tmp_path))
    with pytest.raises(ValueError, match=r"cannot read .*labels.npz .*mosaics look like"):
        data.source(True)
    mosaic(tmp_path, labels=range(9), arrays={"tile": 4})
    with pytest.raises(ValueError, match="9 train labels for 8 tiles"):
        data.source(True)
    mosaic(
        tmp_path, labels=range(3)
    )  # one tile of 8 pixels, or three of 4, or of 2? 2 sheets of 8 x 8 pixels do not say
    with pytest.raises(ValueError, match="3 labels do not say how large the tiles of 2 sheets of 8x8 pixels are; add"):
        data.source(True)
    whole = (tmp_path / "labels.npz").read_bytes()
    (tmp_path / "labels.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot read .*labels.npz"):
        data.source(True)
    mosaic(tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / "train_01.png")
    with pytest.raises(ValueError, match="images of one size, not of"):
        data.source(True)


@pytest.mark.parametrize("size", [0, 60])
def test_a_damaged_sheet_costs_its_tiles_only(tmp_path, size):
    mosaic(tmp_path)
    whole = (tmp_path / "train_01.png").read_bytes()
    (tmp_path / "train_01.png").write_bytes(whole[:size])
    training = TrainingSet(ImageData("mosaics", str(tmp_path), img_size=4, **GREY), 0)
    with pytest.warns(UserWarning, match="cannot read .*train_01.png"):
        labels = [training[i, 0][1] for i in range(7)]
    assert labels == [3, 1, 2, 0, 3, 3, 3] and training.left_out.startswith("3 of 7 could not be read")


def test_mosaics_with_damaged_numbers(tmp_path):
    data = ImageData("mosaics", str(tmp_path))
    for labels, arrays, message in (
        (range(7), {"tile": 4}, "has the train label 4; give whole numbers from 0 to 3"),
        ((1, 2, 255), {"tile": 4}, "has the train label 255"),
        ((1, 2), {"tile": 0}, "tiles have a side of 0 pixels"),
        ((1, 2), {"tile": 9}, "tiles have a side of 9 pixels, but the sheets have 8x8"),
        ((1, 2), {"tile": -4}, "tiles have a side of -4 pixels"),
        (1, {}, "is a single number"),
    ):
        mosaic(tmp_path, labels=labels if np.ndim(labels) or not isinstance(labels, int) else [1], arrays=arrays)
        if labels == 1:
            np.savez(tmp_path / "labels.npz", y_train=np.array(1), y_test=np.array(1), classes=["a", "b"])
        with pytest.raises(ValueError, match=message):
            data.source(True)
