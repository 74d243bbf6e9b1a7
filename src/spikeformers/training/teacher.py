"""Whose answers a model learns besides the labels."""

import timm
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from .._progress import watched
from ..data import TrainingSet
from ..evaluation.checkpoint import load_trained
from ..models._reading import read_state_dict
from .recipe import Training


class Teacher(nn.Module):
    """A network in eval mode, without gradients, that looks at images normalised for its student.

    Args:
        model: maps what its student sees to logits [B, classes].
        data: how the student's images are normalised (their `mean` and `std`), or None.
        mean, std: how the teacher's have to be, one number per channel; None takes them as they come.
    """

    def __init__(self, model: nn.Module, data=None, mean=None, std=None):
        super().__init__()
        self.model = model
        given, deviation = getattr(data, "mean", None), getattr(data, "std", None)
        self.renormalises = bool(given and mean) and len(given) == len(mean) and [*given, *deviation] != [*mean, *std]
        if self.renormalises:
            given, deviation, mean, std = (
                torch.tensor(values)[:, None, None] for values in (given, deviation, mean, std)
            )
            self.register_buffer("scale", deviation / std)
            self.register_buffer("shift", (given - mean) / std)
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] (or [T, B, C, H, W] for a spiking teacher) -> logits [B, classes]"""
        return self.model(x * self.scale + self.shift if self.renormalises else x)


@torch.no_grad()
def answers_to(teacher: Teacher, samples: TrainingSet, device: torch.device) -> Tensor:
    """The teacher's logits [samples, classes], in half precision on the CPU, for the training samples as they are when tested.

    Args:
        teacher: that is asked.
        samples: of training.
        device: where it runs.
    """
    transform, size, answers = samples.data.transform(training=False), samples.data.batch_size, []
    starts = range(0, len(samples), size)
    for start in watched(starts, "asking the teacher", shown=rank_zero_only.rank == 0):
        read = (samples.read(index) for index in range(start, min(start + size, len(samples))))
        x, _ = samples.data.collate([(transform(sample), label) for sample, label, _ in read])
        answers.append(
            teacher(x.to(device, memory_format=torch.channels_last if x.ndim == 4 else torch.preserve_format))
            .float()
            .cpu()
        )
    return torch.cat(answers).half()


def teacher_of(training: Training, num_classes: int, data=None) -> Teacher:
    """The recipe's teacher for images of `data`.

    Args:
        training: names it or its weights.
        num_classes: that it must answer.
        data: of the student, for how images are normalised.

    Raises:
        ValueError: timm does not know it, its weights cannot be loaded, or it answers other classes.
    """
    if training.teacher is None:
        trained = load_trained(training.teacher_weights)
        model, name, known = trained.model, training.teacher_weights, trained.data
        mean, std = getattr(known, "mean", None), getattr(known, "std", None)
        answers = getattr(model, "num_classes", None)
    else:
        model, name = _of_timm(training, num_classes), training.teacher
        mean, std = (getattr(model, "pretrained_cfg", {}).get(key) for key in ("mean", "std"))
        answers = model.num_classes
    if answers != num_classes:
        raise ValueError(
            f"the teacher {name} knows {answers} classes and the data have {num_classes}; give a teacher for the same classes"
        )
    return Teacher(model, data, mean, std)


def _of_timm(training, num_classes):
    try:
        if not training.teacher_weights:
            return timm.create_model(training.teacher, pretrained=True)
        model = timm.create_model(training.teacher, num_classes=num_classes)
        lost = model.load_state_dict(read_state_dict(training.teacher_weights), strict=False)
        wrong = [*lost.unexpected_keys, *(key for key in lost.missing_keys if not key.endswith("num_batches_tracked"))]
        if wrong:  # a counter of batches is nothing that a teacher needs
            raise ValueError(
                f"{training.teacher_weights} does not fit: {len(wrong)} names are missing or left over, such as {wrong[0]}"
            )
        return model
    except (RuntimeError, OSError, ValueError) as error:  # what timm, PyTorch and the Hub raise
        raise ValueError(
            f"cannot load the teacher {training.teacher} ({(str(error).splitlines() or ['no such file'])[0]}); give a model of timm as "
            "training.teacher, and where nothing can be downloaded its safetensors file as training.teacher_weights"
        ) from None
