"""Pictures of where the stages of a network fire."""

import numpy as np
import torch
from torch import Tensor

from ..measure import Recorder
from .stages import stage_of


def maps_of(model, recorder: Recorder, x: Tensor, labels, answer, classes) -> list[dict]:
    """For the samples whose rates were kept per pixel: the input as a picture, and per stage the mean rate of its neurons.

    Args:
        model: the network.
        recorder: that has followed x.
        x: the first inputs, [B, C, H, W] or [T, B, C, H, W].
        labels: [B], or None.
        answer: the classes that it answered [B], or None.
        classes: their names, or None.
    """
    stages: dict[str, list[Tensor]] = {}
    for name, rates in recorder.maps.items():
        if rates.shape[1:].numel() > 1:
            stages.setdefault(stage_of(model, name), []).append(rates)
    if not stages or x.ndim not in (4, 5):
        return []
    pictures = _pictures(x)

    def named(index):
        if index is None or int(index) < 0:
            return None
        return classes[int(index)] if classes and int(index) < len(classes) else str(int(index))

    result = []
    for sample in range(min(len(pictures), recorder.maps_of)):
        rows = []
        for stage, found in stages.items():
            smallest = min(rates.shape[1:] for rates in found)  # the stage's own resolution, behind its downsampling
            mean = torch.stack([rates[sample] for rates in found if rates.shape[1:] == smallest]).mean(0)
            rows.append({"name": stage, "rate": float(mean.mean()), "map": mean.numpy()})
        label = named(None if labels is None else labels[sample])
        prediction = named(None if answer is None else answer[sample])
        result.append({"label": label or "", "prediction": prediction, "input": pictures[sample], "stages": rows})
    return result


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
