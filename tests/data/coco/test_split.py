"""The images of a split with their targets."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikeformers._install import command_for
from spikeformers.data import CocoData, TestSet, TrainingSet, test_loader, train_loader
from spikeformers.data.orientation import upright_array

MINIATURE = Path(__file__).parents[4] / "shared" / "data" / "coco_mini"
SQUARE = [2, 1, 6, 1, 6, 4, 2, 4]  # rows 1 to 3, columns 2 to 5


def test_targets_of_the_test_images(data):
    source = data.source(training=False)
    assert source.classes == ["cat", "dog", "bus"] and source.category_ids == [2, 17, 90]
    assert source.ids == [3, 7, 12] and len(source) == 3
    (image, target), label = TestSet(data)[1]
    assert label == 0 and image.shape == (3, 8, 10) and image.dtype == torch.float32
    assert torch.allclose(image[:, 0, 0], torch.tensor([200, 100, 50]) / 255)
    assert target["boxes"].tolist() == [[2, 1, 6, 4], [0, 4, 10, 8], [0, 0, 9, 8]]
    assert target["labels"].tolist() == [2, 3, 3] and target["labels"].dtype == torch.int64
    assert target["iscrowd"].tolist() == [0, 1, 0] and target["area"].tolist() == [11.5, 40, 3]
    assert target["image_id"] == 7


def test_boxes_without_area_are_left_out_and_counted(data):
    source = data.source(training=True)
    assert source.left_out_boxes == 1
    assert source.summary == (
        "3 images (1 without objects), 3 objects of 3 classes, 1 crowd regions, 1 boxes without area left out"
    )


@pytest.mark.parametrize("outline", [None, [], [[]], [SQUARE[:4]], {"size": [1, 1], "counts": "~"}], ids=str)
def test_the_outline_of_a_box_without_area_does_not_matter(data, tmp_path, outline, content, write):
    for size in ([0, 2], [2, 0]):
        write(tmp_path, change("annotations", 3, bbox=[3, 3, *size], segmentation=outline)(content()))
        source = data.source(training=False)
        assert source.left_out_boxes == 1 and len(source.target(1)["masks"]) == 3


def test_ids_of_any_size_are_told_apart(data, tmp_path, content, write):
    for first in (2**60, 2**70):
        ids, changed = {3: first, 7: first + 1, 12: first + 2}, content()
        for image in changed["images"]:
            image["id"] = ids[image["id"]]
        for annotation in changed["annotations"]:
            annotation["image_id"] = ids[annotation["image_id"]]
        write(tmp_path, changed)
        source = data.source(training=False)
        assert [source.target(index)["image_id"] for index in range(3)] == [first, first + 1, first + 2]
        assert [source.target(index)["labels"].tolist() for index in range(3)] == [[1], [2, 3, 3], []]


def test_masks_of_polygons_and_of_both_kinds_of_run_lengths(data):
    square, crowd, pieces = data.source(training=False).target(1)["masks"]
    want = torch.zeros(8, 10, dtype=torch.uint8)
    want[1:4, 2:6] = 1
    assert torch.equal(square, want)
    assert torch.equal(crowd[:4], torch.zeros_like(crowd[:4])) and crowd[4:].all()
    assert pieces.sum() == 3 and pieces[0, 0] and pieces[6:8, 8].all()
    (column,) = data.source(training=False).target(0)["masks"]
    assert column[:, 0].all() and column.sum() == 5


def test_training_has_no_crowds_and_keeps_empty_images(data):
    samples = TrainingSet(data, 0)
    (_, target), _ = samples[1, 0]
    assert target["labels"].tolist() == [2, 3] and target["iscrowd"].tolist() == [0, 0]
    (image, target), _ = samples[2, 0]
    assert image.shape == (3, 6, 6) and target["image_id"] == 12
    assert target["boxes"].shape == (0, 4) and target["masks"].shape == (0, 6, 6)
    without = CocoData(**{**vars(data), "empty": False})
    assert without.source(training=True).ids == [3, 7] and without.source(training=False).ids == [3, 7, 12]


def test_the_first_images_are_those_with_the_smallest_ids(data):
    assert CocoData(**{**vars(data), "first": 2}).source(training=False).ids == [3, 7]


def test_samples_are_plain_tensors(data):
    (image, target), _ = TrainingSet(data, 0)[1, 0]
    assert {type(value) for value in (image, *target.values())} == {torch.Tensor, int}


def test_batches_are_lists_and_the_same_with_workers(data):
    data.batch_size = 3
    alone = next(iter(train_loader(TrainingSet(data, 1))))
    helped = next(iter(train_loader(TrainingSet(CocoData(**{**vars(data), "workers": 1}), 1))))
    assert {tuple(image.shape) for image in alone[0]} == {(3, 8, 10), (3, 6, 6), (3, 5, 9)}
    for image, other, target, other_target in zip(alone[0], helped[0], alone[1], helped[1], strict=True):
        assert torch.equal(image, other) and torch.equal(target["masks"], other_target["masks"])


def test_padding_has_no_target(data):
    images, targets = next(iter(test_loader(TestSet(data), rank=1, world=2)))  # images 1 and 3, of which there is none
    assert len(images) == 1 and targets[0]["image_id"] == 7
    targets = [targets for _, targets in test_loader(TestSet(data), rank=1, world=2)][-1]
    assert targets == [None]


@pytest.mark.parametrize("damage", ["missing", "resized"])
def test_images_that_do_not_fit_are_left_out_or_stopped_at(data, tmp_path, damage):
    file = tmp_path / "train" / "b.png"
    if damage == "missing":
        file.unlink()
        message = "cannot read .*b.png"
    else:
        Image.new("RGB", (8, 10)).save(file)
        message = "cannot read .*b.png .it has 8x10 pixels, but image 7 in .*instances_train.json 10x8"
    samples = TestSet(data)
    with pytest.warns(UserWarning, match=message):
        targets = [data.collate([samples[index]])[1][0] for index in range(3)]
    assert targets[1] is None and [targets[0]["image_id"], targets[2]["image_id"]] == [3, 12]
    data.strict = True
    with pytest.raises(ValueError, match=message):
        TestSet(data)[1]


def test_grey_images_and_single_files(data, tmp_path):
    Image.new("L", (9, 5), 51).save(tmp_path / "train" / "a.png")
    (image, _), _ = TestSet(data)[0]
    assert torch.allclose(image, torch.full((3, 5, 9), 0.2)) and torch.equal(
        data.read(tmp_path / "train" / "a.png"), image
    )
    with pytest.raises(ValueError, match="no image file .*none.png"):
        data.read(tmp_path / "none.png")


def change(key, place, **changes):
    def apply(annotations):
        annotations[key][place].update(changes)
        return annotations

    return apply


def without(key, place, name):
    def apply(annotations):
        del annotations[key][place][name]
        return annotations

    return apply


def test_boxes_alone_need_neither_outlines_nor_their_library(data, tmp_path, monkeypatch, content, write):
    monkeypatch.setitem(sys.modules, "faster_coco_eval.core", None)
    with pytest.raises(ValueError, match=re.escape(command_for("dense"))):
        data.source(training=True)
    write(tmp_path, without("annotations", 0, "segmentation")(content()))
    data.masks = False
    (_, target), _ = TrainingSet(data, 0)[1, 0]
    assert "masks" not in target and target["boxes"].tolist() == [[2, 1, 6, 4], [0, 0, 9, 8]]
    assert target["area"].tolist() == [12, 72]


@pytest.mark.skipif(not MINIATURE.is_dir(), reason="the COCO miniature is not here")
def test_the_miniature_is_read_as_pycocotools_reads_it():
    reference = pytest.importorskip("pycocotools.coco").COCO(MINIATURE / "annotations" / "instances_val.json")
    source = CocoData(root=str(MINIATURE), val="val").source(training=False)
    assert source.ids == sorted(reference.imgs) and source.crowds == 5
    for index, image in enumerate(source.ids):
        annotations = reference.imgToAnns[image]
        target = source.target(index)
        assert len(annotations) == len(target["boxes"])
        for annotation, box, label, mask in zip(
            annotations, target["boxes"], target["labels"], target["masks"], strict=True
        ):
            left, top, width, height = annotation["bbox"]
            assert box.tolist() == pytest.approx([left, top, left + width, top + height], rel=1e-6)
            assert source.category_ids[label - 1] == annotation["category_id"]
            assert np.array_equal(mask.numpy(), reference.annToMask(annotation))


def test_a_training_set_of_crowds_only_is_an_error(data, tmp_path, content, write):
    crowds = content()
    for annotation in crowds["annotations"]:
        if annotation["id"] != 4:
            annotation["iscrowd"] = 1
    write(tmp_path, crowds)
    message = (
        r"has no object to train on: of 5 annotations 4 are crowd regions \(iscrowd 1\), .*, 1 have boxes without area"
    )
    with pytest.raises(ValueError, match=message):
        data.source(training=True)
    with pytest.raises(ValueError, match="no images with objects to train on .of 5 annotations 4 are crowd"):
        CocoData(**{**vars(data), "empty": False}).source(training=True)
    with pytest.warns(UserWarning, match="has no object to find: of 5 annotations 4 are crowd .*not defined"):
        assert len(data.source(training=False)) == 3


def test_boxes_and_outlines_in_shares_of_the_image_are_an_error(data, tmp_path, content, write):
    shares = content()
    for annotation in shares["annotations"]:
        annotation.update(bbox=[0.1, 0.2, 0.3, 0.4], segmentation=[[0.1, 0.1, 0.4, 0.1, 0.4, 0.4]])
    write(tmp_path, shares)
    with pytest.raises(
        ValueError, match="4 have less than 1 pixel of their boxes in the image; boxes are in pixels, not in shares"
    ):
        data.source(training=True)
    for annotation in shares["annotations"]:
        annotation.update(bbox=[1, 1, 3, 3], iscrowd=0)
    write(tmp_path, shares)
    with pytest.raises(ValueError, match="no mask has a pixel in its image; the points"):
        data.source(training=True)
    data.masks = False
    assert data.source(training=True).objects == 5


def test_a_split_is_not_refused_for_its_first_outlines(tmp_path, write):
    shared = {"category_id": 1, "bbox": [1, 1, 5, 5], "iscrowd": 0, "area": 25}
    outlines = [[90, 90, 95, 90, 95, 95]] * 60 + [SQUARE]
    images = [{"id": key, "file_name": "a.png", "width": 10, "height": 8} for key in range(61)]
    annotations = [{"id": key, "image_id": key, "segmentation": [outlines[key]], **shared} for key in range(61)]
    write(tmp_path, {"images": images, "categories": [{"id": 1, "name": "a"}], "annotations": annotations})
    assert len(CocoData(root=str(tmp_path), train="train").source(training=True)) == 61


def test_objects_in_other_images_than_the_first(data, tmp_path, content, write):
    changed = content()
    changed["annotations"] = changed["annotations"][:1]
    write(tmp_path, changed)
    with pytest.raises(ValueError, match=r"the 1 objects are in other images than the first 1 \(data.first\)"):
        CocoData(**{**vars(data), "first": 1}).source(training=True)


def test_a_category_without_objects_is_told_of(data, tmp_path, content, write):
    changed = content()
    changed["categories"].append({"id": 91, "name": "yeti"})
    write(tmp_path, changed)
    with pytest.warns(UserWarning, match="has no object of 1 of its 4 categories: yeti"):
        assert data.source(training=True).absent == ["yeti"]


def test_outlines_that_leave_the_image_are_cut_off_there(data, tmp_path, content, write):
    write(tmp_path, change("annotations", 0, segmentation=[[-5000, 1, 6, 1, 6, 4, -5000, 4]])(content()))
    mask = data.source(training=False).target(1)["masks"][0]
    assert mask[1:4, :6].all() and mask.sum() == 18


@pytest.mark.parametrize("stated", ["upright", "as stored"])
def test_boxes_and_masks_lie_on_the_upright_photo(tmp_path, stated, write):
    """A photo that a phone stores lying on its side, with a white object above on the left."""
    pixels = np.zeros((60, 40, 3), np.uint8)
    pixels[5:25, 2:12] = 255
    box = [2, 5, 10, 20] if stated == "upright" else [5, 28, 20, 10]
    left, top, width, height = box
    outline = [left, top, left + width, top, left + width, top + height, left, top + height]
    size = {"width": 40, "height": 60} if stated == "upright" else {"width": 60, "height": 40}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "segmentation": [outline]}
    write(
        tmp_path,
        {
            "images": [{"id": 1, "file_name": "1.png", **size}],
            "categories": [{"id": 1, "name": "a"}],
            "annotations": [annotation],
        },
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(pixels).copy()).save(tmp_path / "train" / "1.png", exif=exif)
    data = CocoData(root=str(tmp_path), train="train", val="train", hflip=0)
    for samples, key in ((TestSet(data), 0), (TrainingSet(data, 0), (0, 0))):
        (image, target), _ = samples[key]
        assert image.shape == (3, 60, 40) and target["boxes"].tolist() == [[2, 5, 12, 25]]
        assert torch.equal(target["masks"][0].bool(), image[0] > 0.5)
    assert torch.equal(image, data.read(tmp_path / "train" / "1.png"))


@pytest.mark.parametrize("as_stored", [False, True])
@pytest.mark.parametrize("orientation, side", [(2, 20), (3, 20), (4, 20), (5, 30), (8, 30)])
def test_photos_whose_size_does_not_tell_follow_those_whose_does(tmp_path, orientation, side, as_stored, write):
    """Image 1 stands upside down, is mirrored or square; image 2 lies on its side, so that its stated size tells."""
    images, annotations, stored = [], [], {}
    for key, (turn, shape) in enumerate([(orientation, (side, 30)), (6, (20, 30))], 1):
        stored[key] = np.zeros(shape, np.uint8)
        stored[key][2:7, 3:13] = 255
        seen = stored[key] if as_stored else upright_array(stored[key], turn)
        (rows, columns), (height, width) = np.nonzero(seen), seen.shape
        box = [int(value) for value in (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)]
        left, top, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
        outline = [left, top, right, top, right, bottom, left, bottom]
        images.append({"id": key, "file_name": f"{key}.png", "width": width, "height": height})
        annotations.append({"id": key, "image_id": key, "category_id": 1, "bbox": box, "segmentation": [outline]})
    write(tmp_path, {"images": images, "categories": [{"id": 1, "name": "a"}], "annotations": annotations})
    for key, turn in ((1, orientation), (2, 6)):
        exif = Image.Exif()
        exif[0x0112] = turn
        Image.fromarray(stored[key]).save(tmp_path / "train" / f"{key}.png", exif=exif)
    data = CocoData(root=str(tmp_path), train="train", val="train", hflip=0)
    way = "as it is stored" if as_stored else "turned upright"
    with pytest.warns(
        UserWarning, match=f"1 photo is to be mirrored or turned .* on the photo {way}, as 1 of the 1 are"
    ):
        samples = TestSet(data)
    for index in (0, 1):
        (image, target), _ = samples[index]
        assert torch.equal(target["masks"][0].bool(), image[0] > 0.5)
        left, top, right, bottom = target["boxes"][0].int().tolist()
        assert image[0, top:bottom, left:right].min() == 1 and image[0].sum() == (bottom - top) * (right - left)
