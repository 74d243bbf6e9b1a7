"""Folders of images and class masks: which values mean what, how images are resized and cut, and what errors say."""

import random
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from spikeformers.data import MaskData, TestSet, TrainingSet, data_names, data_type, test_loader, train_loader
from spikeformers.data.masks.augment import fitted
from spikeformers.data.reading import upright_array

IDENTITY = {"mean": (0, 0, 0), "std": (1, 1, 1)}
PLAIN = {"hflip": 0.0, "photometric": 0.0, "ratio": (1.0, 1.0), "cat_max_ratio": 1.0, **IDENTITY}


def write(root, name, mask, image=None, split="training"):
    """An image, black unless given, and its mask: a Pillow image or classes [H, W]."""
    for folder in ("images", "annotations"):
        (root / folder / split).mkdir(parents=True, exist_ok=True)
    mask = mask if isinstance(mask, Image.Image) else Image.fromarray(np.asarray(mask, np.uint8))
    mask.save(root / "annotations" / split / f"{name}.png")
    image = np.zeros((mask.height, mask.width, 3), np.uint8) if image is None else image
    Image.fromarray(image).save(root / "images" / split / f"{name}.png")


def masks(root, **options):
    return MaskData(root=str(root), val="training", **{"classes": 3, "batch_size": 1, **options})


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
def test_values_of_masks(tmp_path, options, want):
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
def test_masks_are_read_by_their_index(tmp_path, image):
    write(tmp_path, "1", image)
    with Image.open(tmp_path / "annotations" / "training" / "1.png") as saved:
        assert saved.mode == image.mode
    assert TestSet(masks(tmp_path, classes=4))[0][0][1].tolist() == VALUES.tolist()


def test_values_above_255_can_be_ignored(tmp_path):
    write(tmp_path, "1", Image.fromarray(np.array([[0, 1000, 65535]], np.uint16)))
    assert TestSet(masks(tmp_path, ignore=(1000, 65535)))[0][0][1].tolist() == [[0, 255, 255]]


def test_masks_of_colours_say_what_is_expected(tmp_path):
    write(tmp_path, "1", Image.new("RGB", (4, 4)))
    with pytest.raises(
        ValueError, match="mask .*1.png has the pixel format RGB.*expected is a PNG file, grey of 8 or 16"
    ):
        masks(tmp_path).source(training=False)


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
def test_pairs_that_do_not_fit_are_left_out_or_stopped_at(tmp_path, damage, message):
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


def test_where_the_classes_names_come_from(tmp_path):
    write(tmp_path, "1", VALUES % 3)
    with pytest.raises(ValueError, match="nothing states the classes .*data.classes, or the file .*classes.txt"):
        masks(tmp_path, classes=()).source(training=True)
    rows = [
        "Idx\tRatio\tTrain\tVal\tName",
        "1\t0.1\t11\t1\twall",
        "2\t0.1\t8\t1\tbuilding, edifice",
        "3\t0.1\t8\t1\tsky",
    ]
    (tmp_path / "objectInfo150.txt").write_text("\n".join(rows) + "\n")
    assert masks(tmp_path, classes=()).source(training=True).classes == ["wall", "building, edifice", "sky"]
    (tmp_path / "classes.txt").write_text("road\ncar\n\ntree\n")
    assert masks(tmp_path, classes=()).source(training=True).classes == ["road", "car", "tree"]
    assert masks(tmp_path, classes=3).source(training=True).classes == ["0", "1", "2"]
    with pytest.raises(ValueError, match="several classes called car"):
        masks(tmp_path, classes=("car", "tree", "car")).source(training=True)
    with pytest.raises(ValueError, match="256 classes; give 1 to 255"):
        masks(tmp_path, classes=256).source(training=True)


def test_other_layouts_and_no_images(tmp_path):
    write(tmp_path, "1", VALUES % 3)
    (tmp_path / "images" / "training").rename(tmp_path / "train")
    (tmp_path / "annotations" / "training").rename(tmp_path / "trainannot")
    layout = {"images": "{split}", "masks": "{split}annot", "train": "train"}
    assert TrainingSet(masks(tmp_path, **layout), 0)[0, 0][0][1].shape == (512, 512)
    with pytest.raises(
        ValueError, match="no images in .*images/training; the layout is ROOT/images/{split}/1.jpg with masks"
    ):
        masks(tmp_path).source(training=True)


