"""The Lightning module that trains an image classifier."""

import math
import random

import lightning as L
import numpy as np
import torch
from timm.data import Mixup
from timm.optim import create_optimizer_v2
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from ..data import TestImages, TrainingImages, test_loader, train_loader
from ..data.images import PADDING_LABEL, stable_seed
from .recipe import Recipe, Training


class Classifier(L.LightningModule):
    """A model that maps images [B, C, H, W] to logits [B, classes], with the recipe's loss, optimiser and data.

    Everything random in an epoch follows from (seed, epoch, process), so a run that is continued at the start of an epoch
    goes on exactly as one that never stopped. `sums` [3] holds this process's loss, correct answers and images of the epoch
    under way, `test_sums` the same of the last test.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, train_images: TrainingImages, test_images: TestImages):
        super().__init__()
        self.model, self.recipe = model, recipe
        self.train_images, self.test_images, self.classes = train_images, test_images, train_images.classes
        self.first_epoch = 0
        training = recipe.training
        self.mixup = None
        if training.mixup or training.cutmix:
            self.mixup = Mixup(
                mixup_alpha=training.mixup,
                cutmix_alpha=training.cutmix,
                label_smoothing=training.label_smoothing,
                num_classes=len(self.classes),
            )

    def forward(self, images):
        return self.model(images)

    def on_train_epoch_start(self):
        seed_everything(self.recipe.seed, self.current_epoch, self.global_rank)
        self.sums = torch.zeros(3, device=self.device)

    def training_step(self, batch, _):
        images, labels = batch
        smoothing = self.recipe.training.label_smoothing
        if self.mixup:
            images, labels = self.mixup(images, labels)  # labels become [B, classes], already smoothed
            smoothing = 0.0
        logits = self(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        count(self.sums, loss.detach(), logits.detach(), labels.argmax(-1) if self.mixup else labels)
        return loss

    def on_validation_epoch_start(self):
        self.test_sums = torch.zeros(3, device=self.device)

    def validation_step(self, batch, _):
        images, labels = batch
        logits = self(images)
        real = labels != PADDING_LABEL
        if real.any():
            count(self.test_sums, F.cross_entropy(logits[real], labels[real]), logits[real], labels[real])

    def configure_optimizers(self):
        training = self.recipe.training
        optimizer = create_optimizer_v2(
            self.model, opt=training.optimizer, lr=training.lr, weight_decay=training.weight_decay
        )
        steps_per_epoch = len(self.train_images) // self.recipe.data.batch_size
        schedule = LambdaLR(optimizer, lambda step: lr_factor(step, steps_per_epoch, training))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self):
        return train_loader(self.train_images, self.trainer.global_rank, self.trainer.world_size, self.first_epoch)

    def val_dataloader(self):
        return test_loader(self.test_images, self.trainer.global_rank, self.trainer.world_size)

    def on_save_checkpoint(self, checkpoint):
        checkpoint["recipe"] = self.recipe.as_dict()
        checkpoint["model_config"] = dict(self.model.config)
        checkpoint["known"] = {"data": checkpoint["recipe"]["data"], "classes": self.classes}

    def on_load_checkpoint(self, checkpoint):
        self.first_epoch = checkpoint["epoch"] + 1


def seed_everything(*key):
    """Python, NumPy and torch draw from a seed made of these numbers from here on."""
    seed = stable_seed(*key)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def count(sums: torch.Tensor, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor):
    """Adds a batch's mean loss [], logits [B, classes] and labels [B] to sums [3]: loss, correct answers, images."""
    size = len(labels)
    correct = (logits.argmax(-1) == labels).sum()
    sums += torch.stack([loss.float() * size, correct.float(), correct.new_tensor(size).float()])


def lr_factor(step: int, steps_per_epoch: int, training: Training) -> float:
    """The learning rate after `step` optimiser steps as a multiple of training.lr."""
    warmup = training.warmup_epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1.0, training.epochs * steps_per_epoch - warmup))
    low = training.min_lr / training.lr
    return low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2
