"""Data sets in COCO's JSON format: targets, outlines, augmentation, and what broken annotations are told."""

import json
import os
import random
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikeformers.data import CocoData, TestSet, TrainingSet, data_names, data_type, test_loader, train_loader
from spikeformers.data.coco.augment import CROP_SIDES
from spikeformers.data.coco.outlines import Outlines, uncompressed
from spikeformers.data.reading import upright_array

MINIATURE = Path(__file__).parents[3] / "shared" / "data" / "coco_mini"
SQUARE = [2, 1, 6, 1, 6, 4, 2, 4]  # rows 1 to 3, columns 2 to 5


def content():
    """Image 7 has two objects, a crowd and a box without width, image 3 one object, image 12 none."""
    return {
        "images": [
            {"id": 7, "file_name": "b.png", "width": 10, "height": 8},
            {"id": 12, "file_name": "c.png", "width": 6, "height": 6},
            {"id": 3, "file_name": "a.png", "width": 9, "height": 5},
        ],
        "categories": [{"id": 90, "name": "bus"}, {"id": 2, "name": "cat"}, {"id": 17, "name": "dog"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 17,
                "bbox": [2, 1, 4, 3],
                "area": 11.5,
                "iscrowd": 0,
                "segmentation": [SQUARE],
            },
            {
                "id": 2,
                "image_id": 7,
                "category_id": 90,
                "bbox": [0, 4, 10, 4],
                "area": 40,
                "iscrowd": 1,
                "segmentation": {"size": [8, 10], "counts": [4] + [4] * 19},
            },
            {
                "id": 3,
                "image_id": 3,
                "category_id": 2,
                "bbox": [0, 0, 1, 5],
                "segmentation": {"size": [5, 9], "counts": "05X1"},
            },
            {
                "id": 4,
                "image_id": 7,
                "category_id": 2,
                "bbox": [3, 3, 0, 2],
                "area": 0,
                "iscrowd": 0,
                "segmentation": [SQUARE],
            },
            {
                "id": 5,
                "image_id": 7,
                "category_id": 90,
                "bbox": [0, 0, 9, 8],
                "area": 3,
                "iscrowd": 0,
                "segmentation": [[0, 0, 1, 0, 1, 1, 0, 1], [8, 6, 9, 6, 9, 8, 8, 8]],
            },
        ],
    }


def write(root, annotations, split="train", colour=(200, 100, 50)):
    (root / split).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(annotations))
    for image in annotations["images"]:
        if "file_name" in image:
            Image.new("RGB", (image["width"], image["height"]), colour).save(root / split / image["file_name"])


@pytest.fixture
def data(tmp_path):
    write(tmp_path, content())
    return CocoData(root=str(tmp_path), train="train", val="train", hflip=0)


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
def test_the_outline_of_a_box_without_area_does_not_matter(data, tmp_path, outline):
    for size in ([0, 2], [2, 0]):
        write(tmp_path, change("annotations", 3, bbox=[3, 3, *size], segmentation=outline)(content()))
        source = data.source(training=False)
        assert source.left_out_boxes == 1 and len(source.target(1)["masks"]) == 3


def test_ids_of_any_size_are_told_apart(data, tmp_path):
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


def test_mirrored_boxes_and_masks_stay_with_the_image(data):
    data.hflip = 1.0
    (_, target), _ = TrainingSet(data, 0)[1, 0]
    assert target["boxes"].tolist() == [[4, 1, 8, 4], [1, 0, 10, 8]]
    assert target["masks"][0].nonzero().amin(0).tolist() == [1, 4]


def large(root, **options):
    """One image of 640 x 480 pixels with a red object on black at its left, and a small one in the corner."""
    left = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [100, 50, 200, 300]}
    left["segmentation"] = [[100, 50, 300, 50, 300, 350, 100, 350]]
    corner = {
        "id": 2,
        "image_id": 1,
        "category_id": 1,
        "bbox": [0, 0, 30, 30],
        "segmentation": [[0, 0, 30, 0, 30, 30, 0, 30]],
    }
    images = [{"id": 1, "file_name": "1.png", "width": 640, "height": 480}]
    annotations = {"images": images, "categories": [{"id": 1, "name": "red"}], "annotations": [left, corner]}
    write(root, annotations, colour=(0, 0, 0))
    pixels = np.zeros((480, 640, 3), np.uint8)
    pixels[50:350, 100:300, 0] = 255
    Image.fromarray(pixels).save(root / "train" / "1.png")
    return CocoData(root=str(root), train="train", val="train", **options)


