"""How tasks are learned: one record for each, found by its name. The other half, how answers are tested, is `evaluation.task.Task`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..data import TestSet, TrainingSet

if TYPE_CHECKING:
    from .recipe import Recipe


class Objective(ABC):
    """What a model is to learn in a run: a batch's loss, and what training and tests count. A `Learner` owns it, and all else of a run.

    `columns` are the names of `train_metrics` and `test_metrics` in the table of epochs, `counters` is how many numbers are counted
    in training.

    Args:
        model: that learns.
        recipe: of the run.
        train_set: its samples.
    """

    columns: Sequence[str]
    counters: int

    def __init__(self, model: nn.Module, recipe: "Recipe", train_set: TrainingSet):
        self.recipe, self.train_set, self.classes = recipe, train_set, train_set.classes

    def start(self, device: torch.device) -> None:  # noqa: B027 - most have nothing to do here
        """Called before the first step on the device, in the arithmetic of training."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any, epoch: int) -> tuple[Tensor, Tensor]:
        """A batch's mean loss [], and what is counted of it [counters], of which the last is the number of samples. Does not wait
        for the device.

        Args:
            model: in train mode.
            batch: of the data's `train_loader`.
            epoch: counted from 0.
        """

    @abstractmethod
    def train_metrics(self, sums: Sequence[float]) -> dict[str, float]:
        """The first of `columns`, from the sums of what was counted in an epoch so far, over all processes."""

    @abstractmethod
    def start_test(self, device: torch.device) -> None:
        """Forgets the last test."""

    @abstractmethod
    def test(self, model: nn.Module, batch: Any) -> None:
        """Adds a batch of test samples, of which padding does not count, to what `test_metrics` says.

        Args:
            model: in eval mode, as it will be exported.
            batch: of the data's `test_loader`, in float32.
        """

    @abstractmethod
    def test_metrics(self, total: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The rest of `columns`, of the last test; all processes call this, and `total` adds up tensors of all of them."""

    def samples_text(self) -> str:
        """What the samples are, such as "samples 3x32x32"."""
        return "images"


def loss_text(metrics: dict[str, float]) -> str:
    """The training loss for the progress bar."""
    return f"loss {metrics['train_loss']:.3f}"


@dataclass(frozen=True)
class Learning:
    """How a task is learned.

    Args:
        name: of the task.
        options: those of `Training` that say something about this task and not about each: no other task has them unless it names
            them too.
        model_options: of a recipe and its training samples the options to create the model with: what follows from the data, and
            what the recipe gives.
        prepare: gives a model what its recipe adds to it; also takes the training samples and in how many parts each batch is
            computed. Raises ValueError where these do not fit each other.
        try_out: shows a test sample to a model. Raises ValueError if it cannot take the sample, or knows other classes.
        objective: what is computed in each step and test.
        score: of a row of the table of epochs, what the best epoch has most of.
        epoch_text: a row of the table for the terminal.
        summary: what summary.json says of a test of the best epoch's model, as `evaluation.task.Task.evaluate` returns it, and of the
            last epoch's row; with test_samples, firing_rate and firing_rates.
        summary_lines: the same for the terminal, apart from firing rates.
        progress: the objective's `train_metrics` for the progress bar.
    """

    name: str
    options: Sequence[str]
    model_options: Callable[["Recipe", TrainingSet], dict]
    prepare: Callable[[nn.Module, "Recipe", TrainingSet, int], None]
    try_out: Callable[[nn.Module, TestSet], None]
    objective: type[Objective]
    score: Callable[[dict], tuple[float, ...]]
    epoch_text: Callable[[dict], str]
    summary: Callable[[Any, dict], dict]
    summary_lines: Callable[[dict], list[str]]
    progress: Callable[[dict[str, float]], str] = loss_text


LEARNING: dict[str, Learning] = {}


def register_learning(learning: Learning) -> Learning:
    """Makes it known how the task of this name is learned."""
    LEARNING[learning.name] = learning
    return learning


def find_learning(name: str) -> Learning:
    """How a task is learned, by its name.

    Raises:
        ValueError: nothing says how.
    """
    if name not in LEARNING:
        raise ValueError(
            f"nothing says how {name!r} is learned; give data for {', '.join(LEARNING)}, or a `Learning` to `register_learning`"
        )
    return LEARNING[name]


def options_of_others(name: str) -> set[str]:
    """Those of `Training` that say something about other tasks only."""
    claimed = {option for learning in LEARNING.values() for option in learning.options}
    return claimed - set(find_learning(name).options)
