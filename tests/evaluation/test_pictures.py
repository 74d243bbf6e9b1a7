"""Pictures of what was found: colours, places of the texts, and files that do not overwrite each other."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms.functional import pil_to_tensor

from spikeformers import create_model
from spikeformers.cli import main
from spikeformers.data import CocoData, ImageData, MaskData
from spikeformers.evaluation import Shown, Trained, predict_any, save_trained
from spikeformers.evaluation.colours import colours
from spikeformers.evaluation.detection import run_lengths
from spikeformers.evaluation.pictures import PictureFolder, picture
from spikeformers.evaluation.task import files_among

NAMES = ["zebra", "bus", "traffic light"]


def found(boxes, labels, scores, masks=None):
    result = {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }
    result["scores"] = torch.tensor(scores)
    return result if masks is None else {**result, "masks": masks}


def pixels(image):
    return pil_to_tensor(image).int()


def has(image, colour):
    """Where an image has exactly that colour, [H, W]."""
    return (pixels(image) == torch.tensor(colour).view(3, 1, 1)).all(0)


def test_colours_differ_and_stay():
    some, many = colours(12), colours(256)
    assert many[:12] == some and len(set(many)) == 256
    distances = torch.cdist(torch.tensor(some).float(), torch.tensor(some).float()) + 1000 * torch.eye(12)
    assert distances.min() > 60


def test_objects_below_the_threshold_are_not_drawn():
    grey = Image.new("RGB", (160, 120), "grey")
    result = found([[10, 40, 60, 100], [90, 40, 150, 100]], [1, 3], [0.9, 0.3])
    first, third = colours(3)[0], colours(3)[2]
    high, low = picture(grey, result, NAMES), picture(grey, result, NAMES, threshold=0.3)
    assert high.size == low.size == grey.size
    assert has(high, first).any() and not has(high, third).any() and has(low, third).any()
    assert has(low, first)[40:101, 10].all() and has(low, third)[40:101, 150].all()  # the boxes' sides
    assert (pixels(high)[:, 60:80, 75:85] == 128).all() and grey.getpixel((10, 70)) == (128, 128, 128)
    nothing = found([], [], [], torch.zeros(0, 1, 120, 160))
    assert torch.equal(pixels(picture(grey, nothing, NAMES)), pixels(grey))


def test_masks_cover_their_pixels_only():
    mask = torch.zeros(1, 1, 120, 160)
    mask[..., 30:90, 20:70] = 0.8
    mask[..., 30:90, 70:100] = 0.4
    result = found([[20, 30, 69, 89]], [2], [0.9], mask)
    drawn = pixels(picture(torch.full((3, 120, 160), 0.5), result, NAMES))
    green = torch.tensor(colours(2)[1])
    inside = drawn[:, 50:80, 30:60].float()
    assert (inside - (green.view(3, 1, 1) + 128) / 2).abs().max() <= 1
    assert (drawn[:, 50:80, 75:] == 128).all()


@pytest.mark.parametrize("size", [(40, 30), (320, 240), (24, 200)])
def test_texts_stay_inside_and_apart(size):
    width, height = size
    boxes = [
        [0, 0, 5, 5],
        [width - 4, 0, width, 4],
        [0, height - 3, width, height],
        [-20, -20, 2 * width, 2 * height],
        [3, 3, 3, 3],
    ]
    grey = Image.new("RGB", size, "grey")
    drawn = picture(grey, found(boxes, [3, 3, 3, 1, 2], [0.9, 0.8, 0.7, 0.6, 0.5]), NAMES)
    assert drawn.size == size and has(drawn, colours(3)[2]).any()
    if size == (320, 240):
        one = picture(grey, found([[100, 100, 200, 200]], [3], [0.9]), NAMES)
        two = picture(grey, found([[100, 100, 200, 200]] * 2, [3, 3], [0.9, 0.9]), NAMES)
        text = 4 * 101 * 1
        assert has(two, colours(3)[2]).sum() - text > 1.6 * (has(one, colours(3)[2]).sum() - text)


def test_class_map_has_a_legend_of_what_occurs():
    classes = torch.zeros(90, 120, dtype=torch.int64)
    classes[:, 60:] = 2
    black = Image.new("RGB", (120, 90))
    drawn = picture(black, classes, NAMES)
    first, second, third = colours(3)
    assert drawn.width >= 120 and drawn.height > 90
    above, below = drawn.crop((0, 0, 120, 90)), drawn.crop((0, 90, drawn.width, drawn.height))
    assert (pixels(above)[:, :, :60] - torch.tensor(first).view(3, 1, 1) / 2).abs().max() <= 1
    assert (pixels(above)[:, :, 60:] - torch.tensor(third).view(3, 1, 1) / 2).abs().max() <= 1
    assert has(below, first).any() and has(below, third).any() and not has(below, second).any()


def test_run_lengths_are_those_of_coco():
    pytest.importorskip("pycocotools")
    from pycocotools import mask as rle

    for mask in (torch.rand(5, 7) > 0.5, torch.ones(3, 2) > 0, torch.zeros(3, 2) > 0):
        ours = run_lengths(mask)
        assert isinstance(ours["counts"], str) and np.array_equal(rle.decode(ours), mask.numpy())


def test_no_file_is_written_twice(tmp_path):
    inputs = [tmp_path / name for name in ("a/x.jpg", "b/x.jpg", "x.png", "X_classes.png", "x_2.jpg")]
    folder = PictureFolder(tmp_path, inputs)
    written = [file for path in inputs for file in folder.files(path, ".png", "_classes.png")]
    assert len({str(path).lower() for path in [*written, *inputs]}) == len(written) + len(inputs)
    assert PictureFolder(tmp_path / "out", inputs).files(inputs[0], ".png") == [tmp_path / "out" / "x.png"]


def test_folders_stand_for_their_images(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "more").mkdir()
    with pytest.warns(UserWarning, match="notes.txt"):
        found = files_among([tmp_path, "c.png"], (".png", ".jpg"))
    assert found == [tmp_path / "a.JPG", tmp_path / "b.png", Path("c.png")]
    with pytest.raises(ValueError, match="no recording in the folder .*more"):
        files_among([tmp_path / "more"], (".dat",), "recording")


def area(segmentation):
    rle = pytest.importorskip("pycocotools.mask")
    return int(rle.area(segmentation))


class Detector(nn.Module):
    """Finds a bus in bright images, and what is hardly a zebra in dark ones; nothing where it is black. Sees 60x40 pixels."""

    transform = GeneralizedRCNNTransform(40, 60, [0.5] * 3, [0.5] * 3).eval()

    def forward(self, images):
        (image,) = images
        height, width = image.shape[1:]
        assert width <= 60 and height <= 60
        mask = torch.zeros(1, 1, height, width)
        mask[..., 2:8, 3:9] = 1
        count = 1 if image.mean() > 0 else 0
        bright = image.mean() > 0.5
        return [
            {
                key: value[:count]
                for key, value in found([[3, 2, 9, 8]], [2 if bright else 1], [0.75 if bright else 0.25], mask).items()
            }
        ]


@pytest.fixture
def photos(tmp_path):
    """White, grey and black images of 30x20 pixels, the first two of the same name."""
    files = [tmp_path / "one" / "photo.png", tmp_path / "two" / "photo.jpg", tmp_path / "black.png"]
    for path, colour in zip(files, ("white", "#404040", "black"), strict=True):
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (30, 20), colour).save(path)
    return files


def test_predict_objects(photos, tmp_path):
    out = tmp_path / "out"
    trained = Trained(Detector(), CocoData(), NAMES)
    answers = list(predict_any(trained, photos, Shown(out=out)))
    assert [str(answer) for answer in answers] == [
        f"{photos[0]}: 1 bus -> {out / 'photo.png'}",
        f"{photos[1]}: nothing reaches the score 0.5 (--threshold), the best is zebra with 0.250 -> {out / 'photo_2.png'}",
        f"{photos[2]}: nothing reaches the score 0.5 (--threshold), no object was found at all -> {out / 'black.png'}",
    ]
    assert sorted(path.name for path in out.iterdir()) == [
        f"{name}{end}" for name in ("black", "photo", "photo_2") for end in (".json", ".png")
    ]
    assert has(Image.open(out / "photo.png"), colours(2)[1]).any()
    numbers = json.loads((out / "photo.json").read_text())
    (bus,) = numbers["objects"]
    assert (numbers["image"], numbers["width"], numbers["height"]) == (str(photos[0]), 30, 20)
    assert (bus["class"], bus["label"], bus["score"], bus["box"]) == ("bus", 2, 0.75, [3, 2, 9, 8])
    assert bus["segmentation"]["size"] == [20, 30] and area(bus["segmentation"]) == 36
    assert json.loads((out / "photo_2.json").read_text())["objects"][0]["class"] == "zebra"  # below the threshold, too
    assert "1 zebra" in str(next(predict_any(trained, photos[1:2], Shown(out=out, threshold=0.2))))
    assert answers[0].record["objects"] == numbers["objects"] and answers[0].record["picture"] == str(out / "photo.png")
    assert answers[0].rows == [
        {"file": str(photos[0]), "class": "bus", "score": 0.75, "x0": 3, "y0": 2, "x1": 9, "y1": 8}
    ]
    assert answers[2].rows == []


def test_large_photos_are_drawn_as_the_detector_sees_them(tmp_path, monkeypatch):
    monkeypatch.setattr("spikeformers.evaluation.detection.LARGE_PHOTO", 90 * 150 - 1)
    photo, out = tmp_path / "large.png", tmp_path / "out"
    Image.new("RGB", (150, 90), "white").save(photo)
    (line,) = predict_any(Trained(Detector(), CocoData(), NAMES), [photo], Shown(out=out))
    assert str(line) == f"{photo}: 1 bus -> {out / 'large.png'}, drawn 60x36"
    numbers = json.loads((out / "large.json").read_text())
    (bus,) = numbers["objects"]
    assert Image.open(out / "large.png").size == (60, 36)
    assert (numbers["width"], numbers["height"], bus["box"]) == (150, 90, [7.5, 5, 22.5, 20])
    assert bus["segmentation"]["size"] == [90, 150]  # all numbers are those of the photo
    assert area(bus["segmentation"]) == 15 * 15


def test_only_what_is_drawn_is_read_from_the_masks():
    """A hundred masks of a large photo are not copied."""

    class Masks(list):
        def __getitem__(self, place):
            assert place == 1
            return super().__getitem__(place)

    masks = torch.zeros(3, 120, 160, dtype=torch.bool)
    masks[1, 30:90, 20:70] = True
    result = found([[1, 1, 9, 9], [20, 30, 69, 89], [50, 50, 60, 60]], [1, 2, 3], [0.2, 0.9, 0.3])
    grey = Image.new("RGB", (160, 120), "grey")
    drawn = picture(grey, {**result, "masks": Masks(masks)}, NAMES)
    assert torch.equal(pixels(drawn), pixels(picture(grey, {**result, "masks": masks[:, None] * 0.7}, NAMES)))
    assert (pixels(drawn)[:, 50:80, 30:60] != 128).any(0).all()


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_photos_are_upright(tmp_path, ending):
    """The file has its left at the top, as the camera was held upright."""
    pixels = np.zeros((24, 40, 3), np.uint8)
    pixels[:, :20] = 255
    photo, exif = tmp_path / f"photo.{ending}", Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(photo, exif=exif)

    def seen_by(model, data):
        inputs = []
        model.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        names = NAMES[:2] if isinstance(data, ImageData) else NAMES
        list(predict_any(Trained(model, data, names), [photo], Shown(out=tmp_path / data.task)))
        return inputs[0][0]

    class Classifier(nn.Module):
        def forward(self, x, per_step):
            return torch.zeros(1, 1, 2)

    grey = {"channels": 1, "mean": [0.0], "std": [1.0]}
    for seen in (
        seen_by(Detector(), CocoData()),
        seen_by(Segmenter(), MaskData(size=(40, 24))),
        seen_by(Classifier(), ImageData(img_size=16, **grey)),
    ):
        upper, lower = seen.chunk(2, 1)
        assert upper.mean() > lower.mean() + 0.5
    assert json.loads((tmp_path / "detection" / "photo.json").read_text())["height"] == 40
    for task in ("detection", "segmentation"):
        width, height = Image.open(tmp_path / task / "photo.png").size
        assert height >= 40 and (task == "segmentation" or width == 24)


class Segmenter(nn.Module):
    """Class 2 at the left, class 0 at the right, at a quarter of the size."""

    def forward(self, x):
        logits = torch.zeros(1, 3, x.shape[2] // 4, x.shape[3] // 4)
        logits[:, 2, :, : logits.shape[3] // 2] = 1
        logits[:, 0, :, logits.shape[3] // 2 :] = 2
        return logits


def test_predict_class_maps(photos, tmp_path):
    out = tmp_path / "out"
    trained = Trained(Segmenter(), MaskData(size=(96, 64)), NAMES)
    line, _ = predict_any(trained, photos[:2], Shown(out=out))
    classes = np.asarray(Image.open(out / "photo_classes.png"))
    share = (classes == 0).mean()
    assert classes.shape == (20, 30) and (classes[:, :10] == 2).all() and (classes[:, 20:] == 0).all()
    assert line.record["shares"] == pytest.approx({"traffic light": 1 - share, "zebra": share}, abs=1e-6)
    assert str(line) == f"{photos[0]}: zebra {share:.1%}, traffic light {1 - share:.1%} -> {out / 'photo.png'}"
    assert {path.name for path in out.iterdir()} == {
        "photo.png",
        "photo_classes.png",
        "photo_2.png",
        "photo_2_classes.png",
    }
    assert Image.open(out / "photo.png").height > 20


def test_predict_names_what_it_cannot_read(tmp_path):
    with pytest.raises(ValueError, match="no image file .*missing.png"):
        list(
            predict_any(Trained(Detector(), CocoData(), NAMES), [tmp_path / "missing.png"], Shown(out=tmp_path / "out"))
        )
    assert not (tmp_path / "out").exists()


def test_one_broken_file_does_not_end_the_others(photos, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    trained = Trained(Detector(), CocoData(), NAMES)
    answers = list(predict_any(trained, [photos[0], tmp_path / "broken.png", photos[1]], Shown(out=tmp_path / "out")))
    assert [answer.broken for answer in answers] == [False, True, False]
    assert "broken.png: left out: " in str(answers[1]) and answers[1].record["error"] and answers[1].rows == []


SMALL = {
    "backbone": "meta_spikeformer_15m",
    "backbone_kwargs": {"dims": [8, 8, 16, 16], "depths": [0, 0, 0, 1, 0]},
    "width": 16,
}


@pytest.fixture
def street(tmp_path):
    """Two images of different sizes with masks of three classes, and an image without a mask."""
    root = tmp_path / "street"
    for kind in ("images", "annotations"):
        (root / kind / "validation").mkdir(parents=True)
    for name, size in (("a", (40, 30)), ("b", (30, 40)), ("c", (30, 40))):
        Image.effect_noise(size, 90).convert("RGB").save(root / "images" / "validation" / f"{name}.jpg")
        if name != "c":
            Image.new("L", size, 2).save(root / "annotations" / "validation" / f"{name}.png")
    return root


def test_commands_for_segmenters(street, tmp_path, capsys):
    checkpoint = tmp_path / "model.safetensors"
    model = create_model("semantic_fpn", **SMALL, head_width=16, num_classes=3)
    save_trained(Trained(model, MaskData(root=str(street), classes=tuple(NAMES), size=(64, 64)), NAMES), checkpoint)
    assert main(["eval", str(checkpoint)]) == 0
    out, _ = capsys.readouterr()
    assert "of 2 test images (masks)" in out and "\n  traffic light  " in out and "firing rate" in out
    assert "left out     1 of 3 could not be read" in out and "c.jpg" in out
    assert (
        main(["predict", str(checkpoint), str(street / "images" / "validation"), "--out", str(tmp_path / "out")]) == 0
    )
    out, err = capsys.readouterr()
    assert err == "" and len(out.splitlines()) == 3 and (tmp_path / "out" / "c_classes.png").is_file()
    assert main(["profile", str(checkpoint), "--report", str(tmp_path / "report")]) == 0
    assert "3 samples" in capsys.readouterr().out
    layers = json.loads((tmp_path / "report" / "profile.json").read_text())["layers"]
    assert {"backbone.neck.lateral.0.layer", "head.classifier"} <= {layer["name"] for layer in layers}
    assert main(["predict", str(checkpoint), str(tmp_path / "no.jpg")]) == 2
    assert main(["eval", str(checkpoint), "--data.name", "coco"]) == 2
    assert "the checkpoint is for segmentation" in capsys.readouterr().err
    assert main(["eval", str(checkpoint), "--data.classes", "5"]) == 2
    assert "the checkpoint knows the classes" in capsys.readouterr().err


def test_commands_for_detectors(street, tmp_path, capsys):
    files = sorted((street / "images" / "validation").iterdir())
    images = [
        {"id": number, "file_name": path.name, **dict(zip(("width", "height"), Image.open(path).size, strict=True))}
        for number, path in enumerate(files)
    ]
    outline = {"bbox": [2, 2, 8, 8], "segmentation": [[2, 2, 10, 2, 10, 10, 2, 10]], "area": 64, "iscrowd": 0}
    content = {
        "images": images,
        "categories": [{"id": 3 * number + 1, "name": name} for number, name in enumerate(NAMES)],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 4, **outline}],
    }
    (street / "val.json").write_text(json.dumps(content))
    checkpoint = tmp_path / "model.safetensors"
    model = create_model("mask_rcnn", **SMALL, num_classes=4, min_size=32, max_size=48, box_score_thresh=0.0)
    data = CocoData(root=str(street), val="val", images="images/validation", annotations="{split}.json")
    save_trained(Trained(model, data, NAMES), checkpoint)
    assert main(["eval", str(checkpoint)]) == 0
    out, _ = capsys.readouterr()
    assert "3 test images (coco)" in out and "\nboxes " in out and "\nmasks " in out and "firing rate" in out
    assert main(["predict", str(checkpoint), str(files[0]), "--threshold", "0", "--out", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert err == "" and f"-> {tmp_path / 'out' / 'a.png'}" in out
    assert len(json.loads((tmp_path / "out" / "a.json").read_text())["objects"]) > 0
    assert main(["predict", str(checkpoint), str(files[0]), "--threshold", "50"]) == 2
    assert main(["profile", str(checkpoint), "--report", str(tmp_path / "report")]) == 0
    assert "3 samples" in capsys.readouterr().out
    found = json.loads((tmp_path / "report" / "profile.json").read_text())
    assert {"rpn.head.conv.layer", "roi_heads.mask_head.convs.0.layer"} <= {layer["name"] for layer in found["layers"]}
    assert "roi_heads.box_head.fc6.lif" in {neuron["name"] for neuron in found["neurons"]}
    assert "geometry of boxes is outside" in found["audit"]["verdict"]
