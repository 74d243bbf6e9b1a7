"""What a trained detector answers: average precision, and the objects of a photo."""
# Shapes: N objects, H W pixels of an image.

import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2.functional import pil_to_tensor, to_dtype

from .._files import without_nan, write_json
from .._install import command_for
from .._progress import watched
from ..data import TestSet, test_loader
from ..data.reading import image_suffixes, read_image
from ..measure import Tally, emissions
from .checkpoint import Trained
from .pictures import PictureFolder, above, name_of, picture, write_picture
from .results import (
    FiringRates,
    NotFinite,
    absent_text,
    must_have_read,
    not_finite_text,
    of_all_processes,
    one_by_one,
    percent,
)
from .task import Answer, Shown, Task, answers_to, files_among, register_task

LARGE_PHOTO = 2**21  # pixels
BACKGROUND = 1
"""So many classes do detectors of torchvision count before those of the objects."""

COCO_SCORES = {  # our names and those of torchmetrics
    "ap": "map",
    "ap50": "map_50",
    "ap75": "map_75",
    "ap_small": "map_small",
    "ap_medium": "map_medium",
    "ap_large": "map_large",
    "ar100": "mar_100",
}


class DetectionScore:
    """Average precision as COCO defines it, of boxes and, if asked for, of masks. Masks are kept as run lengths.

    Raises:
        ValueError: torchmetrics or faster_coco_eval is not installed.
    """

    def __init__(self, masks: bool):
        try:
            import faster_coco_eval  # noqa: F401 - torchmetrics would complain only later, and in its own words
            from torchmetrics.detection import MeanAveragePrecision
        except ImportError as error:
            raise ValueError(f"average precision needs {error.name}: {command_for('dense')}") from None
        self.masks = masks
        self.metric = MeanAveragePrecision(
            iou_type=("bbox", "segm") if masks else ("bbox",),
            backend="faster_coco_eval",
            # its own thresholds are rounded to float32, which costs up to 0.002 where a recall equals one of them
            iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
            rec_thresholds=np.linspace(0, 1, 101).tolist(),
            sync_on_compute=False,  # its own exchange waits for ever where processes have unequal numbers of images
            compute_with_cache=False,
        )
        self.metric.warn_on_many_detections = False  # COCO counts the 100 likeliest, which is no news

    def update(self, outputs: Sequence[dict], targets: Sequence[dict | None]):
        """Adds images.

        Args:
            outputs: for each image boxes [N, 4] (x0, y0, x1, y1 in pixels), labels [N], scores [N] and, for masks, their
                probabilities [N, 1, H, W], as torchvision's detectors answer; on any device.
            targets: boxes, labels, iscrowd [N], area [N] in pixels and, for masks, masks [N, H, W] in {0, 1}; None leaves
                the image out.
        """
        pairs = [pair for pair in zip(outputs, targets, strict=True) if pair[1] is not None]
        if pairs:
            outputs, targets = zip(*pairs, strict=True)
            found = [self._on_cpu(output, "boxes", "labels", "scores") for output in outputs]
            wanted = [self._on_cpu(target, "boxes", "labels", "iscrowd", "area") for target in targets]
            self.metric.update(found, wanted)

    def _on_cpu(self, values, *names):
        result = {name: values[name].detach().cpu() for name in names}
        if self.masks:
            masks = values["masks"]
            masks = (masks > 0.5).squeeze(1) if masks.ndim == 4 else masks
            result["masks"] = masks.to("cpu", torch.uint8)
        return result

    def compute(self) -> dict[str, float]:
        """Scores in [0, 1] of the images of all processes: `box_ap` (mean over the IoU thresholds 0.5, 0.55, ..., 0.95 and over
        the classes that have objects), `box_ap50` and `box_ap75` at one threshold, `box_ap_small`, `box_ap_medium` and
        `box_ap_large` for objects below 32^2, below 96^2 and from 96^2 pixels on, `box_ar100`, the average recall with 100
        detections per image; with masks `mask_ap` and so on. What is undefined since no object is of that kind, which COCO
        writes as -1, is nan."""
        mine = self.metric.metric_state
        try:
            for name, values in mine.items():
                setattr(self.metric, name, _in_turn(of_all_processes(values)))
            with warnings.catch_warnings():  # that nothing was added, which nan says
                warnings.simplefilter("ignore", UserWarning)
                found = self.metric.compute()
        finally:
            for name, values in mine.items():
                setattr(self.metric, name, values)
        kinds = {"box": "bbox_", "mask": "segm_"} if self.masks else {"box": ""}
        scores = {
            f"{kind}_{ours}": found[prefix + theirs].item()
            for kind, prefix in kinds.items()
            for ours, theirs in COCO_SCORES.items()
        }
        return {name: math.nan if score < 0 else score for name, score in scores.items()}


