"""Learning to detect objects, and to segment each of them."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from ..data import TestSet, TrainingSet
from ..evaluation.detection import BACKGROUND, DetectionEvaluation, DetectionScore
from ..evaluation.results import absent_text, at_least_float32, percent
from .dense import OPTIONS, dense_options, dense_summary
from .recipe import Recipe
from .task import Learning, Objective, register_learning


class DetectionObjective(Objective):
    """Of a model with torchvision's interface: images and targets give a dict of losses, images alone boxes and masks. What is
    counted is those losses, in the order of `losses`, and the samples.

    Args:
        model: that learns.
        recipe: of the run.
        train_set: its samples.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, train_set: TrainingSet):
        super().__init__(model, recipe, train_set)
        self.masks = model.roi_heads.has_mask()
        self.losses = (
            "loss_classifier",
            "loss_box_reg",
            *["loss_mask"] * self.masks,
            "loss_objectness",
            "loss_rpn_box_reg",
        )
        self.scores = (
            "box_ap",
            "box_ap50",
            *["mask_ap", "mask_ap50"] * self.masks,
        )  # of all those that are kept for every epoch
        self.columns, self.counters = ("train_loss", *self.losses, *self.scores), len(self.losses) + 1

    def loss(self, model: nn.Module, batch: tuple[list[Tensor], list[dict]], epoch: int) -> tuple[Tensor, Tensor]:
        images, targets = batch
        losses = model(images, targets)
        losses = at_least_float32(torch.stack([losses[name] for name in self.losses]))
        return losses.sum(), len(images) * torch.cat([losses.detach(), losses.new_ones(1)])

    def train_metrics(self, sums: Sequence[float]) -> dict[str, float]:
        means = [value / sums[-1] for value in sums[:-1]]
        return {"train_loss": sum(means), **dict(zip(self.losses, means, strict=True))}

    def start_test(self, device: torch.device) -> None:
        self.detected = DetectionScore(self.masks)

    def test(self, model: nn.Module, batch: tuple[list[Tensor], list[dict | None]]) -> None:
        images, targets = batch  # targets of padding are None and do not count
        self.detected.update(model(images), targets)

    def test_metrics(self, total: Callable[[Tensor], Tensor]) -> dict[str, float]:
        scores = self.detected.compute()
        return {name: scores[name] for name in self.scores}


def _model_options(recipe, train_set):
    return dense_options(recipe.model.kwargs, len(train_set.classes) + BACKGROUND)


def _prepare(model, recipe, train_set, parts):
    if not isinstance(model, GeneralizedRCNN):
        raise ValueError(
            f"{recipe.model.name} is no detector, and the data {recipe.data.name} are objects to detect; give mask_rcnn or "
            "faster_rcnn with model.kwargs.backbone"
        )
    if model.roi_heads.has_mask() and not recipe.data.masks:
        raise ValueError(f"{recipe.model.name} learns masks; set data.masks, or give faster_rcnn")
    if recipe.trainer.strategy == "fsdp":
        raise ValueError("trainer.strategy fsdp does not work with detectors; give ddp")
    DetectionScore(model.roi_heads.has_mask())  # what it needs may not be installed


@torch.no_grad()
def _try_out(model: nn.Module, test_set: TestSet) -> None:
    classes = len(test_set.classes)
    if model.num_classes != classes + BACKGROUND:
        raise ValueError(
            f"the model knows {model.num_classes} classes with the background, and the data have {classes}; leave out num_classes"
        )
    images, _ = test_set.data.collate([test_set[0]])
    model.eval()(images)


def _score(row):
    kinds = [row[name] for name in ("mask_ap", "box_ap") if name in row]
    return tuple(-1.0 if math.isnan(value) else value for value in kinds)


def _epoch_text(row):
    kinds = [kind for kind in ("box", "mask") if f"{kind}_ap" in row]
    tested = ", ".join(f"{kind} AP {_of_kind(row, kind, 6)}" for kind in kinds)
    return f"train loss {row['train_loss']:.3f}  test {tested}"


def _summary(result: DetectionEvaluation, last: dict) -> dict:
    return dense_summary(result, {name: last[name] for name in result.scores if name in last})


def _summary_lines(summary):
    best, last = summary["scores"], summary["last_scores"]
    return [
        f"{kind + ' AP':12} {_of_kind(last, kind)} of {summary['test_samples']:,} test samples after the last epoch, "
        f"{_of_kind(best, kind)} after the best ({summary['best_epoch']})"
        for kind in ("box", "mask")
        if f"{kind}_ap" in best
    ] + absent_text(summary["absent"], "an object")


def _of_kind(scores, kind, width=0):
    return f"{percent(scores[f'{kind}_ap']):>{width}} (AP50 {percent(scores[f'{kind}_ap50']):>{width}})"


register_learning(
    Learning(
        "detection",
        options=OPTIONS,
        model_options=_model_options,
        prepare=_prepare,
        try_out=_try_out,
        objective=DetectionObjective,
        score=_score,
        epoch_text=_epoch_text,
        summary=_summary,
        summary_lines=_summary_lines,
    )
)
