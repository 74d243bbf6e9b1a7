"""What broken files and annotations are told."""

import json
import os

import pytest

from spikeformers.data import CocoData, TestSet

SQUARE = [2, 1, 6, 1, 6, 4, 2, 4]  # rows 1 to 3, columns 2 to 5


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
def test_broken_annotations_name_their_file_and_id(data, tmp_path, damage, message, content):
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
def test_what_exporters_write_for_crowds_and_areas(data, tmp_path, crowd, content, write):
    """iscrowd as a table's column holds it, and an area that is null: the box's stands for it."""
    changed = content()
    changed["annotations"][0].update(iscrowd=crowd, area=None)
    write(tmp_path, changed)
    target = TestSet(data)[1][0][1]
    width, height = changed["annotations"][0]["bbox"][2:]
    assert target["iscrowd"][0] == int(crowd or 0) and target["area"][0] == width * height


@pytest.mark.parametrize(
    "damage, message",
    [
        (
            {"segmentation": [[0, 0, 1e7, 1e7, 20, 30]]},
            "annotation 5 has a polygon with the coordinate 1e.07, more than 1,000,000",
        ),
        ({"segmentation": [[0, 0, 2e8, 2e8, 20, 30]]}, "annotation 5 has a polygon with the coordinate"),
        ({"segmentation": [[-1e18, 0, 2, 2, 20, 30]]}, "annotation 5 has a polygon with the coordinate"),
        ({"segmentation": [[0, 0, float("inf"), 2, 20, 30]]}, "annotation 5 has the polygon .*finite"),
        ({"segmentation": [[0, 0, 10**400, 2, 20, 30]]}, "annotation 5 has the polygon"),
        (
            {"segmentation": [[0, 0, 1000, 8] * 2000]},
            "annotation 5 has an outline of 4,0.* pixels, which is more than 2,000,000",
        ),
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
def test_absurd_numbers_are_refused_when_the_file_is_read(data, tmp_path, damage, message, content):
    file = tmp_path / "annotations" / "instances_train.json"
    file.write_text(json.dumps(change("annotations", 4, **damage)(content())))
    with pytest.raises(ValueError, match=rf"instances_train.json.*{message}"):
        data.source(training=False)


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
