"""What a trained detector or segmenter answers: average precision, intersection over union, and results for single images."""
# Shapes: B images, K classes, N objects, H W pixels of an image, h w pixels of a map.

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2.functional import pil_to_tensor, to_dtype

from ..data import TestSet, test_loader
from ..data.masks import IGNORED
from ..measure import Tally, emissions
from .checkpoint import Trained
from .classification import Evaluation, evaluate
from .results import FiringRates, NotFinite, must_have_read, not_finite_text

LARGE_PHOTO = 2**21  # pixels
PIXELS_AT_ONCE = 4 * 512**2
"""Of images that a segmenter sees together in a test: at 150 classes their logits take 600 MiB."""

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
            raise ValueError(f"average precision needs {error.name}: pip install 'spikeformers[dense]'") from None
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
                setattr(self.metric, name, _in_turn(_of_all_processes(values)))
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


class SegmentationScore:
    """Intersection over union from the counts of all pixels."""

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)  # [class, predicted class]

    def update(self, logits: Tensor | Sequence[Tensor], targets: Sequence[Tensor | None]):
        """Adds images.

        Args:
            logits: [B, K, h, w], or for each image [K, h, w]; resized to the targets.
            targets: for each image its classes [H, W], 255 where a pixel does not count; None leaves the image out.
        """
        for image, target in zip(logits, targets, strict=True):
            if target is not None:
                target = target.to(image.device)
                found, counted = class_map(image, target.shape), target != IGNORED
                undefined = ~image.isfinite().all(0)
                if undefined.any():  # whose class nobody has said: wrong wherever they reach
                    reached = F.interpolate(undefined[None, None].float(), size=tuple(target.shape), mode="bilinear")[0, 0] > 0
                    found = torch.where(reached, (target + 1) % self.num_classes, found)
                pairs = target[counted] * self.num_classes + found[counted]
                self.counts += torch.bincount(pairs, minlength=self.num_classes**2).view_as(self.counts).cpu()

    def compute(self) -> dict:
        """Of the images of all processes: `ious`, for each class the pixels that are of it and found to be, over those that are
        or are found to be, nan for a class without either; `miou`, their mean over the other classes (one that is found but never
        there counts as 0, as in mmsegmentation); `accuracy`, the share of pixels whose class is found; `class_accuracy`,
        that share for each class, averaged over the classes that are there. Numbers in [0, 1], nan without a pixel. `pixels`, for
        each class those that are of it."""
        counts = sum(_of_all_processes(self.counts)).double()
        correct, there, found = counts.diag(), counts.sum(1), counts.sum(0)
        ious = correct / (there + found - correct)  # 0 / 0 is nan
        return {
            "miou": ious.nanmean().item(),
            "accuracy": (correct.sum() / counts.sum()).item(),
            "class_accuracy": (correct / there).nanmean().item(),
            "ious": ious.tolist(),
            "pixels": there.long().tolist(),
        }


def class_map(logits: Tensor, size: Sequence[int]) -> Tensor:
    """The likeliest class [H, W] of each pixel after logits [K, h, w] are resized bilinearly to (H, W). Memory does not grow
    with K: some classes are resized at a time."""
    best, classes = None, None
    for first, some in zip(itertools.count(0, 16), logits.split(16)):
        resized = F.interpolate(some[None].float(), size=tuple(size), mode="bilinear", align_corners=False)[0]
        value, place = resized.max(0)
        if best is None:
            best, classes = value, place
        else:
            better = value > best
            best, classes = torch.where(better, value, best), torch.where(better, place + first, classes)
    return classes


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


@dataclass
class SegmentationEvaluation(FiringRates):
    """What `SegmentationScore.compute` says, the classes' names, number of images, what the neurons emitted and what is `not_finite` as in
    `Evaluation`."""

    scores: dict
    classes: list[str]
    samples: int
    tally: Tally
    not_finite: str = ""

    @property
    def absent(self) -> list[str]:
        """The classes without a pixel, of which mIoU, the mean over those that occur or are found, may say nothing."""
        return [name for name, pixels in zip(self.classes, self.scores["pixels"], strict=True) if not pixels]

    def as_text(self, data: str) -> str:
        """Lines for the terminal, the last ones with the classes' IoU; `data` is the data set's name."""
        lines = [
            f"mIoU         {percent(self.scores['miou'])} of {self.samples:,} test images ({data})",
            f"accuracy     {percent(self.scores['accuracy'])} of the pixels, {percent(self.scores['class_accuracy'])} averaged over classes",
            *absent_text(self.absent, "a pixel"),
            self.firing_text(),
            *not_finite_text(self.not_finite),
            "IoU",
        ]
        width = max(map(len, self.classes))
        for name, iou, pixels in zip(self.classes, self.scores["ious"], self.scores["pixels"], strict=True):
            lines.append(f"  {name:{width}}  {percent(iou):>7}" + "  absent" * (not pixels))
        return "\n".join(lines)