@pytest.mark.parametrize(
    "shape, size, want",
    [
        ((480, 640), (2048, 512), (512, 683)),
        ((640, 480), (2048, 512), (683, 512)),
        ((100, 1000), (2048, 512), (205, 2048)),
        ((360, 480), (480, 360), (360, 480)),
        ((360, 480), (360, 480), (360, 480)),
    ],
)
def test_images_become_as_large_as_both_sides_allow(shape, size, want):
    assert fitted(shape, size) == want


def halves():
    """Left half black and class 0, right half white and class 1, 40 x 60 pixels."""
    classes = np.zeros((40, 60), np.uint8)
    classes[:, 30:] = 1
    return classes, np.repeat(classes[..., None] * 255, 3, axis=2)


def test_test_images_are_resized_and_their_targets_are_not(tmp_path):
    write(tmp_path, "1", *halves())
    data = masks(tmp_path, size=(90, 20), **IDENTITY)
    (image, target), _ = TestSet(data)[0]
    assert image.shape == (3, 20, 30) and image.dtype == torch.float32 and target.shape == (40, 60)
    assert image[:, :, :14].max() < 0.01 and image[:, :, 16:].min() > 0.99
    assert torch.equal(data.read(tmp_path / "images" / "training" / "1.png"), image)


def test_images_are_normalised(tmp_path):
    write(tmp_path, "1", *halves())
    (image, _), _ = TestSet(masks(tmp_path, size=(60, 40), mean=(0.5, 0.25, 0), std=(0.5, 1, 0.25)))[0]
    assert image[:, 0, 0].tolist() == [-1, -0.25, 0] and image[:, 0, -1].tolist() == [1, 0.75, 4]


def test_training_images_and_targets_are_cut_and_mirrored_alike(tmp_path):
    write(tmp_path, "1", *halves())
    options = {**PLAIN, "hflip": 0.5, "ratio": (0.75, 2.0), "cat_max_ratio": 0.9}
    samples = TrainingSet(masks(tmp_path, img_size=24, size=(60, 40), **options), 0)
    first, edges = set(), set()
    for draw in range(20):
        (image, target), _ = samples[0, draw]
        assert image.shape == (3, 24, 24) and target.shape == (24, 24) and target.dtype == torch.int64
        assert ((image[0] > 0.5) == (target == 1)).float().mean() > 0.95
        first.add(int(target[0, 0])), edges.add(int((target[0] == 1).sum()))
    assert first == {0, 1} and len(edges) > 5


def test_small_images_are_padded_at_the_right_and_the_bottom(tmp_path):
    write(tmp_path, "1", *halves())
    (image, target), _ = TrainingSet(masks(tmp_path, img_size=64, size=(60, 40), **{**PLAIN, "mean": (0.5,) * 3}), 0)[
        0, 0
    ]
    assert image.shape == (3, 64, 64)
    assert (target[:40, :60] != 255).all() and (target[40:] == 255).all() and (target[:, 60:] == 255).all()
    assert (image[:, :40, :60].abs() == 0.5).all()
    assert not image[:, 40:].any() and not image[:, :, 60:].any()  # 0 after normalisation


def test_squares_that_one_class_covers_are_drawn_again(tmp_path):
    classes = np.zeros((64, 64), np.uint8)
    classes[:32, :32] = 1
    classes[:8, :] = 255  # ignored pixels are no part of the whole
    write(tmp_path, "1", classes)
    options = {"img_size": 24, "size": (64, 64)}

    def largest_shares(limit):
        samples = TrainingSet(masks(tmp_path, **options, **{**PLAIN, "cat_max_ratio": limit}), 0)
        for draw in range(60):
            counts = torch.bincount(samples[0, draw][0][1].flatten(), minlength=256)[:255]
            yield float(counts.max() / counts.sum())

    assert sum(share > 0.75 for share in largest_shares(0.75)) <= 8
    assert sum(share > 0.75 for share in largest_shares(1.0)) >= 30