@dataclass
class DetectionEvaluation(FiringRates):
    """What `DetectionScore.compute` says, number of images, what the neurons emitted and what is `not_finite` as in `Evaluation`, and the names
    of the classes without an object, of which the scores, means over the others, say nothing."""

    scores: dict[str, float]
    samples: int
    tally: Tally
    not_finite: str = ""
    absent: Sequence[str] = ()

    def as_text(self, data: str) -> str:
        """A table for the terminal; `data` is the data set's name."""
        header = ["AP", "AP50", "AP75", "small", "medium", "large", "AR100"]
        lines = [f"{self.samples:,} test images ({data})", " " * 11 + "".join(f"{name:>9}" for name in header)]
        for kind in ("box", "mask"):
            if f"{kind}_ap" in self.scores:
                values = (self.scores[f"{kind}_{name}"] for name in COCO_SCORES)
                lines.append(
                    f"{'boxes' if kind == 'box' else 'masks':11}" + "".join(f"{percent(value):>9}" for value in values)
                )
        lines += [*absent_text(self.absent, "an object"), self.firing_text(), *not_finite_text(self.not_finite)]
        return "\n".join(lines)

    def write(self, folder: str | Path) -> list[Path]:
        """Writes evaluation.json: the scores in [0, 1], null for what cannot be said, and firing rates.

        Args:
            folder: made if it is not there.

        Returns:
            The file.
        """
        file = Path(folder) / "evaluation.json"
        content = {"samples": self.samples, **self.scores, "absent": list(self.absent), "not_finite": self.not_finite}
        write_json(file, without_nan({**content, "firing_rate": self.firing_rate, "firing_rates": self.firing_rates}))
        return [file]


@torch.no_grad()
def evaluate_detection(model: nn.Module, samples: TestSet, device: str | torch.device = "cpu") -> DetectionEvaluation:
    """Tests a detector in eval mode on every test image once; the model is left on the device in eval mode. Masks are scored
    if the targets and the model have them.

    Args:
        model: left on the device in eval mode.
        samples: what is tested on.
        device: where it runs.

    Raises:
        ValueError: torchmetrics or faster_coco_eval is not installed, or no image could be read.
    """
    model.to(device).eval()
    score, count, broken, there = None, 0, NotFinite(samples), set()
    with emissions(model) as tally:
        for images, targets in watched(test_loader(samples), "testing"):
            real = [place for place, target in enumerate(targets) if target is not None]
            if not real:
                broken.add([True] * len(targets))
                continue
            images, wanted = [images[place].to(device) for place in real], [targets[place] for place in real]
            outputs, finite = _detected(model, images)
            broken.add([place not in real or finite[real.index(place)] for place in range(len(targets))])
            if score is None:
                score = DetectionScore("masks" in wanted[0] and "masks" in outputs[0])
            score.update(outputs, wanted)
            there.update(label for target in wanted for label in target["labels"][target["iscrowd"] == 0].tolist())
            count += len(images)
    must_have_read(count)
    absent = [name for label, name in enumerate(samples.classes, BACKGROUND) if label not in there]
    return DetectionEvaluation(score.compute(), count, tally(count), broken.text(), absent)


def _detected(model, images):
    """What a detector answers to images, and whether each and what its heads say of it are finite; nothing counts as found where they
    are not. A detector answers NaN with no objects at all."""
    undefined = []

    def look(module, inputs, output):
        tensors = [value for part in output for value in (part if isinstance(part, list) else [part])]
        undefined.append(not all(value.isfinite().all() for value in tensors))

    parts = [module for name, module in model.named_modules() if name in ("rpn.head", "roi_heads.box_predictor")]
    hooks = [part.register_forward_hook(look) for part in parts]
    try:
        outputs = model(images)
        finite = [bool(image.isfinite().all()) for image in images]
        if any(undefined):  # which ones were it?
            for place in [place for place, good in enumerate(finite) if good]:
                undefined.clear()
                model([images[place]])
                finite[place] = not any(undefined)
    finally:
        for hook in hooks:
            hook.remove()
    fine = zip(outputs, finite, strict=True)
    return [output if good else {name: value[:0] for name, value in output.items()} for output, good in fine], finite


