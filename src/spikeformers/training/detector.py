"""Learning to detect objects, and to segment each of them."""

import math

import torch
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from ..evaluation.dense import DetectionScore, absent_text, evaluate_detection, percent
from ..evaluation.results import at_least_float32
from .learner import Learner, dense_options, dense_summary


class Detector(Learner):
    """A model with torchvision's interface: images and targets give a dict of losses, images alone boxes and masks. `sums`
    holds those losses, in the order of `losses`, and the samples."""

    @property
    def masks(self) -> bool:
        return self.model.roi_heads.has_mask()

    @property
    def losses(self) -> tuple[str, ...]:
        masks = ("loss_mask",) if self.masks else ()
        return "loss_classifier", "loss_box_reg", *masks, "loss_objectness", "loss_rpn_box_reg"

    @property
    def scores(self) -> tuple[str, ...]:
        """Those of all that are kept for every epoch."""
        return "box_ap", "box_ap50", *(("mask_ap", "mask_ap50") if self.masks else ())

    @property
    def columns(self):
        return "train_loss", *self.losses, *self.scores

    @property
    def counters(self):
        return len(self.losses) + 1

    @classmethod
    def model_options(cls, recipe, train_set):
        return dense_options(recipe.model.kwargs, len(train_set.classes) + 1)  # torchvision counts the background

    @classmethod
    def prepare(cls, model, recipe, train_set, parts):
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

    @classmethod
    @torch.no_grad()
    def try_out(cls, model, test_set):
        classes = len(test_set.classes)
        if model.num_classes != classes + 1:
            raise ValueError(
                f"the model knows {model.num_classes} classes with the background, and the data have {classes}; leave out num_classes"
            )
        images, _ = test_set.data.collate([test_set[0]])
        model.eval()(images)

    @classmethod
    def tested_summary(cls, model, test_set, device, last):
        result = evaluate_detection(model, test_set, device)
        return dense_summary(result, {name: last[name] for name in result.scores if name in last})

    @classmethod
    def summary_lines(cls, summary):
        best, last = summary["scores"], summary["last_scores"]
        return [
            f"{kind + ' AP':12} {_of_kind(last, kind)} of {summary['test_samples']:,} test samples after the last epoch, "
            f"{_of_kind(best, kind)} after the best ({summary['best_epoch']})"
            for kind in ("box", "mask")
            if f"{kind}_ap" in best
        ] + absent_text(summary["absent"], "an object")

    @staticmethod
    def score(row):
        kinds = [row[name] for name in ("mask_ap", "box_ap") if name in row]
        return tuple(-1.0 if math.isnan(value) else value for value in kinds)

    def loss(self, batch):
        images, targets = batch
        losses = self.model(images, targets)
        losses = at_least_float32(torch.stack([losses[name] for name in self.losses]))
        self.sums += len(images) * torch.cat([losses.detach(), losses.new_ones(1)])
        return losses.sum()

    def train_metrics(self, sums):
        means = [value / sums[-1] for value in sums[:-1]]
        return {"train_loss": sum(means), **dict(zip(self.losses, means, strict=True))}

    def on_validation_epoch_start(self):
        super().on_validation_epoch_start()
        self.detected = DetectionScore(self.masks)

    def test_batch(self, batch):
        images, targets = batch  # targets of padding are None and do not count
        self.detected.update(self.exported(images), targets)

    def test_metrics(self):
        scores = self.detected.compute()
        return {name: scores[name] for name in self.scores}

    @staticmethod
    def epoch_text(row):
        kinds = [kind for kind in ("box", "mask") if f"{kind}_ap" in row]
        tested = ", ".join(f"{kind} AP {_of_kind(row, kind, 6)}" for kind in kinds)
        return f"train loss {row['train_loss']:.3f}  test {tested}"


def _of_kind(scores, kind, width=0):
    return f"{percent(scores[f'{kind}_ap']):>{width}} (AP50 {percent(scores[f'{kind}_ap50']):>{width}})"