def test_a_square_of_one_class_is_taken_in_the_end(tmp_path):
    write(tmp_path, "1", np.zeros((30, 30)))
    (_, target), _ = TrainingSet(masks(tmp_path, img_size=16), 0)[0, 0]
    assert not target.any()


def test_changes_of_colour_keep_the_order_of_the_channels(tmp_path):
    image = np.zeros((16, 16, 3), np.uint8)
    image[..., 2], image[..., 1] = 200, 100
    write(tmp_path, "1", np.zeros((16, 16)), image)
    samples = TrainingSet(masks(tmp_path, img_size=16, size=(16, 16), **{**PLAIN, "photometric": 1.0}), 0)
    colours = [samples[0, draw][0][0][:, 0, 0] for draw in range(10)]
    assert all(blue > green > red for red, green, blue in colours)
    assert len({round(float(blue), 3) for _, _, blue in colours}) > 5


def test_augmentation_depends_on_seed_draw_and_index_only(tmp_path):
    rng = np.random.default_rng(0)
    for name in "ab":
        write(tmp_path, name, rng.integers(0, 3, (30, 40)), rng.integers(0, 256, (30, 40, 3), np.uint8))
    data = masks(tmp_path, img_size=24, size=(60, 30), batch_size=2)
    (images, targets), *_ = train_loader(TrainingSet(data, 4), epoch=3)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    data.workers = 1
    (again, targets_again), *_ = train_loader(TrainingSet(data, 4), epoch=3)
    assert torch.equal(torch.stack(images), torch.stack(again))
    assert torch.equal(torch.stack(targets), torch.stack(targets_again))
    assert not torch.equal(TrainingSet(data, 4)[0, 3][0][0], TrainingSet(data, 4)[0, 4][0][0])


def test_padding_has_no_target(tmp_path):
    for name in "abc":
        write(tmp_path, name, VALUES % 3)
    targets = [targets for _, targets in test_loader(TestSet(masks(tmp_path)), rank=1, world=2)]
    assert len(targets) == 2 and targets[0][0].shape == (2, 4) and targets[1] == [None]


def test_the_name_and_wrong_settings():
    assert data_type("masks") is MaskData and "masks" in data_names()
    for options, message in (
        ({"cat_max_ratio": 0}, "data.cat_max_ratio is 0"),
        ({"photometric": -1}, "data.photometric is -1"),
        ({"size": (512,)}, "data.size is"),
        ({"ratio": (2, 1)}, "data.ratio is"),
        ({"mean": (0.5,)}, r"data.mean is \(0.5,\); give a list of 3 numbers"),
        ({"ignore": -1}, "data.ignore is -1"),
    ):
        with pytest.raises(ValueError, match=message):
            MaskData(**options)


def test_masks_of_black_and_white_are_not_one_class_and_nothing(tmp_path):
    """0 and 255, as most tools save two classes: 255 is the ignored value, and the score over the class that is left was perfect."""
    write(tmp_path, "1", np.where(VALUES > 1, 255, 0))
    data = masks(tmp_path, classes=("background", "object"), train="training")
    message = r"no pixel in the 1 masks .* is of object \(1 of 2 classes\); 62.5% of their pixels have an ignored value .*255"
    with pytest.raises(ValueError, match=message):
        TrainingSet(data, 0)
    with pytest.warns(UserWarning, match=message):
        assert TestSet(data).source.absent == ["object"]
    assert TrainingSet(masks(tmp_path, classes=1), 0).source.absent == []
    with pytest.raises(ValueError, match="allowed are 0 to 1"):
        TestSet(masks(tmp_path, classes=2, ignore=7, strict=True))[0]


def test_masks_whose_pixels_are_all_ignored_are_an_error(tmp_path):
    write(tmp_path, "1", np.full((4, 4), 255))
    with pytest.raises(ValueError, match="is of 0, 1, 2 .*; 100.0% of their pixels have an ignored value"):
        TestSet(masks(tmp_path))


def test_a_class_without_a_pixel_is_told_of(tmp_path):
    write(tmp_path, "1", VALUES % 3)
    with pytest.warns(UserWarning, match=r"is of d, e \(2 of 5 classes\)"):
        assert TrainingSet(masks(tmp_path, classes=tuple("abcde")), 0).source.absent == ["d", "e"]


