"""The Lightning module that trains a classifier."""

import difflib
import math
import random

import lightning as L
import numpy as np
import timm
import torch
from timm.data import Mixup
from timm.optim import create_optimizer_v2, list_optimizers
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from ..data import TestSet, TrainingSet, test_loader, train_loader
from ..data.loading import PADDING_LABEL, stable_seed
from ..models.published import read_state_dict
from .parallel import at_least_float32, shard, share_buffers
from .recipe import Recipe, Training


class Classifier(L.LightningModule):
    """A model that maps images [B, C, H, W] or sequences [T, B, C, H, W] to logits [B, classes], with the recipe's loss,
    optimiser and data.

    Everything random in a step follows from (seed, epoch, batch, process), so a run that is continued at any step goes on
    exactly as one that never stopped. `sums` [3] holds this process's loss, correct answers and samples of the epoch under
    way, `test_sums` the same of the last test.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, train_set: TrainingSet, test_set: TestSet):
        super().__init__()
        self.model, self.recipe = model, recipe
        self.train_set, self.test_set, self.classes = train_set, test_set, train_set.classes
        self.first_epoch = self.batches_done = 0
        self.sums = torch.zeros(3)
        training = recipe.training
        self.mixup = None
        if training.mixup or training.cutmix:
            self.mixup = Mixup(
                mixup_alpha=training.mixup,
                cutmix_alpha=training.cutmix,
                prob=training.mixup_prob,
                label_smoothing=training.label_smoothing,
                num_classes=len(self.classes),
            )
        if training.ema:
            self.ema = ModelEmaV3(model, decay=training.ema)
        self._teacher = [teacher_of(training, len(self.classes))] if training.teacher else []  # a list hides it from state_dict
        model.set_grad_checkpointing(training.checkpointing)
        if training.compile:
            model.compile()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    @property
    def sample_sets(self) -> dict[str, TrainingSet | TestSet]:
        return {"training": self.train_set, "test": self.test_set}

    @property
    def tested(self) -> nn.Module:
        """The model that is tested and exported: the average of its weights over time where the recipe has one."""
        return self.ema.module if hasattr(self, "ema") else self.model

    def configure_model(self):
        if self.recipe.trainer.strategy == "fsdp" and self.trainer.world_size > 1:
            shard(self.model, self.device_mesh["data_parallel"])

    def on_fit_start(self):
        self._teacher = [teacher.to(self.device) for teacher in self._teacher]
        self.sums = self.sums.to(self.device)

    def on_train_epoch_start(self):
        self.sums = torch.zeros(3, device=self.device)

    def on_train_batch_start(self, batch, batch_idx):
        self.share_buffers()

    def share_buffers(self):
        """Gives all processes the first one's batch statistics, as DDP does by itself; those are what is tested and saved."""
        if self.recipe.trainer.strategy == "fsdp" and self.trainer.world_size > 1:
            share_buffers(self.model)

    def training_step(self, batch, batch_idx):
        seed_everything(self.recipe.seed, self.current_epoch, batch_idx, self.global_rank)
        x, labels = batch
        training = self.recipe.training
        targets = one_hot(labels, len(self.classes), training.label_smoothing)
        if self.mixup and not 0 < training.mixup_off_epoch <= self.current_epoch:
            x, targets = mix(self.mixup, x, labels)
        outputs, early = self.model(x, per_step=training.loss == "tet"), []
        if self.model.early:
            outputs, early = outputs
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)  # the last one learns from the teacher
        loss = classification_loss(outputs[0], targets, training)
        if self._teacher:
            with torch.no_grad():
                taught = self._teacher[0](x)
            alpha = training.distillation_alpha
            loss = (1 - alpha) * loss + alpha * distillation_loss(outputs[-1], taught, training)
        for answer in early:
            loss = loss + training.early_weight * classification_loss(answer, targets, training)
        logits = outputs[0] if outputs[0].ndim == 2 else outputs[0].mean(0)
        count(self.sums, loss.detach(), logits.detach(), targets.argmax(-1))
        return loss

    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)
        if hasattr(self, "ema"):
            self.ema.update(self.model)

    def on_validation_epoch_start(self):
        self.share_buffers()
        self.test_sums = torch.zeros(3, device=self.device)

    def validation_step(self, batch, _):
        x, labels = batch
        logits = self.tested(x)
        real = labels != PADDING_LABEL
        if real.any():
            logits, labels = at_least_float32(logits[real]), labels[real]
            count(self.test_sums, F.cross_entropy(logits, labels), logits, labels)

    def configure_optimizers(self):
        training, batch_size = self.recipe.training, self.recipe.data.batch_size
        try:
            optimizer = create_optimizer_v2(
                self.model,
                opt=training.optimizer,
                lr=peak_lr(training, batch_size),
                weight_decay=training.weight_decay,
                layer_decay=training.layer_decay if training.layer_decay != 1 else None,
                **training.optimizer_kwargs,
            )
        except (AssertionError, ValueError) as error:  # what timm makes of a name that it does not know
            close = difflib.get_close_matches(training.optimizer, list_optimizers(), 3)
            hint = f"did you mean {', '.join(close)}?" if close else "timm.optim.list_optimizers() shows all"
            raise ValueError(f"training.optimizer is {training.optimizer!r} ({error}); {hint}") from None
        except TypeError as error:
            raise ValueError(
                f"the optimiser {training.optimizer} does not take training.optimizer_kwargs {training.optimizer_kwargs} ({error})"
            ) from None
        steps_per_epoch = len(self.train_set) // batch_size
        scales = [group.get("lr_scale", 1.0) for group in optimizer.param_groups]

        def factor(scale):
            return lambda step: scale * lr_factor(step, steps_per_epoch, training, batch_size)

        schedule = LambdaLR(optimizer, [factor(scale) for scale in scales])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self):
        trainer, accumulate = self.trainer, self.recipe.training.accumulate
        ranks = trainer.global_rank, trainer.world_size
        return train_loader(self.train_set, *ranks, self.first_epoch, accumulate, self.batches_done)

    def val_dataloader(self):
        return test_loader(self.test_set, self.trainer.global_rank, self.trainer.world_size)

    def on_save_checkpoint(self, checkpoint):
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        ended = self.trainer.fit_loop.epoch_progress.current.processed > self.current_epoch
        checkpoint["batches_done"] = 0 if ended else progress.current.processed
        checkpoint["first_epoch"] = self.current_epoch + int(ended)
        checkpoint["sums"] = self.trainer.strategy.reduce(self.sums.clone(), reduce_op="sum")
        checkpoint["unreadable"] = {}
        for name, samples in self.sample_sets.items():  # what any process could not read
            broken = self.trainer.strategy.reduce(samples.unreadable.to(self.device).float(), reduce_op="sum")
            samples.unreadable |= broken.cpu() > 0
            checkpoint["unreadable"][name] = samples.unreadable.nonzero()
        checkpoint["recipe"] = self.recipe.as_dict()
        checkpoint["model_config"] = dict(self.model.config)
        checkpoint["known"] = {"data": checkpoint["recipe"]["data"], "classes": self.classes}

    def on_load_checkpoint(self, checkpoint):
        self.first_epoch, self.batches_done = checkpoint["first_epoch"], checkpoint["batches_done"]
        if self.global_rank == 0:  # the other processes' share is in it
            self.sums = checkpoint["sums"].to(self.device)
        for name, samples in self.sample_sets.items():
            samples.unreadable[checkpoint["unreadable"][name].flatten()] = True


