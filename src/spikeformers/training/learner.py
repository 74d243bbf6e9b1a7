"""What training every task shares: data, optimiser and schedule, averaged weights, processes, and checkpoints within epochs."""

import copy
import difflib
import math
import random
import warnings

import lightning as L
import numpy as np
import torch
from timm.optim import create_optimizer_v2, list_optimizers, param_groups_layer_decay, param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from ..data import TestSet, TrainingSet, test_loader, train_loader
from ..data.randomness import stable_seed
from ..models._backbone import spiking_backbone
from .parallel import shard, share_buffers
from .recipe import Recipe, Training
from .task import find_learning

LOSSES_LOST = 4
"""So many in a row may be no finite numbers under float16, which then skips the step and lowers its scale."""


class Learner(L.LightningModule):
    """A model with its optimiser, averaged weights and data. The `objective` computes its loss and counts what tests find; the task's
    `learning` says how that is shown.

    Everything random in a step follows from (seed, epoch, batch, process), so a run that is continued at any step goes on
    exactly as one that never stopped. `sums` [counters] is what this process has counted in the epoch under way; its last
    item is the number of samples.

    Args:
        model: that learns.
        recipe: of the run.
        train_set, test_set: its samples.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, train_set: TrainingSet, test_set: TestSet):
        super().__init__()
        self.model, self.recipe = model, recipe
        self.train_set, self.test_set, self.classes = train_set, test_set, train_set.classes
        self.learning = find_learning(recipe.data.task)
        self.objective = self.learning.objective(model, recipe, train_set)
        self._rounded = []  # a list hides it from state_dict
        self.first_epoch = self.batches_done = 0
        self.batch = -1  # the latest one's number since training began
        self.lost = torch.zeros((), dtype=torch.int64)  # so many losses in a row up to it are no finite numbers
        self.start_counting()
        training, body = recipe.training, spiking_backbone(model)
        if training.ema:
            self.ema = ModelEmaV3(model, decay=training.ema)
        model.set_grad_checkpointing(training.checkpointing)
        if training.compile and body is model:
            model.compile()
        elif training.compile:  # the entrance that dense models use
            body.forward_intermediates = torch.compile(body.forward_intermediates)

    def describe(self) -> str:
        """The model in a line for the terminal."""
        shrinking = f" ({', '.join(map(str, self.model.schedule))} by stage)" if self.model.schedule else ""
        return f"{self.parameters_text()}, {self.time_steps} time steps{shrinking}"

    @property
    def time_steps(self) -> int:
        """T of the sequences, or how often the model shows itself an image."""
        return self.train_set.shape[0] if len(self.train_set.shape) == 4 else self.model.time_steps

    def parameters_text(self) -> str:
        """How many parameters the model has, and its early classifiers beside it."""
        learning = sum(p.numel() for p in spiking_backbone(self.model).early.parameters())
        parameters = f"{sum(p.numel() for p in self.model.parameters()) - learning:,} parameters"
        return parameters + f" and {learning:,} of early classifiers" * bool(learning)

    @property
    def sample_sets(self) -> dict[str, TrainingSet | TestSet]:
        return {"training": self.train_set, "test": self.test_set}

    @property
    def tested(self) -> nn.Module:
        """The model that is tested and exported: the average of its weights over time where the recipe has one."""
        return self.ema.module if hasattr(self, "ema") else self.model

    @property
    def exported(self) -> nn.Module:
        """`tested` as it is read back from an export, which is in float32."""
        return self._rounded[0] if self._rounded else self.tested

    def configure_model(self):
        if self.recipe.trainer.strategy == "fsdp" and self.trainer.world_size > 1:
            shard(self.model, spiking_backbone(self.model).stages, self.device_mesh["data_parallel"])

    def start_counting(self):
        self.sums = torch.zeros(self.objective.counters, device=self.device)

    def on_fit_start(self):
        self.sums, self.lost = self.sums.to(self.device), self.lost.to(self.device)
        with self.trainer.precision_plugin.forward_context():
            self.objective.start(self.device)

    def on_train_epoch_start(self):
        self.start_counting()
        frozen = self.recipe.training.freeze_norms
        if frozen is not None and self.current_epoch >= frozen:
            for module in spiking_backbone(self.model).modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def on_train_batch_start(self, batch, batch_idx):
        self.share_buffers()

    def share_buffers(self):
        """Gives all processes the first one's batch statistics, as DDP does by itself; those are what is tested and saved."""
        if self.recipe.trainer.strategy == "fsdp" and self.trainer.world_size > 1:
            share_buffers(self.model)

    def training_step(self, batch, batch_idx):
        seed_everything(self.recipe.seed, self.current_epoch, batch_idx, self.global_rank)
        loss, counted = self.objective.loss(self.model, batch, self.current_epoch)
        self.sums += counted
        self.batch = self.current_epoch * self.batches_per_epoch + batch_idx
        self.lost = torch.where(loss.detach().isfinite(), 0, self.lost + 1)
        return loss

    def must_be_finite(self):
        """Waits for the device.

        Raises:
            ValueError: the last loss was not a finite number, under float16 the last ones; since which step is said.
        """
        lost, training = self.lost.item(), self.recipe.training
        if lost > (LOSSES_LOST if training.precision in ("16", "16-mixed") else 0):
            first = self.batch - lost + 1
            epoch, batch = divmod(first, self.batches_per_epoch)
            step = first // training.accumulate + 1
            clip = f"below {training.clip_grad}" if training.clip_grad else "such as 1"
            raise ValueError(
                f"the loss is not a finite number since step {step} (epoch {epoch + 1}, batch {batch + 1}); start again with "
                f"a training.lr below {training.lr}, a longer warm-up, or a training.clip_grad {clip}"
            )

    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)
        if hasattr(self, "ema"):
            self.ema.update(self.model)

    def on_validation_epoch_start(self):
        self.share_buffers()
        self._rounded = (
            [copy.deepcopy(self.tested).float()] if self.recipe.training.precision in ("64", "64-true") else []
        )
        self.objective.start_test(self.device)

    def validation_step(self, batch, _):
        """Tests are computed in float32, however training multiplies: what they say holds for the weights that are exported, and
        `spikeformers eval` says the same. Neurons make it matter: in bfloat16 a potential of 0.998 is a spike."""
        images, targets = batch
        if self._rounded:  # every test image was float32 before
            images = [image.float() for image in images] if isinstance(images, list) else images.float()
        with torch.autocast(self.device.type, enabled=False):
            self.objective.test(self.exported, (images, targets))

    def train_metrics(self, sums: Tensor) -> dict[str, float]:
        """Of the objective, from sums [counters] of the epoch so far."""
        return self.objective.train_metrics(sums.tolist())

    def test_metrics(self) -> dict[str, float]:
        """Of the objective, of the last test; all processes must call this."""
        return self.objective.test_metrics(self.total)

    def total(self, sums: Tensor) -> Tensor:
        """The sum [...] over all processes, all of which must call this."""
        return self.trainer.strategy.reduce(sums, reduce_op="sum")

    @property
    def steps_per_epoch(self) -> int:
        return len(self.train_set) // self.recipe.data.batch_size

    @property
    def batches_per_epoch(self) -> int:
        return self.steps_per_epoch * self.recipe.training.accumulate

    def configure_optimizers(self):
        training, batch_size = self.recipe.training, self.recipe.data.batch_size
        wanted, total = warmup_of(training, self.steps_per_epoch, cut=False), training.epochs * self.steps_per_epoch
        if wanted >= total:
            warnings.warn(
                f"the warm-up of {wanted:g} steps is longer than all {training.epochs} epochs, which have {total}; it takes the first half of them",
                stacklevel=2,
            )
        dense = spiking_backbone(self.model) is not self.model
        try:
            optimizer = create_optimizer_v2(
                self.model,
                opt=training.optimizer,
                lr=peak_lr(training, batch_size),
                weight_decay=training.weight_decay,
                layer_decay=training.layer_decay if training.layer_decay != 1 else None,
                param_group_fn=(lambda model: parameter_groups(model, training)) if dense else None,
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
        steps_per_epoch = self.steps_per_epoch
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
        checkpoint["sums"] = self.total(self.sums.clone())
        checkpoint["unreadable"] = {}
        for name, samples in self.sample_sets.items():  # what any process could not read
            broken = self.total(samples.unreadable.to(self.device).float())
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


def parameter_groups(model: nn.Module, training: Training) -> list[dict]:
    """The optimiser's groups of a dense model: heads and neck, whose learning rates are training.head_lr and neck_lr times the
    backbone's, and last the backbone's own, which training.layer_decay divides further."""
    body, decay = spiking_backbone(model), training.weight_decay
    if training.layer_decay != 1:
        of_body = param_groups_layer_decay(body, decay, layer_decay=training.layer_decay)
    else:
        of_body = param_groups_weight_decay(body, decay)
    inside, neck = ({id(p) for p in part.parameters()} for part in (body, model.backbone.neck))
    groups = []
    for group in param_groups_weight_decay(model, decay):
        outside = [p for p in group["params"] if id(p) not in inside]
        for scale, own in ((training.neck_lr, True), (training.head_lr, False)):
            if chosen := [p for p in outside if (id(p) in neck) == own]:
                groups.append(group | {"params": chosen, "lr_scale": scale})
    return groups + of_body


def peak_lr(training: Training, batch_size: int) -> float:
    """The highest learning rate: training.lr, scaled linearly from lr_batch_size to the batch size."""
    return training.lr * (batch_size / training.lr_batch_size if training.lr_batch_size else 1.0)


def warmup_of(training: Training, steps_per_epoch: int, cut: bool = True) -> float:
    """Optimiser steps of the warm-up: those of the recipe, or half of all where there are not so many, as when a long recipe is tried
    for an epoch.

    Args:
        training: says how many.
        steps_per_epoch: optimiser steps.
        cut: whether they are halved.
    """
    wanted, total = training.warmup_steps or training.warmup_epochs * steps_per_epoch, training.epochs * steps_per_epoch
    return total / 2 if cut and wanted >= total else wanted


def lr_factor(step: int, steps_per_epoch: int, training: Training, batch_size: int) -> float:
    """The learning rate after `step` optimiser steps as a multiple of the highest.

    Args:
        step: optimiser steps done.
        steps_per_epoch: of them.
        training: says the schedule.
        batch_size: samples of a step over all processes, by which the rate may be scaled.
    """
    peak = peak_lr(training, batch_size)
    warmup = warmup_of(training, steps_per_epoch)
    if step < warmup:
        low = training.warmup_lr / peak
        return low + (1 - low) * (step + 1) / (warmup + 1)
    if training.schedule == "step":
        falls = step // (training.decay_epochs * steps_per_epoch)
        if training.decay_at:
            falls = sum(step >= epoch * steps_per_epoch for epoch in training.decay_at)
        return training.decay_rate**falls
    progress = min(1.0, (step - warmup) / max(1.0, training.epochs * steps_per_epoch - warmup))
    low = training.min_lr / peak
    if training.schedule == "poly":
        return low + (1 - low) * (1 - progress) ** training.poly_power
    return low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2