@torch.no_grad()
def detect(model: nn.Module, image: Image.Image, device: str | torch.device = "cpu") -> tuple[Tensor, dict]:
    """A photo as the detector has seen it, and what it finds there.

    Masks are as large as the image, a hundred of them take gigabytes for a photo of a modern camera: one of more than LARGE_PHOTO
    pixels that the detector makes smaller before it looks is made smaller here.

    Args:
        model: the detector.
        image: the photo.
        device: where it runs.

    Returns:
        The image [3, H, W] in [0, 1]; boxes [N, 4] in its pixels, labels, scores [N] and, if it finds masks, masks [N, H, W] of
        bool, on the CPU.
    """
    model.to(device).eval()
    pixels = to_dtype(pil_to_tensor(image.convert("RGB")).to(device), torch.float32, scale=True)
    if pixels[0].numel() > LARGE_PHOTO:
        seen, _ = model.transform.resize(pixels)
        pixels = seen if seen.numel() < pixels.numel() else pixels
    (result,) = model([pixels])
    if "masks" in result:
        result["masks"] = result["masks"].squeeze(1) > 0.5
    return pixels.cpu(), {name: value.cpu() for name, value in result.items()}


def _in_turn(lists):
    """The first items of all lists, then the second, and so on: the order in which samples were dealt to the processes."""
    missing = object()
    return [item for turn in itertools.zip_longest(*lists, fillvalue=missing) for item in turn if item is not missing]


def enlarged(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask [H, W] of bool at another height and width."""
    if tuple(mask.shape) == size:
        return mask
    return F.interpolate(mask[None, None].to(torch.uint8), size=size, mode="nearest")[0, 0].bool()


def write_detection(
    folder: PictureFolder,
    path: Path,
    image: Tensor,
    result: dict,
    classes: Sequence[str] | None,
    threshold: float,
    size: tuple[int, int],
) -> Answer:
    """Writes NAME.png and NAME.json, and says what was found.

    The picture is of the image as `detect` gives it, which of large photos is a smaller one. NAME.json lists all objects, whatever
    their score, with class, label (from 1 on), score, box (x0, y0, x1, y1) and, where masks are found, COCO's
    compressed run lengths of them, all in the photo's pixels.

    Args:
        folder: where.
        path: the photo.
        image: what the detector has seen of it, [3, H, W].
        result: what it has found, as `detect` says.
        classes: their names.
        threshold: the lowest score that is drawn.
        size: the photo's width and height.
    """
    drawn, numbers = folder.files(path, ".png", ".json")
    write_picture(drawn, picture(image, result, classes, threshold))
    width, height = size
    enlarge = torch.tensor([width / image.shape[2], height / image.shape[1]] * 2)
    labels, scores, boxes = (
        values.tolist() for values in (result["labels"], result["scores"], result["boxes"] * enlarge)
    )
    objects = []
    for place in above(result, 0.0):
        label = labels[place]
        name = name_of(classes, label - 1)
        objects.append({"class": name, "label": label, "score": scores[place], "box": boxes[place]})
        if "masks" in result:
            objects[-1]["segmentation"] = run_lengths(enlarged(result["masks"][place], (height, width)))
    record = {"image": str(path), "height": height, "width": width, "objects": objects}
    write_json(numbers, record)
    counts = {}
    for place in above(result, threshold):
        counts[labels[place]] = counts.get(labels[place], 0) + 1
    found = ", ".join(
        f"{count} {name_of(classes, label - 1)}" for label, count in sorted(counts.items(), key=lambda item: -item[1])
    )
    if not found:
        best = (
            f"the best is {objects[0]['class']} with {objects[0]['score']:.3f}"
            if objects
            else "no object was found at all"
        )
        found = f"nothing reaches the score {threshold:g} (--threshold), {best}"
    smaller = f", drawn {image.shape[2]}x{image.shape[1]}" * (image.shape[2] < width)
    rows = [
        {
            "file": str(path),
            "class": each["class"],
            "score": each["score"],
            **dict(zip(("x0", "y0", "x1", "y1"), each["box"], strict=True)),
        }
        for each in objects
    ]
    record = {"file": str(path), "picture": str(drawn), **record}
    return Answer(str(path), f"{path}: {found} -> {drawn}{smaller}", record, rows)


def run_lengths(mask: Tensor) -> dict:
    """COCO's compressed run lengths of a mask [H, W]: the counts are a text, as pycocotools and its like read it.

    Raises:
        ValueError: faster_coco_eval, which compresses, is not installed.
    """
    try:
        from faster_coco_eval.core.mask import encode
    except ImportError as error:
        raise ValueError(f"run lengths of masks need {error.name}: {command_for('dense')}") from None
    found = encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
    counts = found["counts"]
    return {"size": list(mask.shape), "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}


def _predicted(trained: Trained, paths: Sequence[str | Path], shown: Shown) -> Iterator[Answer]:
    files = files_among(paths, image_suffixes())
    folder = PictureFolder(shown.out, files)

    def answer(path):
        image = read_image(path)
        seen, result = detect(trained.model, image, shown.device)
        return write_detection(folder, path, seen, result, trained.classes, shown.threshold, image.size)

    yield from answers_to(files, answer)


register_task(Task("detection", evaluate_detection, _predicted, one_by_one, classes_beside=BACKGROUND))
