"""The images of a split and their masks: pairs, missing classes, photos that lie on their side."""

import numpy as np
import pytest
import torch
from PIL import Image

from spikeformers.data import TestSet, TrainingSet, test_loader
from spikeformers.data.orientation import upright_array

IDENTITY = {"mean": (0, 0, 0), "std": (1, 1, 1)}


VALUES = np.array([[0, 1, 2, 3], [3, 2, 255, 0]])


@pytest.mark.parametrize(
    "damage, message",
    [
        (
            "value",
            "its mask .*b.png has the value 3; allowed are 0 to 2 for the 3 classes and ignored.*data.reduce_zero",
        ),
        ("size", "it has 4x2 pixels, but its mask .*b.png 2x4"),
        ("missing", "it has no mask .*annotations/training/b.png"),
        ("colours", "mask .*b.png has the pixel format RGB"),
        ("broken", "its mask .*annotations/training/b.png cannot be read: "),
    ],
)
def test_pairs_that_do_not_fit_are_left_out_or_stopped_at(tmp_path, damage, message, write, masks):
    write(tmp_path, "a", VALUES % 3)
    write(tmp_path, "b", VALUES if damage == "value" else VALUES % 3)
    mask = tmp_path / "annotations" / "training" / "b.png"
    if damage == "missing":
        mask.unlink()
    elif damage == "broken":
        mask.write_bytes(mask.read_bytes()[:50])
    elif damage == "size":
        Image.fromarray(np.zeros((4, 2), np.uint8)).save(mask)
    elif damage == "colours":
        Image.new("RGB", (4, 2)).save(mask)
    data = masks(tmp_path)
    samples = TestSet(data)
    with pytest.warns(UserWarning, match=rf"cannot read .*images/training/b.png .*{message}"):
        images, targets = data.collate([samples[0], samples[1]])
    assert len(images) == 2 and targets[0] is not None and targets[1] is None
    assert "b.png" in samples.left_out
    with pytest.raises(ValueError, match=message):
        TestSet(masks(tmp_path, strict=True))[1]


def halves():
    """Left half black and class 0, right half white and class 1, 40 x 60 pixels."""
    classes = np.zeros((40, 60), np.uint8)
    classes[:, 30:] = 1
    return classes, np.repeat(classes[..., None] * 255, 3, axis=2)


def test_padding_has_no_target(tmp_path, write, masks):
    for name in "abc":
        write(tmp_path, name, VALUES % 3)
    targets = [targets for _, targets in test_loader(TestSet(masks(tmp_path)), rank=1, world=2)]
    assert len(targets) == 2 and targets[0][0].shape == (2, 4) and targets[1] == [None]


def test_masks_of_black_and_white_are_not_one_class_and_nothing(tmp_path, write, masks):
    """0 and 255, as most tools save two classes: 255 is the ignored value, and the score over the class that is left was perfect."""
    write(tmp_path, "1", np.where(VALUES > 1, 255, 0))
    data = masks(tmp_path, classes=("background", "object"), train="training")
    message = (
        r"no pixel in the 1 masks .* is of object \(1 of 2 classes\); 62.5% of their pixels have an ignored value .*255"
    )
    with pytest.raises(ValueError, match=message):
        TrainingSet(data, 0)
    with pytest.warns(UserWarning, match=message):
        assert TestSet(data).source.absent == ["object"]
    assert TrainingSet(masks(tmp_path, classes=1), 0).source.absent == []
    with pytest.raises(ValueError, match="allowed are 0 to 1"):
        TestSet(masks(tmp_path, classes=2, ignore=7, strict=True))[0]


def test_masks_whose_pixels_are_all_ignored_are_an_error(tmp_path, write, masks):
    write(tmp_path, "1", np.full((4, 4), 255))
    with pytest.raises(ValueError, match="is of 0, 1, 2 .*; 100.0% of their pixels have an ignored value"):
        TestSet(masks(tmp_path))


def test_a_class_without_a_pixel_is_told_of(tmp_path, write, masks):
    write(tmp_path, "1", VALUES % 3)
    with pytest.warns(UserWarning, match=r"is of d, e \(2 of 5 classes\)"):
        assert TrainingSet(masks(tmp_path, classes=tuple("abcde")), 0).source.absent == ["d", "e"]


