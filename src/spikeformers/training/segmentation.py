"""Learning the class of every pixel."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data import TestSet
from ..data.masks import IGNORED
from ..evaluation.results import absent_text, at_least_float32, must_have_read, percent
from ..evaluation.segmentation import SegmentationEvaluation, SegmentationScore, equally_large
from ..tasks.segmentation import SemanticFPN
from .dense import OPTIONS, dense_options, dense_summary
from .task import Learning, Objective, register_learning


class SegmentationObjective(Objective):
    """Of a model that maps images [B, C, H, W] to logits [B, K, H, W]. What is counted [2], and `test_sums`, are loss and samples."""

    columns = ("train_loss", "val_loss", "pixel_accuracy", "miou")
    counters = 2

    def loss(self, model: nn.Module, batch: tuple[list[Tensor], list[Tensor]], epoch: int) -> tuple[Tensor, Tensor]:
        images, targets = map(torch.stack, batch)
        loss = pixel_loss(model(images), targets, self.recipe.training.label_smoothing)
        return loss, len(images) * torch.stack([loss.detach(), torch.ones_like(loss)])

    def train_metrics(self, sums: Sequence[float]) -> dict[str, float]:
        return {"train_loss": sums[0] / sums[1]}

    def start_test(self, device: torch.device) -> None:
        self.test_sums = torch.zeros(2, device=device)
        self.segmented = SegmentationScore(len(self.classes))

    def test(self, model: nn.Module, batch: tuple[list[Tensor], list[Tensor | None]]) -> None:
        images, targets = batch  # targets of padding are None and do not count
        for places in equally_large(images):
            logits = model(torch.stack([images[place] for place in places]))
            self.segmented.update(logits, [targets[place] for place in places])
            for image, target in zip(logits, (targets[place] for place in places), strict=True):
                if target is not None:
                    self.test_sums += torch.stack([pixel_loss(image[None], target[None]), self.test_sums.new_ones(())])

    def test_metrics(self, total: Callable[[Tensor], Tensor]) -> dict[str, float]:
        loss, samples = total(self.test_sums).tolist()
        scores = self.segmented.compute()
        must_have_read(samples)
        return {"val_loss": loss / samples, "pixel_accuracy": scores["accuracy"], "miou": scores["miou"]}


def pixel_loss(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy in nats of logits [B, K, H, W] over those pixels of targets [B, H', W'] that are not IGNORED; 0 if all
    are. Targets of another size are brought to that of the logits, each pixel with the class that is nearest to it.

    Args:
        logits: of the images.
        targets: classes of their pixels.
        smoothing: share that is spread over all classes.
    """
    if targets.shape[1:] != logits.shape[2:]:
        size = tuple(logits.shape[2:])
        targets = F.interpolate(targets[:, None].float(), size=size, mode="nearest-exact")[:, 0].long()
    total = F.cross_entropy(
        at_least_float32(logits), targets, ignore_index=IGNORED, label_smoothing=smoothing, reduction="sum"
    )
    return total / (targets != IGNORED).sum().clamp(min=1)


def _model_options(recipe, train_set):
    return dense_options(recipe.model.kwargs, len(train_set.classes))


def _prepare(model, recipe, train_set, parts):
    if not isinstance(model, SemanticFPN):
        raise ValueError(
            f"{recipe.model.name} does not segment, and the data {recipe.data.name} have a class for each pixel; give "
            "semantic_fpn with model.kwargs.backbone"
        )


@torch.no_grad()
def _try_out(model: nn.Module, test_set: TestSet) -> None:
    classes = len(test_set.classes)
    if model.num_classes != classes:
        raise ValueError(
            f"the model knows {model.num_classes} classes, and the data have {classes}; leave out num_classes"
        )
    images, _ = test_set.data.collate([test_set[0]])
    model.eval()(torch.stack(images))


def _score(row):
    return (-1.0 if math.isnan(row["miou"]) else row["miou"], -row["val_loss"])


def _epoch_text(row):
    return (
        f"train loss {row['train_loss']:.3f}  test loss {row['val_loss']:.3f}, pixels {percent(row['pixel_accuracy']):>6}, "
        f"mIoU {percent(row['miou']):>6}"
    )


def _summary(result: SegmentationEvaluation, last: dict) -> dict:
    return dense_summary(result, {"accuracy": last["pixel_accuracy"], "miou": last["miou"]})


def _summary_lines(summary):
    best, last = summary["scores"], summary["last_scores"]
    return [
        f"mIoU         {percent(last['miou'])} of {summary['test_samples']:,} test samples after the last epoch, "
        f"{percent(best['miou'])} after the best ({summary['best_epoch']})",
        f"accuracy     {percent(last['accuracy'])} of the pixels, {percent(best['accuracy'])} after the best epoch",
    ] + absent_text(summary["absent"], "a pixel")


register_learning(
    Learning(
        "segmentation",
        options=(*OPTIONS, "label_smoothing"),
        model_options=_model_options,
        prepare=_prepare,
        try_out=_try_out,
        objective=SegmentationObjective,
        score=_score,
        epoch_text=_epoch_text,
        summary=_summary,
        summary_lines=_summary_lines,
    )
)
