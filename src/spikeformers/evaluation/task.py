"""Tasks: what a network is asked, how its answers are tested and shown. The other half, how a task is learned, is `training.task.Learning`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..data import Data, TestSet
from .checkpoint import Trained, data_of


@dataclass(frozen=True)
class Shown:
    """How answers to single files are shown.

    Args:
        top: how many classes are named.
        out: the folder for pictures; no image is written over.
        threshold: the lowest score of objects that are drawn.
        device: where models of pictures run.
    """

    top: int = 3
    out: str | Path = "predictions"
    threshold: float = 0.5
    device: str | torch.device = "cpu"


@dataclass(frozen=True)
class Task:
    """What everybody but training knows of a task.

    Args:
        name: the `task` of its configurations of data.
        evaluate: tests a model in eval mode on every test sample once, on a device where it is left. The result has `as_text(data)`,
            lines for the terminal in which the data set is named, and what `training.task.Learning.summary` asks of it.
        predict: for each of some files a line that says what the model finds there, once that is drawn if it is a picture.
        batches: of samples for whoever measures a model on them: what it takes, with or without labels.
        classes_beside: so many classes does a model count that the data have no name for, such as the background.
        event_driven: whether `transforms.event_driven` takes its models.
    """

    name: str
    evaluate: Callable[[nn.Module, TestSet, str | torch.device], Any]
    predict: Callable[[Trained, Sequence[str | Path], Shown], Iterator[str]]
    batches: Callable[[Dataset, Data], DataLoader]
    classes_beside: int = 0
    event_driven: bool = False


TASKS: dict[str, Task] = {}


def register_task(task: Task) -> Task:
    """Makes a task known by its name."""
    TASKS[task.name] = task
    return task


def find_task(name: str) -> Task:
    """A task by its name.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in TASKS:
        raise ValueError(f"there is no task {name!r}; give one of {', '.join(TASKS)}, or a `Task` to `register_task`")
    return TASKS[name]


def evaluate_any(model: nn.Module, samples: TestSet, device: str | torch.device = "cpu") -> Any:
    """Tests a model on every test sample once, as their task asks.

    Args:
        model: left on the device in eval mode.
        samples: what is tested on.
        device: where it runs.
    Returns:
        An `Evaluation`, a `DetectionEvaluation` or a `SegmentationEvaluation`.
    """
    return find_task(samples.data.task).evaluate(model, samples, device)


def predict_any(trained: Trained, paths: Sequence[str | Path], shown: Shown | None = None) -> Iterator[str]:
    """What a model finds in files, in a line for each: the likeliest classes of images and recordings, or what is drawn of objects and
    of the classes of pixels, for which folders of images are files too.

    Args:
        trained: the model with what its checkpoint says.
        paths: the files.
        shown: how; by default as `Shown` says.

    Raises:
        ValueError: a file is missing or cannot be read, or the checkpoint does not say how images are prepared.
    """
    return find_task(data_of(trained).task).predict(trained, paths, shown or Shown())


def test_samples(trained: Trained, data: Data) -> TestSet:
    """The test samples of data, for a model that must know their classes.

    Raises:
        ValueError: it is for another task, or for other classes.
    """
    task = find_task(data.task)
    if trained.data is not None and find_task(trained.data.task) is not task:
        raise ValueError(
            f"the checkpoint is for {trained.data.task} and data.name {data.name} for {task.name}; give data of the former"
        )
    samples = TestSet(data)
    if trained.classes not in (None, samples.classes):
        raise ValueError(f"the checkpoint knows the classes {trained.classes}, but the images have {samples.classes}")
    known = trained.model.num_classes - task.classes_beside
    if known != len(samples.classes):
        raise ValueError(f"the model knows {known} classes, but the images have {len(samples.classes)}")
    return samples


test_samples.__test__ = False  # pytest: the name is no test