def test_a_class_in_the_last_mask_is_found(tmp_path, recwarn, write, masks):
    for number in range(6):
        write(tmp_path, str(number), np.full((4, 4), number // 5))
    assert TestSet(masks(tmp_path, classes=2)).source.absent == [] and not len(recwarn)


def test_a_split_is_refused_for_what_none_of_its_masks_has_only(tmp_path, write, masks):
    """400 masks of one class and ignored borders, of which every second is looked at at first; the second has the other class."""
    for number in range(400):
        write(tmp_path, f"{number:03}", [[0, 255]])
    with pytest.raises(ValueError, match="no pixel in the 400 masks looked at"):
        masks(tmp_path, classes=2).source(training=True)
    write(tmp_path, "001", [[1, 255]])
    assert masks(tmp_path, classes=2).source(training=True).absent == []
    for number in range(400):
        write(tmp_path, f"{number:03}", [[255, 255]])
    write(tmp_path, "001", [[1, 255]])
    with pytest.warns(UserWarning, match="is of 0"):
        assert masks(tmp_path, classes=2).source(training=False).absent == ["0"]


@pytest.mark.parametrize("drawn_on", ["the upright photo", "the photo as it is stored"])
def test_masks_turn_with_their_photos(tmp_path, drawn_on, write, masks):
    classes, image = halves()  # upright, 40 x 60
    write(tmp_path, "1", classes)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    Image.fromarray(np.rot90(image).copy()).save(tmp_path / "images" / "training" / "1.png", exif=exif)
    if drawn_on == "the photo as it is stored":
        Image.fromarray(np.rot90(classes).copy()).save(tmp_path / "annotations" / "training" / "1.png")
    (seen, target), _ = TestSet(masks(tmp_path, classes=2, size=(60, 40), **IDENTITY))[0]
    assert seen.shape == (3, 40, 60) and torch.equal(target, torch.from_numpy(classes).long())
    assert torch.equal(seen[0] > 0.5, target.bool())


def write_photo(write, root, name, orientation, as_stored, shape):
    """A photo of two halves, and a mask drawn on it upright or as it is stored; returns the classes of the upright photo."""
    stored = np.zeros(shape, np.uint8)
    stored[: shape[0] // 2, : shape[1] // 2] = 1
    upright = upright_array(stored, orientation)
    write(root, name, stored if as_stored else upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.repeat(stored[..., None] * 255, 3, 2)).save(
        root / "images" / "training" / f"{name}.png", exif=exif
    )
    return upright


@pytest.mark.parametrize("orientation, shape", [(2, (8, 12)), (3, (8, 12)), (4, (8, 12)), (6, (8, 8)), (7, (8, 8))])
def test_photos_whose_masks_do_not_tell_follow_those_that_do(tmp_path, orientation, shape, masks, write):
    data = masks(tmp_path, classes=2, size=(32, 8))
    want = write_photo(write, tmp_path, "1", orientation, False, shape)
    with pytest.warns(
        UserWarning,
        match="1 photo is to be mirrored or turned .* drawn on the photo turned upright, as most tools show it",
    ):
        assert np.array_equal(data.source(training=False)[0][0][1], want)
    want = write_photo(write, tmp_path, "1", orientation, True, shape)
    lying = [write_photo(write, tmp_path, name, 6, True, (8, 12)) for name in "23"]
    write_photo(write, tmp_path, "4", 8, False, (8, 12))
    with pytest.warns(
        UserWarning, match="1 photo is .* on the photo as it is stored, as 2 of the 3 are whose size tells"
    ):
        source = data.source(training=False)
    assert np.array_equal(source[0][0][1], want) and np.array_equal(source[1][0][1], lying[0])


def test_a_mask_that_says_how_it_is_turned_is_turned_so(tmp_path, recwarn, masks, write):
    write_photo(write, tmp_path, "2", 6, True, (8, 12))
    want = write_photo(write, tmp_path, "1", 3, True, (8, 12))
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(upright_array(want, 3)).save(tmp_path / "annotations" / "training" / "1.png", exif=exif)
    assert np.array_equal(masks(tmp_path, classes=2).source(training=False)[0][0][1], want) and not len(recwarn)


def test_hidden_files_are_no_images_and_others_are_named(tmp_path, write, masks):
    write(tmp_path, "1", VALUES % 3)
    folder = tmp_path / "images" / "training"
    (folder / "._1.png").write_bytes(b"of a file manager")
    (folder / "2.heic").write_bytes(b"")
    with pytest.warns(UserWarning, match="1 file is left out by name .*2.heic"):
        assert len(TestSet(masks(tmp_path))) == 1
