"""Scores of detectors: agreement with pycocotools, what their answers hide, and several processes."""

import contextlib
import io
import math
import re
import sys

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from spikeformers._install import command_for
from spikeformers.evaluation import evaluate_any
from spikeformers.evaluation.detection import DetectionScore
from spikeformers.evaluation.segmentation import SegmentationScore
from spikeformers.neurons import LIF

from .conftest import Fakes, Named

SIZE = 200  # pixels; objects are small, medium and large
COCO_ORDER = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", None, None, "ar100")


def some_boxes(random, count):
    corner = random.uniform(0, 0.6 * SIZE, (count, 2))
    return torch.tensor(
        np.c_[
            corner,
            np.minimum(
                corner + SIZE * random.uniform(0.2, 1.0, (count, 1)) ** 2 * random.uniform(0.7, 1.3, (count, 2)), SIZE
            ),
        ],
        dtype=torch.float32,
    )


def ellipses(boxes):
    """Masks [N, H, W] of ellipses in the boxes."""
    y, x = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    x0, y0, x1, y1 = boxes.reshape(-1, 4, 1, 1).unbind(1)
    return ((x - (x0 + x1) / 2) / (x1 - x0)) ** 2 + ((y - (y0 + y1) / 2) / (y1 - y0)) ** 2 < 0.25


def made_up(images=10, classes=4, seed=0):
    """Outputs and targets: crowds, areas that the boxes do not tell, an image with 130 detections, one without objects, one
    without detections, one with neither and one with a crowd only."""
    random, outputs, targets = np.random.default_rng(seed), [], []
    for image in range(images):
        objects, surplus = int(random.integers(2, 12)), int(random.integers(0, 12))
        objects, surplus = {0: (20, 110), 1: (0, 5), 2: (5, 0), 3: (0, 0), 4: (1, 8)}.get(image, (objects, surplus))
        boxes, labels = some_boxes(random, objects), torch.tensor(random.integers(1, classes + 1, objects))
        crowd = torch.tensor(random.random(objects) < 0.2, dtype=torch.int64)
        crowd[:] = 1 if image == 4 else crowd
        masks = ellipses(boxes)
        targets.append(
            {
                "boxes": boxes,
                "labels": labels,
                "masks": masks.to(torch.uint8),
                "iscrowd": crowd,
                "area": masks.sum((1, 2)) * torch.tensor(random.uniform(0.4, 1.0, objects), dtype=torch.float32),
            }
        )
        found = torch.tensor(random.random(objects) < (0 if image == 2 else 0.8))
        shifted = (boxes[found] + torch.tensor(random.normal(0, 2, (int(found.sum()), 4)), dtype=torch.float32)).clamp(
            0, SIZE
        )
        shifted[:, 2:] = torch.maximum(shifted[:, 2:], shifted[:, :2] + 1)
        boxes = torch.cat([shifted, some_boxes(random, surplus)])
        right = torch.tensor(random.random(len(boxes)) < 0.9)
        guesses = torch.tensor(random.integers(1, classes + 1, len(boxes)))
        labels = torch.where(right, torch.cat([labels[found], guesses[len(shifted) :]]), guesses)
        masks = ellipses(boxes)[:, None] * 0.6 + 0.3  # probabilities on either side of 0.5
        scores = torch.tensor(
            random.random(len(boxes)) ** np.repeat([0.5, 1.5], [len(shifted), surplus]), dtype=torch.float32
        )
        outputs.append({"boxes": boxes, "labels": labels, "scores": scores, "masks": masks})
    return outputs, targets


