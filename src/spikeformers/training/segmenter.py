"""Learning the class of every pixel."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.masks import IGNORED
from ..evaluation.dense import SegmentationScore, absent_text, equally_large, evaluate_segmentation, percent
from ..evaluation.results import at_least_float32, must_have_read
from ..tasks.segmentation import SemanticFPN
from .learner import Learner, dense_options, dense_summary


class Segmenter(Learner):
    """A model that maps images [B, C, H, W] to logits [B, K, H, W]. `sums` [2] and `test_sums` hold loss and samples."""

    columns = ("train_loss", "val_loss", "pixel_accuracy", "miou")
    counters = 2

    @classmethod
    def model_options(cls, recipe, train_set):
        return dense_options(recipe.model.kwargs, len(train_set.classes))

    @classmethod
    def prepare(cls, model, recipe, train_set, parts):
        if not isinstance(model, SemanticFPN):
            raise ValueError(
                f"{recipe.model.name} does not segment, and the data {recipe.data.name} have a class for each pixel; give "
                "semantic_fpn with model.kwargs.backbone"
            )

    @classmethod
    @torch.no_grad()
    def try_out(cls, model, test_set):
        classes = len(test_set.classes)
        if model.num_classes != classes:
            raise ValueError(
                f"the model knows {model.num_classes} classes, and the data have {classes}; leave out num_classes"
            )
        images, _ = test_set.data.collate([test_set[0]])
        model.eval()(torch.stack(images))

    @classmethod
    def tested_summary(cls, model, test_set, device, last):
        result = evaluate_segmentation(model, test_set, device)
        return dense_summary(result, {"accuracy": last["pixel_accuracy"], "miou": last["miou"]})

    @classmethod
    def summary_lines(cls, summary):
        best, last = summary["scores"], summary["last_scores"]
        return [
            f"mIoU         {percent(last['miou'])} of {summary['test_samples']:,} test samples after the last epoch, "
            f"{percent(best['miou'])} after the best ({summary['best_epoch']})",
            f"accuracy     {percent(last['accuracy'])} of the pixels, {percent(best['accuracy'])} after the best epoch",
        ] + absent_text(summary["absent"], "a pixel")

    @staticmethod
    def score(row):
        return (-1.0 if math.isnan(row["miou"]) else row["miou"], -row["val_loss"])

    def loss(self, batch):
        images, targets = map(torch.stack, batch)
        loss = pixel_loss(self.model(images), targets, self.recipe.training.label_smoothing)
        self.sums += len(images) * torch.stack([loss.detach(), torch.ones_like(loss)])
        return loss

    def train_metrics(self, sums):
        return {"train_loss": sums[0] / sums[1]}

    def on_validation_epoch_start(self):
        super().on_validation_epoch_start()
        self.test_sums = torch.zeros(2, device=self.device)
        self.segmented = SegmentationScore(len(self.classes))

    def test_batch(self, batch):
        images, targets = batch  # targets of padding are None and do not count
        for places in equally_large(images):
            logits = self.exported(torch.stack([images[place] for place in places]))
            self.segmented.update(logits, [targets[place] for place in places])
            for image, target in zip(logits, (targets[place] for place in places), strict=True):
                if target is not None:
                    self.test_sums += torch.stack([pixel_loss(image[None], target[None]), self.test_sums.new_ones(())])

    def test_metrics(self):
        loss, samples = self.trainer.strategy.reduce(self.test_sums, reduce_op="sum").tolist()
        scores = self.segmented.compute()
        must_have_read(samples)
        return {"val_loss": loss / samples, "pixel_accuracy": scores["accuracy"], "miou": scores["miou"]}

    @staticmethod
    def epoch_text(row):
        return (
            f"train loss {row['train_loss']:.3f}  test loss {row['val_loss']:.3f}, pixels {percent(row['pixel_accuracy']):>6}, "
            f"mIoU {percent(row['miou']):>6}"
        )


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