@pytest.mark.parametrize("masks", [True, False])
def test_boxes_masks_and_image_are_cropped_alike(tmp_path, masks):
    samples = TrainingSet(large(tmp_path, crop=1.0, masks=masks), seed=1)
    shapes, counts = set(), set()
    for draw in range(12):
        (image, target), _ = samples[0, draw]
        height, width = image.shape[1:]
        assert CROP_SIDES[0] <= height <= CROP_SIDES[1] and CROP_SIDES[0] <= width <= CROP_SIDES[1]
        shapes.add((height, width))
        counts.add(len(target["labels"]))
        assert {len(value) for value in target.values() if torch.is_tensor(value)} == {len(target["labels"])}
        rows, columns = (image[0] > 0.5).nonzero().unbind(1)
        seen = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert (target["boxes"][0] - seen).abs().max() <= 1.5
        if masks:
            assert ((image[0] > 0.5) == target["masks"][0].bool()).float().mean() > 0.99
            assert target["area"][0] == target["masks"][0].sum()
        else:
            assert (target["area"][0] - len(rows)).abs() < 0.02 * len(rows)
    assert len(shapes) > 6 and counts == {1, 2}  # the corner is not always in


def test_augmentation_depends_on_seed_draw_and_index_only(tmp_path):
    data = large(tmp_path, crop=0.5, photometric=0.5)
    samples, again = TrainingSet(data, 3), TrainingSet(data, 3)
    wanted = [samples[0, draw][0] for draw in range(4)]
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    for draw in (3, 1, 0, 2):
        image, target = again[0, draw][0]
        assert torch.equal(image, wanted[draw][0]) and torch.equal(target["boxes"], wanted[draw][1]["boxes"])
    assert len({round(float(image.sum()), 2) for image, _ in wanted}) > 1


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


RUNS = {"size": [8, 10], "counts": [70, 10]}


@pytest.mark.parametrize(
    "damage, message",
    [
        (without("annotations", 4, "bbox"), "annotation 5 has no bbox"),
        (without("annotations", 4, "id"), "entry 5 of annotations has no id"),
        (without("images", 1, "width"), "image 12 has no width"),
        (without("categories", 0, "name"), "category 90 has no name"),
        (without("annotations", 0, "segmentation"), "annotation 1 has no segmentation; .*--data.masks false"),
        (change("images", 0, width=0), "image 7 has the size 0 x 8"),
        (change("images", 0, id=3), "two entries of images with the id 3"),
        (change("annotations", 0, id=5), "two entries of annotations with the id 5"),
        (change("categories", 0, name="dog"), "several categories called dog"),
        (change("annotations", 4, image_id=99), "annotation 5 has the image_id 99, which is none of the images"),
        (
            change("annotations", 4, category_id=1),
            "annotation 5 has the category_id 1, which is none of the categories",
        ),
        (change("annotations", 4, bbox=[1, 2, 3]), r"annotation 5 has the bbox \[1, 2, 3\]"),
        (change("annotations", 4, bbox=[1, 2, 3, float("nan")]), "annotation 5 has the bbox .*finite"),
        (change("annotations", 4, bbox=None), "annotation 5 has the bbox None"),
        (change("annotations", 4, iscrowd=2), "annotation 5 has the iscrowd 2"),
        (change("annotations", 4, segmentation=[SQUARE[:7]]), "annotation 5 has a polygon of 7 numbers"),
        (change("annotations", 4, segmentation=[SQUARE[:4]]), "annotation 5 has a polygon of 4 numbers"),
        (change("annotations", 4, segmentation=[[*SQUARE[:7], "x"]]), "annotation 5 has the polygon"),
        (change("annotations", 4, segmentation="x"), "annotation 5 has a segmentation that is neither"),
        (change("annotations", 4, segmentation={**RUNS, "size": [10, 8]}), r"annotation 5 has .* of size \[10, 8\]"),
        (change("annotations", 4, segmentation={**RUNS, "counts": [70, 9]}), "annotation 5 has .* of 79 pixels in all"),
        (
            change("annotations", 4, segmentation={**RUNS, "counts": [90, -10]}),
            "annotation 5 .* neither COCO's string nor",
        ),
        (change("annotations", 4, segmentation={**RUNS, "counts": "05X"}), "annotation 5 .* middle of a number"),
        (change("annotations", 4, segmentation={**RUNS, "counts": "05X1"}), "annotation 5 has .* of 45 pixels in all"),
        (change("annotations", 4, segmentation={**RUNS, "counts": "~"}), "annotation 5 has .* character '~'"),
    ],
)
def test_broken_annotations_name_their_file_and_id(data, tmp_path, damage, message):
    file = tmp_path / "annotations" / "instances_train.json"
    file.write_text(json.dumps(damage(content())))
    with pytest.raises(ValueError, match=rf"instances_train.json.*{message}"):
        data.source(training=True)


