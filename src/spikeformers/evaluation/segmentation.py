"""What a trained segmenter answers: intersection over union, and the classes of a photo's pixels."""
# Shapes: B images, K classes, H W pixels of an image, h w pixels of a map.

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from .._files import as_csv, without_nan, write_atomically, write_json
from .._progress import watched
from ..data import TestSet, test_loader
from ..data.masks import IGNORED
from ..data.reading import image_suffixes, read_image
from ..measure import Tally, emissions
from .checkpoint import Trained
from .palettes import palette
from .pictures import PictureFolder, name_of, picture, write_picture
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

PIXELS_AT_ONCE = 4 * 512**2
"""Of images that a segmenter sees together in a test: at 150 classes their logits take 600 MiB."""


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
                    reached = (
                        F.interpolate(undefined[None, None].float(), size=tuple(target.shape), mode="bilinear")[0, 0]
                        > 0
                    )
                    found = torch.where(reached, (target + 1) % self.num_classes, found)
                pairs = target[counted] * self.num_classes + found[counted]
                self.counts += torch.bincount(pairs, minlength=self.num_classes**2).view_as(self.counts).cpu()

    def compute(self) -> dict:
        """Of the images of all processes: `ious`, for each class the pixels that are of it and found to be, over those that are
        or are found to be, nan for a class without either; `miou`, their mean over the other classes (one that is found but never
        there counts as 0, as in mmsegmentation); `accuracy`, the share of pixels whose class is found; `class_accuracy`,
        that share for each class, averaged over the classes that are there. Numbers in [0, 1], nan without a pixel. `pixels`, for
        each class those that are of it."""
        counts = sum(of_all_processes(self.counts)).double()
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

    def write(self, folder: str | Path) -> list[Path]:
        """Writes evaluation.json, the scores in [0, 1] and firing rates, and classes.csv, each class's IoU and number of pixels.

        Args:
            folder: made if it is not there.

        Returns:
            The files.
        """
        numbers, classes = Path(folder) / "evaluation.json", Path(folder) / "classes.csv"
        content = {"samples": self.samples, "classes": self.classes, **self.scores, "not_finite": self.not_finite}
        write_json(
            numbers, without_nan({**content, "firing_rate": self.firing_rate, "firing_rates": self.firing_rates})
        )
        rows = zip(self.classes, self.scores["ious"], self.scores["pixels"], strict=True)
        write_atomically(
            classes, as_csv({"class": name, "iou": iou, "pixels": pixels} for name, iou, pixels in rows).encode()
        )
        return [numbers, classes]


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
        for images, targets in watched(test_loader(samples), "testing"):
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


def write_segmentation(
    folder: PictureFolder, path: Path, image: Image.Image, found: Tensor, classes: Sequence[str] | None
) -> Answer:
    """Writes NAME.png and NAME_classes.png, whose pixels are the classes' numbers, found [H, W]; the line names the three largest.

    Args:
        folder: where they go.
        path: of the image, whose name they get.
        image: the photo.
        found: the class of each pixel.
        classes: their names, or None.
    """
    drawn, numbers = folder.files(path, ".png", "_classes.png")
    write_picture(drawn, picture(image, found, classes))
    indexed = Image.fromarray(found.to(torch.uint8).numpy(), "P")
    indexed.putpalette([value for colour in palette(classes) for value in colour])
    write_picture(numbers, indexed)
    shares = found.flatten().bincount().float() / found.numel()
    best = shares.topk(min(3, int((shares > 0).sum())))
    text = ", ".join(
        f"{name_of(classes, index)} {share:.1%}" for share, index in zip(*map(Tensor.tolist, best), strict=True)
    )
    rows = [
        {"file": str(path), "class": name_of(classes, index), "share": share}
        for index, share in enumerate(shares.tolist())
        if share
    ]
    named = {row["class"]: row["share"] for row in rows}
    record = {"file": str(path), "picture": str(drawn), "classes": str(numbers), "shares": named}
    return Answer(str(path), f"{path}: {text} -> {drawn}", record, rows)


def _predicted(trained: Trained, paths: Sequence[str | Path], shown: Shown) -> Iterator[Answer]:
    files = files_among(paths, image_suffixes())
    folder = PictureFolder(shown.out, files)

    def answer(path):
        image = read_image(path)
        return write_segmentation(folder, path, image, segment(trained, image, shown.device), trained.classes)

    yield from answers_to(files, answer)


register_task(Task("segmentation", evaluate_segmentation, _predicted, one_by_one))
