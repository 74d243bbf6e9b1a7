"""Pictures of where the stages of a network fire."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..measure import Batch, record
from .stages import stage_of


class Chosen:
    """The samples whose pictures are shown: of as many classes as there are, then the first ones.

    Args:
        number: how many.
    """

    def __init__(self, number: int):
        self.number = number
        self._of_classes: dict[int, tuple[Batch, int | None]] = {}
        self._others: list[tuple[Batch, int | None]] = []

    def look_at(self, batch: Batch, answer: Tensor | None) -> None:
        """Keeps what is to be shown of a batch; `answer` holds the classes that the network answered [B]."""
        labels = batch.labels
        for place in range(batch.samples):
            label = -1 if labels is None else int(labels[place])
            is_new = label >= 0 and label not in self._of_classes
            if len(self._of_classes) == self.number or (not is_new and len(self._others) == self.number):
                continue
            sample = batch.between(place, place + 1), None if answer is None else int(answer[place])
            if is_new:
                self._of_classes[label] = sample
            else:
                self._others.append(sample)

    @property
    def samples(self) -> list[tuple[Batch, int | None]]:
        """Batches of one sample, each with the network's answer."""
        return [*self._of_classes.values(), *self._others][: self.number]


def maps_of(model: nn.Module, chosen: Chosen, classes: Sequence[str] | None) -> list[dict]:
    """Of each chosen sample the input as a picture, and per stage the mean rate of its neurons.

    Args:
        model: the network, which sees the samples one by one.
        chosen: the samples and their answers.
        classes: names of the classes, or None.
    """
    return [found for sample, answer in chosen.samples for found in _map_of(model, sample, answer, classes)]


def _map_of(model, sample, answer, classes):
    x, labels = sample.x, sample.labels
    if x.ndim not in (4, 5):
        return []
    recorder = record(model, [sample], maps_of=1)
    stages: dict[str, list[Tensor]] = {}
    for name, rates in recorder.maps.items():
        if rates.shape[1:].numel() > 1:
            stages.setdefault(stage_of(model, name), []).append(rates)
    if not stages:
        return []
    rows = []
    for stage, found in stages.items():
        smallest = min(rates.shape[1:] for rates in found)  # the stage's own resolution, behind its downsampling
        mean = torch.stack([rates[0] for rates in found if rates.shape[1:] == smallest]).mean(0)
        rows.append({"name": stage, "rate": float(mean.mean()), "map": mean.numpy()})
    label = _named(None if labels is None else int(labels[0]), classes)
    return [{"label": label or "", "prediction": _named(answer, classes), "input": _pictures(x)[0], "stages": rows}]


def _named(index, classes):
    if index is None or index < 0:
        return None
    return classes[index] if classes and index < len(classes) else str(index)


def _pictures(x: Tensor) -> list[np.ndarray]:
    """Inputs as [H, W, 3] in [0, 1]: images stretched to their range; of events OFF in blue and ON in red on white."""
    frames = x.mean(0) if x.ndim == 5 else x
    pictures = []
    for frame in frames.float().cpu():
        if len(frame) == 2:
            off, on = frame / frame.max().clamp_min(1e-9)
            picture = torch.stack([1 - off, 1 - torch.maximum(off, on), 1 - on])
        else:
            picture = (frame if len(frame) == 3 else frame[:1].expand(3, -1, -1)) - frame.min()
            picture = picture / picture.max().clamp_min(1e-9)
        pictures.append(picture.clamp(0, 1).permute(1, 2, 0).numpy())
    return pictures
