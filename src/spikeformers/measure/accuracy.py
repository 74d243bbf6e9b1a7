"""How often a classifier is right: sums over samples, which batches and processes add up."""
# Shapes: T time steps, B batch, K classes.

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .tally import exact

TOP = 5


def answers_so_far(logits: Tensor) -> Tensor:
    """Logits of every step [T, B, K] -> the answers after the first 1, 2, ..., T steps: their mean so far [T, B, K]."""
    steps = torch.arange(1, len(logits) + 1, device=logits.device, dtype=logits.dtype).view(-1, 1, 1)
    answers = logits.cumsum(0) / steps
    answers[-1] = logits.mean(0)  # rounded as everywhere else
    return answers


class Accuracy:
    """How many answers are right after 1, 2, ..., T time steps; the last is the network's answer.

    Two of them are added with `+`. Several processes add theirs up as tensors: `from_tensor(all_reduce(accuracy.to_tensor()), ...)`, for
    which all must know T and K beforehand.

    Args:
        time_steps, classes: T and K, if they are known; otherwise the first samples say.
        device: where the sums are kept; they follow the answers.

    Attributes:
        right, right_top5: how many labelled samples each step's answer gets right, with its first or one of its five likeliest classes [T].
        losses: sum of the cross-entropies of each step's answer in nats [T].
        confusion: how often samples of a class (row) got which answer in the end [K, K].
        undefined: of each class how many samples got no answer, since it was not finite; they count as wrong, and in losses not at all [K].
        unlabelled: samples with a negative label, which count nowhere else.
    """

    def __init__(self, time_steps: int = 0, classes: int = 0, device: torch.device | str = "cpu"):
        self.right, self.right_top5 = (torch.zeros(time_steps, dtype=torch.int64, device=device) for _ in range(2))
        self.losses = torch.zeros(time_steps, dtype=exact(device), device=device)
        self.confusion = torch.zeros(classes, classes, dtype=torch.int64, device=device)
        self.undefined = torch.zeros(classes, dtype=torch.int64, device=device)
        self.unlabelled = torch.zeros((), dtype=torch.int64, device=device)

    @property
    def time_steps(self) -> int:
        return len(self.right)

    @property
    def classes(self) -> int:
        return len(self.confusion)

    @torch.no_grad()
    def update(self, answers: Tensor, labels: Tensor, finite: Tensor | None = None) -> None:
        """Adds samples. Waits for the device to look at the labels, no more.

        Args:
            answers: logits after 1 to T steps [T, B, K], or [B, K] of one.
            labels: [B]; negative where they are unknown.
            finite: [B], false for samples whose answers mean nothing; by default those with logits that are not finite.

        Raises:
            ValueError: labels do not fit the answers, or these do not fit the earlier ones.
        """
        answers = answers.detach()[None] if answers.ndim == 2 else answers.detach()
        steps, batch, classes = answers.shape
        labels = labels.to(answers.device)
        if labels.shape != (batch,) or (batch and int(labels.max()) >= classes):
            most = int(labels.max()) if labels.numel() else "nothing"
            raise ValueError(f"{labels.numel()} labels up to {most} do not fit {batch} answers of {classes} classes")
        if not self.time_steps and not self.classes:
            self.__init__(steps, classes, answers.device)
        if (steps, classes) != (self.time_steps, self.classes):
            raise ValueError(
                f"answers of {classes} classes after {steps} time steps cannot be counted with those of {self.classes} classes after "
                f"{self.time_steps}; begin anew"
            )
        self._to(answers.device)
        known = labels >= 0
        self.unlabelled += batch - int(known.sum())
        finite = answers.isfinite().all((0, 2)) if finite is None else finite.to(answers.device)
        self.undefined += torch.bincount(labels[known & ~finite], minlength=classes)
        labels, answers = labels[known & finite], answers[:, known & finite]
        first = answers.argmax(2)
        self.right += (first == labels).sum(1)
        best = answers.topk(min(TOP, classes), 2).indices
        self.right_top5 += (best == labels[:, None]).any(2).sum(1)
        answers = answers if answers.dtype == torch.float64 else answers.float()
        entropy = F.cross_entropy(answers.flatten(0, 1), labels.repeat(steps), reduction="none")
        self.losses += entropy.view(steps, -1).sum(1, dtype=self.losses.dtype)
        pairs = labels * classes + first[-1]
        self.confusion += torch.bincount(pairs, minlength=classes**2).view(classes, classes)

    def _to(self, device: torch.device) -> None:
        if self.right.device != device:
            for name, value in vars(self).items():
                setattr(self, name, value.to(device))

    # results

    @property
    def labelled(self) -> int:
        return int(self.confusion.sum() + self.undefined.sum())

    @property
    def samples(self) -> int:
        return self.labelled + int(self.unlabelled)

    @property
    def accuracy(self) -> float | None:
        """Share of right answers in the end; None without labels."""
        return self._share(self.right[-1:])

    @property
    def top5(self) -> float | None:
        """Share of the samples whose class is among the five likeliest in the end."""
        return self._share(self.right_top5[-1:])

    @property
    def loss(self) -> float | None:
        """Mean cross-entropy of the last answers in nats, of those that are finite."""
        answered = int(self.confusion.sum())
        return self.losses[-1].item() / answered if answered else math.nan if self.labelled else None

    @property
    def per_step(self) -> list[float] | None:
        """Accuracy after the first 1, 2, ..., T steps."""
        return [share / self.labelled for share in self.right.tolist()] if self.labelled else None

    @property
    def top5_per_step(self) -> list[float] | None:
        return [share / self.labelled for share in self.right_top5.tolist()] if self.labelled else None

    @property
    def samples_per_class(self) -> list[int]:
        """How many labelled samples there are of each class, those without a finite answer among them."""
        return (self.confusion.sum(1) + self.undefined).tolist()

    @property
    def per_class(self) -> list[float | None]:
        """For each class the share of its samples that the last answer recognises; None for a class without samples."""
        right = self.confusion.diag().tolist()
        return [hits / count if count else None for hits, count in zip(right, self.samples_per_class, strict=True)]

    @property
    def confusion_shares(self) -> Tensor:
        """The confusion matrix [K, K] as shares of each class's samples, on the CPU; 0 in the row of a class without samples."""
        return self.confusion.cpu().double() / torch.tensor(self.samples_per_class).clamp(min=1)[:, None]

    def _share(self, last: Tensor) -> float | None:
        return last.item() / self.labelled if self.labelled else None

    # adding up

    def __add__(self, other: "Accuracy") -> "Accuracy":
        empty = next((a for a in (self, other) if not a.classes), None)
        if empty is not None:
            whole = other if empty is self else self
            return Accuracy.from_tensor(whole.to_tensor(), whole.time_steps, whole.classes)
        if (self.time_steps, self.classes) != (other.time_steps, other.classes):
            raise ValueError(
                f"{self.classes} classes after {self.time_steps} time steps and {other.classes} after {other.time_steps} cannot be added up"
            )
        both = self.to_tensor() + other.to_tensor().to(self.right.device)
        return Accuracy.from_tensor(both, self.time_steps, self.classes)

    merge = __add__

    def to_tensor(self) -> Tensor:
        """All sums in one vector [3 T + 1 + K + K^2], which may be added up across processes."""
        parts = (
            self.right,
            self.right_top5,
            self.losses,
            self.unlabelled[None],
            self.undefined,
            self.confusion.flatten(),
        )
        return torch.cat([part.to(self.losses.dtype) for part in parts])

    @classmethod
    def from_tensor(cls, sums: Tensor, time_steps: int, classes: int) -> "Accuracy":
        """What `to_tensor` has written."""
        made = cls(time_steps, classes, sums.device)
        right, top5, made.losses, unlabelled, undefined, confusion = sums.split(
            [time_steps] * 3 + [1, classes, classes**2]
        )
        made.losses = made.losses.clone()
        made.right, made.right_top5, made.unlabelled, made.undefined = (
            x.round().long() for x in (right, top5, unlabelled[0], undefined)
        )
        made.confusion = confusion.view(classes, classes).round().long()
        return made

    def to_dict(self) -> dict[str, Any]:
        """For JSON, with the entries of the confusion matrix that are not zero: [class, answer, how often]."""
        places = self.confusion.nonzero()
        counts = self.confusion[tuple(places.T)][:, None]
        return {
            "classes": self.classes,
            "right": self.right.tolist(),
            "right_top5": self.right_top5.tolist(),
            "losses": self.losses.tolist(),
            "unlabelled": int(self.unlabelled),
            "undefined": self.undefined.tolist(),
            "confusion": torch.cat([places, counts], 1).tolist(),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Accuracy":
        """What `to_dict` has written."""
        made = cls(len(content["right"]), content["classes"])
        made.right, made.right_top5 = torch.tensor(content["right"]), torch.tensor(content["right_top5"])
        made.right, made.right_top5 = made.right.long(), made.right_top5.long()
        made.losses = torch.tensor(content["losses"], dtype=torch.float64)
        made.unlabelled = torch.tensor(content["unlabelled"])
        made.undefined = torch.tensor(content["undefined"], dtype=torch.int64)
        for label, answer, count in content["confusion"]:
            made.confusion[label, answer] = count
        return made

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Accuracy) or (self.time_steps, self.classes) != (other.time_steps, other.classes):
            return False
        return torch.equal(self.to_tensor().cpu(), other.to_tensor().cpu())