def seed_everything(*key):
    """Python, NumPy and torch draw from a seed made of these numbers from here on."""
    seed = stable_seed(*key)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def teacher_of(training: Training, num_classes: int) -> nn.Module:
    """The recipe's teacher in eval mode, without gradients.

    Raises:
        ValueError: timm does not know it or cannot load its weights, or it answers other classes.
    """
    try:
        if training.teacher_weights:
            teacher = timm.create_model(training.teacher, num_classes=num_classes)
            teacher.load_state_dict(read_state_dict(training.teacher_weights))
        else:
            teacher = timm.create_model(training.teacher, pretrained=True)
    except (RuntimeError, OSError, ValueError) as error:  # what timm, PyTorch and the Hub raise
        raise ValueError(
            f"cannot load the teacher {training.teacher} ({(str(error).splitlines() or ['no such file'])[0]}); give a model of timm as "
            "training.teacher, and where nothing can be downloaded its safetensors file as training.teacher_weights"
        ) from None
    if teacher.num_classes != num_classes:
        raise ValueError(
            f"the teacher {training.teacher} knows {teacher.num_classes} classes and the data have {num_classes}; "
            "give a teacher for the same classes"
        )
    return teacher.eval().requires_grad_(False)


def one_hot(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Labels [B] -> probabilities [B, classes], of which `smoothing` is spread over all classes."""
    return F.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes


def mix(mixup: Mixup, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """timm's mixup or CutMix of a batch [B, C, H, W], or of sequences [T, B, C, H, W], in which all time steps are mixed alike;
    labels [B] become probabilities [B, classes]."""
    if x.ndim == 4:
        return mixup(x, labels)
    steps, batch, channels, height, width = x.shape
    x = x.transpose(0, 1).reshape(batch, steps * channels, height, width)
    x, targets = mixup(x, labels)
    return x.view(batch, steps, channels, height, width).transpose(0, 1), targets


def classification_loss(logits: Tensor, targets: Tensor, training: Training) -> Tensor:
    """Cross-entropy in nats of logits [B, classes] against probabilities [B, classes]; or TET's loss (Deng et al., ICLR 2022,
    Eq. 10) of logits [T, B, classes]: (1 - lambda) * mean over t of cross-entropy + lambda * mean of (logits - tet_mean)^2."""
    logits = at_least_float32(logits)
    if logits.ndim == 2:
        return F.cross_entropy(logits, targets)
    entropy = F.cross_entropy(logits.flatten(0, 1), targets.repeat(len(logits), 1))
    distance = (logits - training.tet_mean).square().mean()
    return (1 - training.tet_lambda) * entropy + training.tet_lambda * distance


def distillation_loss(logits: Tensor, taught: Tensor, training: Training) -> Tensor:
    """How far logits [B, classes] or [T, B, classes] (averaged over time) are from the teacher's `taught` [B, classes].

    Hard: cross-entropy with the teacher's likeliest class. Soft: the Kullback-Leibler divergence at temperature tau, times
    tau^2, divided by the number of logits (Touvron et al., ICML 2021).
    """
    logits = at_least_float32(logits if logits.ndim == 2 else logits.mean(0))
    if training.distillation == "hard":
        return F.cross_entropy(logits, taught.argmax(-1))
    tau = training.distillation_tau
    ours, theirs = (logits / tau).log_softmax(-1), (taught / tau).log_softmax(-1)
    return F.kl_div(ours, theirs, reduction="sum", log_target=True) * tau**2 / logits.numel()


def count(sums: Tensor, loss: Tensor, logits: Tensor, labels: Tensor):
    """Adds a batch's mean loss [], logits [B, classes] and labels [B] to sums [3]: loss, correct answers, samples. Does not
    wait for the device."""
    sums[0] += loss.float() * len(labels)
    sums[1] += (logits.argmax(-1) == labels).sum()
    sums[2] += len(labels)


def peak_lr(training: Training, batch_size: int) -> float:
    """The highest learning rate: training.lr, scaled linearly from lr_batch_size to the batch size."""
    return training.lr * (batch_size / training.lr_batch_size if training.lr_batch_size else 1.0)


def lr_factor(step: int, steps_per_epoch: int, training: Training, batch_size: int) -> float:
    """The learning rate after `step` optimiser steps as a multiple of the highest."""
    peak = peak_lr(training, batch_size)
    warmup = training.warmup_epochs * steps_per_epoch
    if step < warmup:
        low = training.warmup_lr / peak
        return low + (1 - low) * (step + 1) / (warmup + 1)
    if training.schedule == "step":
        return training.decay_rate ** (step // (training.decay_epochs * steps_per_epoch))
    progress = min(1.0, (step - warmup) / max(1.0, training.epochs * steps_per_epoch - warmup))
    low = training.min_lr / peak
    return low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2