def test_a_class_in_the_last_mask_is_found(tmp_path, recwarn):
    for number in range(6):
        write(tmp_path, str(number), np.full((4, 4), number // 5))
    assert TestSet(masks(tmp_path, classes=2)).source.absent == [] and not len(recwarn)


def test_a_split_is_refused_for_what_none_of_its_masks_has_only(tmp_path):
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


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_masks_of_few_bits_keep_their_values(tmp_path, bits):
    """Pillow stretches grey of 2 and 4 bits over 0 to 255."""
    values = np.arange(16).reshape(2, 8) % 2**bits
    write(tmp_path, "1", np.zeros((2, 8)))
    packed = np.packbits((values[..., None] >> np.arange(bits)[::-1] & 1).astype(np.uint8).reshape(2, -1), axis=1)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 8, 2, bits, 0, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    content = b"".join(struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks)
    (tmp_path / "annotations" / "training" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert TestSet(masks(tmp_path, classes=2**bits))[0][0][1].tolist() == values.tolist()


@pytest.mark.parametrize("value", [-1, -65535, 65536, 2**31 - 1])
def test_values_that_would_wrap_are_named(tmp_path, value):
    write(tmp_path, "1", np.zeros((2, 8)))
    source = masks(tmp_path).source(training=False)
    with pytest.raises(ValueError, match=f"its mask .*1.png has the value {value}; allowed"):
        source._classes_of(np.array([[0, value]]), source.mask_file(0))


@pytest.mark.parametrize("drawn_on", ["the upright photo", "the photo as it is stored"])
def test_masks_turn_with_their_photos(tmp_path, drawn_on):
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


def write_photo(root, name, orientation, as_stored, shape):
    """A photo of two halves, and a mask drawn on it upright or as it is stored; returns the classes of the upright photo."""
    stored = np.zeros(shape, np.uint8)
    stored[: shape[0] // 2, : shape[1] // 2] = 1
    upright = upright_array(stored, orientation)
    write(root, name, stored if as_stored else upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.repeat(stored[..., None] * 255, 3, 2)).save(root / "images" / "training" / f"{name}.png", exif=exif)
    return upright


@pytest.mark.parametrize("orientation, shape", [(2, (8, 12)), (3, (8, 12)), (4, (8, 12)), (6, (8, 8)), (7, (8, 8))])
def test_photos_whose_masks_do_not_tell_follow_those_that_do(tmp_path, orientation, shape):
    data = masks(tmp_path, classes=2, size=(32, 8))
    want = write_photo(tmp_path, "1", orientation, False, shape)
    with pytest.warns(UserWarning, match="1 photo is to be mirrored or turned .* drawn on the photo turned upright, as most tools show it"):
        assert np.array_equal(data.source(training=False)[0][0][1], want)
    want = write_photo(tmp_path, "1", orientation, True, shape)
    lying = [write_photo(tmp_path, name, 6, True, (8, 12)) for name in "23"]
    write_photo(tmp_path, "4", 8, False, (8, 12))
    with pytest.warns(UserWarning, match="1 photo is .* on the photo as it is stored, as 2 of the 3 are whose size tells"):
        source = data.source(training=False)
    assert np.array_equal(source[0][0][1], want) and np.array_equal(source[1][0][1], lying[0])


def test_a_mask_that_says_how_it_is_turned_is_turned_so(tmp_path, recwarn):
    write_photo(tmp_path, "2", 6, True, (8, 12))
    want = write_photo(tmp_path, "1", 3, True, (8, 12))
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(upright_array(want, 3)).save(tmp_path / "annotations" / "training" / "1.png", exif=exif)
    assert np.array_equal(masks(tmp_path, classes=2).source(training=False)[0][0][1], want) and not len(recwarn)


def test_hidden_files_are_no_images_and_others_are_named(tmp_path):
    write(tmp_path, "1", VALUES % 3)
    folder = tmp_path / "images" / "training"
    (folder / "._1.png").write_bytes(b"of a file manager")
    (folder / "2.heic").write_bytes(b"")
    with pytest.warns(UserWarning, match="1 file is left out by name .*2.heic"):
        assert len(TestSet(masks(tmp_path))) == 1