def by_pycocotools(outputs, targets, kind):
    """The same scores from the reference implementation, which reads its own format."""
    pytest.importorskip("pycocotools")
    from pycocotools import mask as rle
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def objects(image, values):
        for i, (x0, y0, x1, y1) in enumerate(values["boxes"].double().tolist()):
            mask = values["masks"][i].reshape(SIZE, SIZE) > 0.5
            yield {
                "image_id": image,
                "category_id": values["labels"][i].item(),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "segmentation": rle.encode(np.asfortranarray(mask.numpy().astype(np.uint8))),
                **{
                    key: values[name][i].item()
                    for key, name in (("iscrowd",) * 2, ("area",) * 2, ("score", "scores"))
                    if name in values
                },
            }

    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": image, "height": SIZE, "width": SIZE} for image in range(len(targets))],
        "categories": [{"id": label} for label in range(1, 5)],
        "annotations": [entry for image, target in enumerate(targets) for entry in objects(image, target)],
    }
    for number, entry in enumerate(truth.dataset["annotations"], 1):
        entry["id"] = number
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found = [entry for image, output in enumerate(outputs) for entry in objects(image, output)]
        for entry in found:
            del entry["segmentation" if kind == "bbox" else "bbox"]
        result = COCOeval(truth, truth.loadRes(found), kind)
        result.evaluate()
        result.accumulate()
        result.summarize()
    return {name: value for name, value in zip(COCO_ORDER, result.stats, strict=False) if name}


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_agrees_with_pycocotools(seed):
    outputs, targets = made_up(seed=seed)
    score = DetectionScore(masks=True)
    for start in range(0, len(outputs), 4):
        score.update(outputs[start : start + 4], targets[start : start + 4])
    got = score.compute()
    for ours, theirs in (("box", "bbox"), ("mask", "segm")):
        want = by_pycocotools(outputs, targets, theirs)
        assert 0.1 < want["ap"] < 0.9 and min(want.values()) > 0.05
        assert {name: got[f"{ours}_{name}"] for name in want} == pytest.approx(want, abs=1e-6)
    without_masks = DetectionScore(masks=False)
    without_masks.update(outputs, targets)
    boxes = {name: value for name, value in got.items() if name.startswith("box")}
    assert without_masks.compute() == pytest.approx(boxes, abs=1e-6)


@pytest.mark.parametrize("lost", ["iscrowd", "area"])
def test_crowds_and_areas_count(lost):
    outputs, targets = made_up()
    changed = [
        dict(target, **{lost: torch.zeros_like(target[lost])}) for target in targets
    ]  # 0: no crowd, area of the mask
    scores = []
    for some in (targets, changed):
        score = DetectionScore(masks=True)
        score.update(outputs, some)
        scores.append(score.compute())
    name = "ap" if lost == "iscrowd" else "ap_small"
    assert abs(scores[0][f"box_{name}"] - scores[1][f"box_{name}"]) > 0.005
    assert abs(scores[0][f"mask_{name}"] - scores[1][f"mask_{name}"]) > 0.005


def test_padding_does_not_count():
    outputs, targets = made_up()
    with_padding, plain = DetectionScore(masks=True), DetectionScore(masks=True)
    with_padding.update([*outputs, outputs[0]], [*targets, None])
    with_padding.update(outputs[:1], [None])
    plain.update(outputs, targets)
    assert with_padding.compute() == plain.compute()


def nothing(names):
    shapes = {"boxes": (0, 4), "masks": (0, 1, SIZE, SIZE) if "scores" in names else (0, SIZE, SIZE)}
    return {
        name: torch.zeros(shapes.get(name, (0,)), dtype=torch.int64 if name == "labels" else torch.float32)
        for name in names
    }


def test_scores_without_objects_or_detections():
    no_output, no_target = (
        nothing(("boxes", "labels", "scores", "masks")),
        nothing(("boxes", "labels", "iscrowd", "area", "masks")),
    )
    outputs, targets = made_up()
    crowd_only = 4

    def of(output, target):
        score = DetectionScore(masks=True)
        score.update([output], [target])
        return score.compute()

    assert all(map(math.isnan, DetectionScore(masks=True).compute().values()))
    assert all(map(math.isnan, of(no_output, no_target).values()))
    assert all(map(math.isnan, of(outputs[0], no_target).values()))
    assert all(map(math.isnan, of(outputs[crowd_only], targets[crowd_only]).values()))
    missed = of(no_output, targets[0])
    assert missed["box_ap"] == missed["mask_ap"] == missed["box_ar100"] == 0.0
    exact = {
        **targets[0],
        "masks": targets[0]["masks"][:, None].float(),
        "scores": torch.rand(len(targets[0]["boxes"])),
    }
    found = of({name: exact[name] for name in no_output}, targets[0])
    assert found["box_ap"] == found["mask_ap"] == pytest.approx(1.0)


def test_masks_are_not_kept_as_pixels():
    outputs, targets = made_up()
    score = DetectionScore(masks=True)
    score.update(outputs, targets)
    (_, counts), *_ = score.metric.detection_mask[0]
    assert isinstance(counts, bytes | str) and len(counts) < SIZE * 4


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ValueError, match=re.escape(f"faster_coco_eval: {command_for('dense')}")):
        DetectionScore(masks=False)


