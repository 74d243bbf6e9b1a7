"""What a classifier answers: accuracy, firing rates, and the classes of single images. Needs no Lightning."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from .. import plots
from .._files import as_csv, without_nan, write_atomically, write_json
from .._notebook import Table, Tabular, named_lines
from .._progress import watched
from ..data import Data, TestSet, test_loader
from ..data.loading import collate
from ..data.samples import PADDING_LABEL
from ..measure import Accuracy, Tally, answers_so_far, emissions
from ..measure.accuracy import TOP
from .checkpoint import Trained, data_of
from .results import FiringRates, NotFinite, at_least_float32, must_have_read, not_finite_text
from .task import Answer, Shown, Task, answers_to, files_among, register_task

FEW_CLASSES = 12
"""So many are all named in a line."""
MEASURED_TOGETHER = 64
"""So many samples at most does a model see at once that is measured."""


@dataclass(repr=False)
class Evaluation(FiringRates, Tabular):
    """What a classifier's answers after 1, 2, ..., T steps are worth, the last being those of the logits averaged over time, and what
    its neurons emitted. Samples that are `not_finite`, or whose logits are not, count as wrong, and in the loss not at all.

    Attributes:
        answers: accuracy, top-5, losses, confusion.
        tally: of the neurons.
        not_finite: which samples are not finite, in words.
        classes: names; numbers if they are not known.
        data: the data set's name.
    """

    answers: Accuracy
    tally: Tally
    not_finite: str = ""
    classes: Sequence[str] = ()
    data: str = ""

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

    @property
    def names(self) -> list[str]:
        """Of the classes."""
        return list(self.classes) or [f"class {label}" for label in range(self.answers.classes)]

    @property
    def accuracy_per_class(self) -> dict[str, float | None]:
        """Share of each class's samples that are recognised; None of a class without samples."""
        return dict(zip(self.names, self.answers.per_class, strict=True))

    def most_confused(self, count: int = 3) -> list[tuple[str, str, float]]:
        """The likeliest mistakes: (class, answer, share of the class's samples), the largest share first.

        Args:
            count: how many at most.
        """
        shares = self.answers.confusion_shares.fill_diagonal_(0)
        best = shares.flatten().topk(min(count, shares.numel()))
        places = [divmod(place, len(shares)) for place in best.indices.tolist()]
        return [
            (self.names[row], self.names[column], share)
            for (row, column), share in zip(places, best.values.tolist(), strict=True)
            if share
        ]

    def as_text(self, data: str) -> str:
        """Lines for the terminal; `data` is the data set's name."""
        lines = [
            f"accuracy     {self.accuracy:.2%} of {self.samples:,} test samples ({data})",
            f"by step      {per_step(self.accuracy_per_step)}",
            f"loss         {self.loss:.4f}",
        ]
        if self.answers.classes > TOP:
            lines.insert(1, f"top {TOP}        {self.answers.top5:.2%}")
        known = sorted(((share, name) for name, share in self.accuracy_per_class.items() if share is not None))
        if len(known) > 1:
            shown = [f"{name} {share:.1%}" for share, name in (known if len(known) <= FEW_CLASSES else known[:TOP])]
            lines.append(f"by class     {', '.join(shown)}" + f", ... of {len(known)}" * (len(known) > FEW_CLASSES))
        if mistakes := self.most_confused():
            lines.append(
                "confused     " + ", ".join(f"{name} as {answer} {share:.1%}" for name, answer, share in mistakes)
            )
        return "\n".join([*lines, self.firing_text(), *not_finite_text(self.not_finite)])

    def __str__(self) -> str:
        return self.as_text(self.data or "no name")

    def tables(self) -> list[Table]:
        """For a notebook: what `print` says, the classes, and which were confused."""
        classes = [
            (name, "no samples" if share is None else f"{share:.2%}") for name, share in self.accuracy_per_class.items()
        ]
        mistakes = [(name, answer, f"{share:.2%}") for name, answer, share in self.most_confused(20)]
        return [
            Table(named_lines(str(self).split("\n"))),
            Table(classes, ("class", "accuracy"), f"{len(classes)} classes", folded=True),
            Table(mistakes, ("class", "taken for", "share of the class"), "mistakes", folded=True),
        ]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: numbers in words, and under `answers` all counts, which `Accuracy.from_dict` reads."""
        return {
            "data": self.data,
            "samples": self.samples,
            "accuracy": self.accuracy,
            "top5": self.answers.top5,
            "loss": self.loss,
            "accuracy_per_step": self.accuracy_per_step,
            "accuracy_per_class": self.accuracy_per_class,
            "firing_rate": self.firing_rate,
            "firing_rates": self.firing_rates,
            "not_finite": self.not_finite,
            "classes": self.names,
            "answers": self.answers.to_dict(),
        }

    def write(self, folder: str | Path) -> list[Path]:
        """Writes evaluation.json, classes.csv (accuracy and number of samples), confusion.csv (classes as rows, answers as columns) and
        confusion.png.

        Args:
            folder: made if it is not there.

        Returns:
            The files.
        """
        folder, confusion = Path(folder), self.answers.confusion.tolist()
        written = [folder / name for name in ("evaluation.json", "classes.csv", "confusion.csv", "confusion.png")]
        write_json(written[0], without_nan(self.to_dict()))
        classes = [
            {"class": name, "samples": count, "accuracy": share}
            for (name, share), count in zip(
                self.accuracy_per_class.items(), self.answers.samples_per_class, strict=True
            )
        ]
        write_atomically(written[1], as_csv(classes).encode())
        rows = [
            {"class": name, **dict(zip(self.names, counts, strict=True))}
            for name, counts in zip(self.names, confusion, strict=True)
        ]
        write_atomically(written[2], as_csv(rows).encode())
        plots.save(plots.confusion_matrix(self.answers, self.names, plots.blank_figure((8, 8)).subplots()), written[3])
        return written


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
        for x, labels in watched(test_loader(samples), "testing"):
            x = x.to(device)
            logits = step_logits(model, x)
            own = [
                axis for axis in range(x.ndim) if axis != x.ndim - 4
            ]  # all but the samples', [B, C, H, W] or [T, B, C, H, W]
            finite = x.isfinite().all(own) & logits.isfinite().all((0, 2))
            broken.add((finite.cpu() | (labels == PADDING_LABEL)).tolist())
            answers.update(answers_so_far(logits), labels, finite)
    must_have_read(answers.labelled)
    return Evaluation(answers, tally(answers.samples), broken.text(), samples.classes, samples.data.name)


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
    return [
        (classes[index] if classes else f"class {index}", value)
        for index, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _predicted(trained: Trained, paths: Sequence[str | Path], shown: Shown) -> Iterator[Answer]:
    def answer(path):
        best = predict(trained, path, shown.top)
        text = f"{path}: " + ", ".join(f"{name} {probability:.1%}" for name, probability in best)
        found = [{"class": name, "probability": probability} for name, probability in best]
        rows = [{"file": str(path), "rank": rank, **each} for rank, each in enumerate(found, 1)]
        return Answer(str(path), text, {"file": str(path), "classes": found}, rows)

    data = data_of(trained)
    yield from answers_to(files_among(paths, data.suffixes, data.samples_are), answer)


def _batches(samples: Dataset, data: Data) -> DataLoader:
    return DataLoader(samples, min(data.batch_size, MEASURED_TOGETHER), num_workers=data.workers, collate_fn=collate)


register_task(Task("classification", evaluate, _predicted, _batches, event_driven=True))