def test_broken_files(data, tmp_path):
    file = tmp_path / "annotations" / "instances_train.json"
    with pytest.raises(
        ValueError, match=r"no annotations .*instances_val2017.json; COCO's layout is .*instances_train.json"
    ):
        CocoData(root=str(tmp_path)).source(training=False)
    file.write_text(file.read_text()[:-20])
    with pytest.raises(ValueError, match="instances_train.json is no valid JSON"):
        data.source(training=True)
    file.write_text("[]")
    with pytest.raises(ValueError, match="instances_train.json has no list images"):
        data.source(training=True)


@pytest.mark.parametrize("crowd", [0.0, False, None, 1.0])
def test_what_exporters_write_for_crowds_and_areas(data, tmp_path, crowd):
    """iscrowd as a table's column holds it, and an area that is null: the box's stands for it."""
    changed = content()
    changed["annotations"][0].update(iscrowd=crowd, area=None)
    write(tmp_path, changed)
    target = TestSet(data)[1][0][1]
    width, height = changed["annotations"][0]["bbox"][2:]
    assert target["iscrowd"][0] == int(crowd or 0) and target["area"][0] == width * height


def test_boxes_alone_need_neither_outlines_nor_their_library(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval.core", None)
    with pytest.raises(ValueError, match=r"pip install 'spikeformers\[dense\]'"):
        data.source(training=True)
    write(tmp_path, without("annotations", 0, "segmentation")(content()))
    data.masks = False
    (_, target), _ = TrainingSet(data, 0)[1, 0]
    assert "masks" not in target and target["boxes"].tolist() == [[2, 1, 6, 4], [0, 0, 9, 8]]
    assert target["area"].tolist() == [12, 72]


def test_other_layouts(tmp_path):
    write(tmp_path, content())
    (tmp_path / "train" / "_annotations.json").write_text(json.dumps(content()))
    layout = {"images": "{split}", "annotations": "{split}/_annotations.json"}
    assert TestSet(CocoData(root=str(tmp_path), val="train", **layout))[2][0][1]["image_id"] == 12
    with pytest.raises(ValueError, match="no annotations .*val2017/_annotations.json"):
        CocoData(root=str(tmp_path), **layout).source(training=False)


def test_the_name_and_wrong_settings(tmp_path):
    assert data_type("coco") is CocoData and "coco" in data_names()
    with pytest.raises(ValueError, match="data.crop is 2"):
        CocoData(crop=2)
    with pytest.raises(ValueError, match="data.batch_size is 0"):
        CocoData(batch_size=0)


def test_compressed_run_lengths_are_those_of_the_library():
    mask_library = pytest.importorskip("faster_coco_eval.core.mask")
    masks = np.random.default_rng(0).random((300, 41, 7)) < np.linspace(0, 1, 7)
    for mask in np.moveaxis(masks, 2, 0).astype(np.uint8):
        counts = mask_library.encode(np.asfortranarray(mask))["counts"]
        runs = uncompressed(counts.decode() if isinstance(counts, bytes) else counts)
        assert np.array_equal(np.repeat(np.arange(len(runs)) % 2, runs).reshape(41, 300).T, mask)


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


def test_a_training_set_of_crowds_only_is_an_error(data, tmp_path):
    crowds = content()
    for annotation in crowds["annotations"]:
        if annotation["id"] != 4:
            annotation["iscrowd"] = 1
    write(tmp_path, crowds)
    message = r"has no object to train on: of 5 annotations 4 are crowd regions \(iscrowd 1\), .*, 1 have boxes without area"
    with pytest.raises(ValueError, match=message):
        data.source(training=True)
    with pytest.raises(ValueError, match="no images with objects to train on .of 5 annotations 4 are crowd"):
        CocoData(**{**vars(data), "empty": False}).source(training=True)
    with pytest.warns(UserWarning, match="has no object to find: of 5 annotations 4 are crowd .*not defined"):
        assert len(data.source(training=False)) == 3


def test_boxes_and_outlines_in_shares_of_the_image_are_an_error(data, tmp_path):
    shares = content()
    for annotation in shares["annotations"]:
        annotation.update(bbox=[0.1, 0.2, 0.3, 0.4], segmentation=[[0.1, 0.1, 0.4, 0.1, 0.4, 0.4]])
    write(tmp_path, shares)
    with pytest.raises(ValueError, match="4 have less than 1 pixel of their boxes in the image; boxes are in pixels, not in shares"):
        data.source(training=True)
    for annotation in shares["annotations"]:
        annotation.update(bbox=[1, 1, 3, 3], iscrowd=0)
    write(tmp_path, shares)
    with pytest.raises(ValueError, match="no mask has a pixel in its image; the points"):
        data.source(training=True)
    data.masks = False
    assert data.source(training=True).objects == 5


def test_a_split_is_not_refused_for_its_first_outlines(tmp_path):
    shared = {"category_id": 1, "bbox": [1, 1, 5, 5], "iscrowd": 0, "area": 25}
    outlines = [[90, 90, 95, 90, 95, 95]] * 60 + [SQUARE]
    images = [{"id": key, "file_name": "a.png", "width": 10, "height": 8} for key in range(61)]
    annotations = [{"id": key, "image_id": key, "segmentation": [outlines[key]], **shared} for key in range(61)]
    write(tmp_path, {"images": images, "categories": [{"id": 1, "name": "a"}], "annotations": annotations})
    assert len(CocoData(root=str(tmp_path), train="train").source(training=True)) == 61


def test_objects_in_other_images_than_the_first(data, tmp_path):
    changed = content()
    changed["annotations"] = changed["annotations"][:1]
    write(tmp_path, changed)
    with pytest.raises(ValueError, match=r"the 1 objects are in other images than the first 1 \(data.first\)"):
        CocoData(**{**vars(data), "first": 1}).source(training=True)


def test_a_category_without_objects_is_told_of(data, tmp_path):
    changed = content()
    changed["categories"].append({"id": 91, "name": "yeti"})
    write(tmp_path, changed)
    with pytest.warns(UserWarning, match="has no object of 1 of its 4 categories: yeti"):
        assert data.source(training=True).absent == ["yeti"]


@pytest.mark.parametrize(
    "damage, message",
    [
        ({"segmentation": [[0, 0, 1e7, 1e7, 20, 30]]}, "annotation 5 has a polygon with the coordinate 1e.07, more than 1,000,000"),
        ({"segmentation": [[0, 0, 2e8, 2e8, 20, 30]]}, "annotation 5 has a polygon with the coordinate"),
        ({"segmentation": [[-1e18, 0, 2, 2, 20, 30]]}, "annotation 5 has a polygon with the coordinate"),
        ({"segmentation": [[0, 0, float("inf"), 2, 20, 30]]}, "annotation 5 has the polygon .*finite"),
        ({"segmentation": [[0, 0, 10**400, 2, 20, 30]]}, "annotation 5 has the polygon"),
        ({"segmentation": [[0, 0, 1000, 8] * 2000]}, "annotation 5 has an outline of 4,0.* pixels, which is more than 2,000,000"),
        ({"segmentation": [[0, 0, 900_000, 0, 0, 9]] * 2}, "annotation 5 has an outline of"),
        ({"bbox": [0, 0, 1e7, 4]}, "annotation 5 has the bbox .*1,000,000 pixels away"),
        ({"bbox": [-1e18, 0, 4, 4]}, "annotation 5 has the bbox"),
        ({"bbox": [10**400, 0, 4, 4]}, "annotation 5 has the bbox"),
        ({"area": 1e300}, "annotation 5 has the area .*1e.300"),
        ({"area": 1e13}, "annotation 5 has the area 1e.13"),
        ({"area": -3}, "annotation 5 has the area -3"),
        ({"image_id": True}, "annotation 5 has the image_id True"),
        ({"image_id": []}, r"annotation 5 has the image_id \[\]"),
        ({"iscrowd": []}, r"annotation 5 has the iscrowd \[\]"),
        ({"segmentation": {**RUNS, "counts": [10**30, 2]}}, "annotation 5 has .* with a run longer than its image"),
        ({"segmentation": {**RUNS, "counts": "o" * 100}}, "annotation 5 has .* a number of more than 10 characters"),
    ],
)
def test_absurd_numbers_are_refused_when_the_file_is_read(data, tmp_path, damage, message):
    file = tmp_path / "annotations" / "instances_train.json"
    file.write_text(json.dumps(change("annotations", 4, **damage)(content())))
    with pytest.raises(ValueError, match=rf"instances_train.json.*{message}"):
        data.source(training=False)


def test_outlines_that_leave_the_image_are_cut_off_there(data, tmp_path):
    write(tmp_path, change("annotations", 0, segmentation=[[-5000, 1, 6, 1, 6, 4, -5000, 4]])(content()))
    mask = data.source(training=False).target(1)["masks"][0]
    assert mask[1:4, :6].all() and mask.sum() == 18


def test_compressed_run_lengths_take_linear_time():
    text = "00" + "1" * 400_000  # one per character; a run of ever more digits was quadratic
    start = time.perf_counter()
    runs = uncompressed(text)
    with pytest.raises(ValueError, match="more than 10 characters"):
        uncompressed("o" * 400_000)
    assert len(runs) == len(text) and time.perf_counter() - start < 5


@pytest.mark.parametrize(
    "text",
    ["[" * 200_000, '{"images": ' + "[" * 200_000, '{"images": ' + "9" * 5000 + "}", "\xff", "", "\x00"],
    ids=["nested", "nested in images", "a number of 5,000 digits", "no UTF-8", "empty", "a zero"],
)
def test_files_that_are_no_json_are_one_error(data, tmp_path, text):
    (tmp_path / "annotations" / "instances_train.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="instances_train.json is no valid JSON"):
        data.source(training=False)


def test_annotations_that_are_no_file(data, tmp_path):
    file = tmp_path / "annotations" / "instances_train.json"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ValueError, match="is a pipe or a device"):
        data.source(training=False)


def test_masks_that_take_gigabytes_are_refused():
    many = Outlines([([np.array([0.0, 0, 1, 0, 1, 1])], False)] * 3)
    with pytest.raises(ValueError, match="the masks of its 3 objects on 50000x50000 pixels take 7 GiB; give --data.masks false"):
        many.masks(range(3), 50_000, 50_000)


@pytest.mark.parametrize("stated", ["upright", "as stored"])
def test_boxes_and_masks_lie_on_the_upright_photo(tmp_path, stated):
    """A photo that a phone stores lying on its side, with a white object above on the left."""
    pixels = np.zeros((60, 40, 3), np.uint8)
    pixels[5:25, 2:12] = 255
    box = [2, 5, 10, 20] if stated == "upright" else [5, 28, 20, 10]
    left, top, width, height = box
    outline = [left, top, left + width, top, left + width, top + height, left, top + height]
    size = {"width": 40, "height": 60} if stated == "upright" else {"width": 60, "height": 40}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "segmentation": [outline]}
    write(tmp_path, {"images": [{"id": 1, "file_name": "1.png", **size}], "categories": [{"id": 1, "name": "a"}], "annotations": [annotation]})
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
def test_photos_whose_size_does_not_tell_follow_those_whose_does(tmp_path, orientation, side, as_stored):
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
    with pytest.warns(UserWarning, match=f"1 photo is to be mirrored or turned .* on the photo {way}, as 1 of the 1 are"):
        samples = TestSet(data)
    for index in (0, 1):
        (image, target), _ = samples[index]
        assert torch.equal(target["masks"][0].bool(), image[0] > 0.5)
        left, top, right, bottom = target["boxes"][0].int().tolist()
        assert image[0, top:bottom, left:right].min() == 1 and image[0].sum() == (bottom - top) * (right - left)


def test_strips_are_cut_without_becoming_gigabytes(tmp_path):
    image = {"id": 1, "file_name": "1.png", "width": 20_000, "height": 1}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 20_000, 1], "segmentation": [[0, 0, 20_000, 0, 20_000, 1, 0, 1]]}
    write(tmp_path, {"images": [image], "categories": [{"id": 1, "name": "a"}], "annotations": [annotation]})
    samples = TrainingSet(CocoData(root=str(tmp_path), train="train", crop=1.0), 0)
    assert {samples[0, draw][0][0].shape[1] for draw in range(3)} == {1}