def scores_of_share(rank, world, folder):
    """Uneven shares: image i belongs to process i % world, and one process has an unreadable one more."""
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=world)
    outputs, targets = made_up(images=7)
    for output in outputs:  # equal scores in several images, whose order matters then
        output["scores"] = output["scores"].round(decimals=1)
    detection, segmentation = DetectionScore(masks=True), SegmentationScore(3)
    for index in range(rank, 8, world):
        detection.update([outputs[index % 7]], [targets[index] if index < 7 else None])
    torch.manual_seed(0)
    logits, classes = torch.randn(5, 3, 4, 4), torch.randint(3, (5, 8, 8))
    segmentation.update(logits[rank::world], classes[rank::world])
    twice = [detection.compute() for _ in range(2)]
    torch.save([*twice, segmentation.compute()], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_several_processes_score_what_one_does(tmp_path):
    mp.start_processes(scores_of_share, (2, str(tmp_path)), nprocs=2, start_method="fork")
    scores_of_one = tmp_path / "one"
    scores_of_one.mkdir()
    mp.start_processes(scores_of_share, (1, str(scores_of_one)), nprocs=1, start_method="fork")
    detection, _, segmentation = torch.load(scores_of_one / "0.pt")
    for rank in range(2):
        first, second, shared = torch.load(tmp_path / f"{rank}.pt")
        assert first == second == detection and shared == segmentation and not math.isnan(sum(first.values()))


class Detector(nn.Module):
    """Answers by heart, image by image; the first pixel says which."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs, self.lif = outputs, LIF(2.0, 1.0)

    def forward(self, images):
        assert not self.training and not torch.is_grad_enabled()
        self.lif(torch.stack([torch.full((2, 2), 3.0)]))
        return [self.outputs[int(image[0, 0, 0])] for image in images]


def test_evaluate_detection():
    outputs, targets = made_up(images=7)
    images = [torch.full((3, 4, 4 + index), index) for index in range(7)]
    batches = [(images[:4], [*targets[:3], None]), (images[4:], targets[4:]), (images[:1], [None])]
    result = evaluate_any(Detector(outputs).train(), Fakes("detection", batches))
    score = DetectionScore(masks=True)
    score.update(outputs, [*targets[:3], None, *targets[4:]])
    assert result.scores == score.compute() and result.samples == 6
    assert result.firing_rates == {"lif": 1.0} and result.firing_rate == 1.0
    text = result.as_text("coco")
    assert "6 test images (coco)" in text and "firing rate  1.0000" in text
    boxes, masks = (line.split() for line in text.splitlines()[2:4])
    assert boxes[:2] == ["boxes", f"{result.scores['box_ap']:.2%}"] and masks[:2] == [
        "masks",
        f"{result.scores['mask_ap']:.2%}",
    ]
    only_boxes = [{name: value for name, value in target.items() if name != "masks"} for target in targets]
    result = evaluate_any(Detector(outputs), Fakes("detection", [(images, only_boxes)]))
    assert "mask_ap" not in result.scores and "masks" not in result.as_text("coco")


class Parts(nn.Module):
    """A detector with heads, whose answers hide that its logits are NaN where the image is dark."""

    def __init__(self, outputs):
        super().__init__()
        self.rpn, self.roi_heads = nn.Module(), nn.Module()
        self.rpn.head, self.roi_heads.box_predictor, self.outputs = Head(), Head(), outputs

    def forward(self, images):
        for image in images:
            self.rpn.head(image), self.roi_heads.box_predictor(image)
        return [self.outputs[int(image[0, 0, 0].nan_to_num())] for image in images]


class Head(nn.Module):
    def forward(self, image):
        return [image.mean().sqrt()], image


def test_detectors_that_answer_nan_with_nothing_are_found_out():
    outputs, targets = made_up(images=4)
    images = [torch.full((3, 4, 4), float(index)) for index in range(4)]
    images[1][0, 3, 3], images[2][1] = math.nan, -100
    batches = [(images, [*targets[:3], None])]
    with pytest.warns(UserWarning, match="2 samples hold or lead to .* wrong: 1.png, 2.png"):
        result = evaluate_any(Parts(outputs), Named("detection", batches))
    score = DetectionScore(masks=True)
    nothing_found = [{name: value[:0] for name, value in output.items()} for output in outputs]
    score.update([outputs[0], *nothing_found[1:3]], targets[:3])
    assert result.samples == 3 and result.scores == pytest.approx(score.compute(), nan_ok=True)


def test_classes_without_an_object_are_named():
    outputs, targets = made_up(images=2, classes=2)
    images = [torch.full((3, 4, 4), float(index)) for index in range(2)]
    result = evaluate_any(Detector(outputs), Fakes("detection", [(images, targets)]))
    assert result.absent == ["c", "d"] and "no test image has an object of c, d; the scores" in result.as_text("coco")
