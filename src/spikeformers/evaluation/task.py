"""Tasks: what a network is asked, how its answers are tested and shown. The other half, how a task is learned, is `training.task.Learning`."""

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..data import Data, TestSet
from ..data.listing import files_in, tell_left_out
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
class Answer:
    """What a model finds in a file.

    Attributes:
        path: of the file.
        text: a line for people, which is its `str`.
        record: the same and more, for JSON; its `file` is the path, and its `error` says why a file was not read.
        rows: for CSV, a dict for each thing that was found.
    """

    path: str
    text: str
    record: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        return self.text

    @property
    def broken(self) -> bool:
        """Whether the file could not be read, or the answer is no finite number."""
        return "error" in self.record


def answers_to(files: Sequence[Path], answer: Callable[[Path], Answer]) -> Iterator[Answer]:
    """One file after the other. Where there are several, one that cannot be read has its place, and does not end the rest.

    Args:
        files: to look at.
        answer: looks at one.

    Raises:
        ValueError: the only file is broken.
    """
    for path in files:
        try:
            yield answer(path)
        except (ValueError, OSError) as error:
            if len(files) == 1:
                raise
            why = " ".join(str(error).split())
            yield Answer(str(path), f"{path}: left out: {why}", {"file": str(path), "error": why})


def files_among(paths: Iterable[str | Path], suffixes: Collection[str], what: str = "image") -> list[Path]:
    """The paths, and in place of a folder the files in it (not in folders below it) whose names end so, by name.

    Args:
        paths: of files and folders.
        suffixes: in small letters.
        what: such files are called, for the message.

    Raises:
        ValueError: a folder without such files.
    """
    files = []
    for path in map(Path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        inside, others = files_in(path, suffixes)
        tell_left_out(path, others, suffixes)
        if not inside:
            raise ValueError(f"there is no {what} in the folder {path}; give {what} files or a folder that holds some")
        files += inside
    return files


@dataclass(frozen=True)
class Task:
    """What everybody but training knows of a task.

    Args:
        name: the `task` of its configurations of data.
        evaluate: tests a model in eval mode on every test sample once, on a device where it is left. The result has `as_text(data)`,
            lines for the terminal in which the data set is named, and what `training.task.Learning.summary` asks of it.
        predict: what the model finds in each of some files, in folders too, once that is drawn if it is a picture.
        batches: of samples for whoever measures a model on them: what it takes, with or without labels.
        classes_beside: so many classes does a model count that the data have no name for, such as the background.
        event_driven: whether `transforms.event_driven` takes its models.
    """

    name: str
    evaluate: Callable[[nn.Module, TestSet, str | torch.device], Any]
    predict: Callable[[Trained, Sequence[str | Path], Shown], Iterator[Answer]]
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


def predict_any(trained: Trained, paths: Sequence[str | Path], shown: Shown | None = None) -> Iterator[Answer]:
    """What a model finds in files, one after the other: the likeliest classes of images and recordings, or what is drawn of objects and
    of the classes of pixels.

    Args:
        trained: the model with what its checkpoint says.
        paths: files, or folders of them.
        shown: how; by default as `Shown` says.

    Raises:
        ValueError: a folder holds no such file, the only file is missing or cannot be read (of several the `Answer` says so), or the
            checkpoint does not say how images are prepared.
    """
    return find_task(data_of(trained).task).predict(trained, paths, shown or Shown())


def test_samples(trained: Trained, data: Data) -> TestSet:
    """The test samples of data, for a model that must know their classes.

    Raises:
        ValueError: it is for another task, or for other classes.
    """
    samples, other = _samples_of(trained, data)
    if other:
        raise ValueError(other)
    return samples


def samples_to_measure(trained: Trained, data: Data) -> TestSet:
    """The test samples of data for whoever measures what a model costs. If it does not know their classes, it is warned that their labels
    are left out.

    Args:
        trained: the model with what its checkpoint says.
        data: the configuration.

    Raises:
        ValueError: the model is for another task.
    """
    samples, other = _samples_of(trained, data)
    if other:
        warnings.warn(f"{other}; accuracy is left out, everything else is measured", stacklevel=2)
        samples.unlabelled = True
    return samples


def _samples_of(trained, data) -> tuple[TestSet, str]:
    """The test samples, and why the model does not know their classes, "" if it does; both must be for one task."""
    task = find_task(data.task)
    if trained.data is not None and find_task(trained.data.task) is not task:
        raise ValueError(
            f"the checkpoint is for {trained.data.task} and data.name {data.name} for {task.name}; give data of the former"
        )
    samples, known = TestSet(data), trained.model.num_classes - task.classes_beside
    if trained.classes not in (None, samples.classes):
        return samples, f"the checkpoint knows the classes {trained.classes}, but the images have {samples.classes}"
    if known != len(samples.classes):
        return samples, f"the model knows {known} classes, but the images have {len(samples.classes)}"
    return samples, ""


test_samples.__test__ = False  # pytest: the name is no test