def absent_text(names: Sequence[str], what: str) -> list[str]:
    """A line for the terminal that names the classes without `what`, or none."""
    some = ", ".join(names[:5]) + f" and {len(names) - 5} more" * (len(names) > 5)
    return [f"absent       no test image has {what} of {some}; the scores say nothing of them"] if names else []


def evaluate_any(
    model: nn.Module, samples: TestSet, device: str | torch.device = "cpu"
) -> Evaluation | DetectionEvaluation | SegmentationEvaluation:
    """Tests a model on every test sample once, as their task asks; the model is left on the device in eval mode.

    Args:
        model: left on the device in eval mode.
        samples: what is tested on.
        device: where it runs.
    """
    tasks = {"classification": evaluate, "detection": evaluate_detection, "segmentation": evaluate_segmentation}
    return tasks[samples.data.task](model, samples, device)


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
        for images, targets in test_loader(samples):
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
    absent = [name for label, name in enumerate(samples.classes, 1) if label not in there]
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
def evaluate_segmentation(
    model: nn.Module, samples: TestSet, device: str | torch.device = "cpu"
) -> SegmentationEvaluation:
    """Tests a segmenter in eval mode on every test image once; the model is left on the device in eval mode. Images of a batch
    that are equally large run together, as far as memory allows, others one by one.

    Args:
        model: left on the device in eval mode.
        samples: what is tested on.
        device: where it runs.

    Raises:
        ValueError: no image could be read.
    """
    model.to(device).eval()
    score, count, broken = SegmentationScore(len(samples.classes)), 0, NotFinite(samples)
    with emissions(model) as tally:
        for images, targets in test_loader(samples):
            real = [place for place, target in enumerate(targets) if target is not None]
            finite = [True] * len(targets)
            for alike in equally_large([images[place] for place in real]):
                places = [real[index] for index in alike]
                x = torch.stack([images[place] for place in places]).to(device)
                logits = model(x)
                fine = x.isfinite().all((1, 2, 3)) & logits.isfinite().all((1, 2, 3))
                logits[~x.isfinite().all((1, 2, 3))] = math.nan  # a spiking network may answer NaN with finite numbers
                for place, good in zip(places, fine.tolist(), strict=True):
                    finite[place] = good
                score.update(logits, [targets[place] for place in places])
            broken.add(finite)
            count += len(real)
    must_have_read(count)
    return SegmentationEvaluation(score.compute(), list(samples.classes), count, tally(count), broken.text())


def equally_large(images: Sequence[Tensor]) -> list[list[int]]:
    """The places of images [C, H, W] of the same shape, together: one, or several with at most PIXELS_AT_ONCE pixels in all."""
    groups = {}
    for index, image in enumerate(images):
        groups.setdefault(image.shape, []).append(index)
    result = []
    for (*_, height, width), places in groups.items():
        most = max(1, PIXELS_AT_ONCE // (height * width))
        result += [places[start : start + most] for start in range(0, len(places), most)]
    return result


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


@torch.no_grad()
def segment(trained: Trained, image: Image.Image, device: str | torch.device = "cpu") -> Tensor:
    """The class [H, W] of each pixel of an image, on the CPU.

    Args:
        trained: what `load_trained` made of a segmenter.
        image: the photo.
        device: where it runs.
    """
    seen = trained.data.transform(training=False).image(image.convert("RGB"))
    logits = trained.model.to(device).eval()(seen[None].to(device))
    return class_map(logits[0], (image.height, image.width)).cpu()


def _of_all_processes(value):
    """What each process has, in their order."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def _in_turn(lists):
    """The first items of all lists, then the second, and so on: the order in which samples were dealt to the processes."""
    missing = object()
    return [item for turn in itertools.zip_longest(*lists, fillvalue=missing) for item in turn if item is not missing]


def percent(value: float | None) -> str:
    """A share for the terminal; "-" if it is nan, or None as summary.json has it."""
    return "-" if value is None or math.isnan(value) else f"{value:.2%}"
