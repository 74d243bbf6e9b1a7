"""What a classifier answers: accuracy, firing rates, and the classes of single images. Needs no Lightning."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..data import Data, TestSet, test_loader
from ..data.loading import collate
from ..data.samples import PADDING_LABEL
from ..measure import Accuracy, Tally, answers_so_far, emissions
from ..measure.accuracy import TOP
from .checkpoint import Trained, data_of
from .results import FiringRates, NotFinite, at_least_float32, must_have_read, not_finite_text
from .task import Shown, Task, register_task

MEASURED_TOGETHER = 64
"""So many samples at most does a model see at once that is measured."""


@dataclass
class Evaluation(FiringRates):
    """What a classifier's answers after 1, 2, ..., T steps are worth, the last being those of the logits averaged over time, and what
    its neurons emitted. Samples that are `not_finite`, or whose logits are not, count as wrong, and in the loss not at all."""

    answers: Accuracy
    tally: Tally
    not_finite: str = ""

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.answers.accuracy

    @property
    def accuracy_per_step(self) -> list[float]:
        """The same after the first 1, 2, ..., T steps."""
        return self.answers.per_step

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        return self.answers.loss

    @property
    def samples(self) -> int:
        """How many were tested."""
        return self.answers.labelled

    def as_text(self, data: str) -> str:
        """Lines for the terminal; `data` is the data set's name."""
        lines = [
            f"accuracy     {self.accuracy:.2%} of {self.samples:,} test samples ({data})",
            f"by step      {per_step(self.accuracy_per_step)}",
            f"loss         {self.loss:.4f}",
        ]
        if self.answers.classes > TOP:
            lines.insert(1, f"top {TOP}        {self.answers.top5:.2%}")
        return "\n".join([*lines, self.firing_text(), *not_finite_text(self.not_finite)])


def step_logits(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Logits [T, B, classes] in float32 (or float64), as every test computes them, within training and after it."""
    return at_least_float32(model(x, per_step=True))


def precision_of(model: nn.Module) -> str:
    """What a model computes in, such as float32: the type of its weights."""
    weights = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    return str(weights.dtype).removeprefix("torch.")


@torch.no_grad()
def evaluate(model: nn.Module, samples: TestSet, device: str | torch.device = "cpu") -> Evaluation:
    """Tests a model in eval mode on every test sample once; the model is left on the device in eval mode.

    Args:
        model: left on the device in eval mode.
        samples: what is tested on.
        device: where it runs.

    Raises:
        ValueError: no sample could be read.
    """
    model.to(device).eval()
    answers, broken = Accuracy(), NotFinite(samples)
    with emissions(model) as tally:
        for x, labels in test_loader(samples):
            x = x.to(device)
            logits = step_logits(model, x)
            own = [axis for axis in range(x.ndim) if axis != x.ndim - 4]  # all but the samples', [B, C, H, W] or [T, B, C, H, W]
            finite = x.isfinite().all(own) & logits.isfinite().all((0, 2))
            broken.add((finite.cpu() | (labels == PADDING_LABEL)).tolist())
            answers.update(answers_so_far(logits), labels, finite)
    must_have_read(answers.labelled)
    return Evaluation(answers, tally(answers.samples), broken.text())


def per_step(accuracies: list[float]) -> str:
    """Accuracies after the first 1, 2, ..., T steps, for the terminal."""
    return ", ".join(f"{accuracy:.2%}" for accuracy in accuracies) + f" after 1 to {len(accuracies)} time steps"


@torch.no_grad()
def predict(trained: Trained, path: str | Path, top: int = 5) -> list[tuple[str, float]]:
    """The `top` likeliest classes of an image or event file with their probabilities, likeliest first. Photos are turned upright as
    the camera says.

    Args:
        trained: what `load_trained` made.
        path: of the file.
        top: how many classes.

    Raises:
        ValueError: the file is missing or no image (or recording), the checkpoint does not say how images are prepared, or the answer
            is no finite number.
    """
    x, _ = collate([(data_of(trained).read(path), 0)])
    logits = trained.model.eval()(x, per_step=True).mean(0)[0]
    if not (x.isfinite().all() and logits.isfinite().all()):
        raise ValueError(f"{path} holds or leads to numbers that are not finite (NaN or infinite), which are no answer")
    probabilities = logits.softmax(-1)
    best, classes = probabilities.topk(min(top, len(probabilities))), trained.classes
    return [(classes[index] if classes else f"class {index}", value) for index, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)]


def _predicted(trained: Trained, paths: Sequence[str | Path], shown: Shown) -> Iterator[str]:
    for path in paths:
        best = predict(trained, path, shown.top)
        yield f"{path}: " + ", ".join(f"{name} {probability:.1%}" for name, probability in best)


def _batches(samples: Dataset, data: Data) -> DataLoader:
    return DataLoader(samples, min(data.batch_size, MEASURED_TOGETHER), num_workers=data.workers, collate_fn=collate)


register_task(Task("classification", evaluate, _predicted, _batches, event_driven=True))
