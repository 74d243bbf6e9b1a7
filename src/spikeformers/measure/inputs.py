"""Data in every form in which people hold them, as batches of one form for measuring, converting and calibrating networks."""
# Shapes: T time steps, B batch, C channels, H W pixels.

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.data import Dataset, IterableDataset

from ..models._backbone import SpikingBackbone
from ..models.network import Configured
from .networks import Stepped

FORMS = (
    "a tensor [B, ...] or [T, B, C, H, W], a pair (x, labels), a mapping of the network's arguments, a list, generator or DataLoader of "
    "these, or a data configuration such as ImageData"
)
LABELS = ("labels", "label")


class Configuration(Protocol):
    """A data configuration, as those of `spikeformers.data`, which nothing here imports."""

    def test_batches(self) -> Iterable:
        """The test samples."""
        ...

    def calibration_batches(self) -> Iterable:
        """Some training samples, prepared as in a test."""
        ...


Inputs: TypeAlias = Tensor | tuple | Mapping[str, Any] | Iterable | Configuration
"""What `batches_of` takes, and so every function that measures a network on data."""


@dataclass(frozen=True)
class Batch:
    """Samples as a network takes them: `model(*batch.args, **batch.kwargs)`.

    Attributes:
        args, kwargs: the network's arguments by position and by name, labels excepted.
        targets: what stood in the labels' place; None if nothing did.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    targets: Any = None

    @property
    def x(self) -> Tensor:
        """The network's input, of several tensors the first that is no mask: [B, ...], or [T, B, C, H, W]."""
        x = first_tensor(self.args, self.kwargs)
        assert x is not None, "there is one, or it would be no batch"
        return x

    @property
    def samples(self) -> int:
        """B."""
        return samples_of(self.x)

    @property
    def labels(self) -> Tensor | None:
        """The classes of the samples [B] in int64; None where the targets are no class for each sample (boxes, masks, soft labels).

        Raises:
            ValueError: they are no whole numbers, or not as many as there are samples.
        """
        labels = _vector(self.targets)
        if labels is None:
            return None
        if labels.is_floating_point() or labels.is_complex():
            raise ValueError(
                f"the labels are {labels.dtype}, and classes are whole numbers; convert them with labels.long(), or give the inputs alone "
                "if these are no classes"
            )
        if len(labels) != self.samples:
            raise ValueError(
                f"{len(labels)} labels do not fit {self.samples} samples, the input being {list(self.x.shape)} ([B, ...], or "
                "[T, B, C, H, W] with the time first); give one label for each sample"
            )
        return labels.long()

    def to(self, device: torch.device | str) -> "Batch":
        """The same with its inputs on a device."""
        args, kwargs = tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, (self.args, dict(self.kwargs)))
        return replace(self, args=args, kwargs=kwargs)

    def first(self, count: int) -> "Batch":
        """Its first samples."""
        return self.between(0, count)

    def between(self, start: int, end: int) -> "Batch":
        """Its samples from `start` on, those from `end` on left out."""
        axis, samples = _axis(self.x), self.samples

        def some(x):
            has = isinstance(x, Tensor) and x.ndim > axis and x.shape[axis] == samples
            return x.narrow(axis, start, min(end, samples) - start) if has else x

        args, kwargs = tree_map(some, (self.args, dict(self.kwargs)))
        labels = _vector(self.targets)
        return Batch(args, kwargs, self.targets[start:end] if labels is not None else None)


def batches_of(data: Inputs, model: nn.Module | None = None, *, calibration: bool = False) -> Iterator[Batch]:
    """Batches of data in any of these forms, which everything takes that measures, converts or calibrates a network:

    - a tensor [B, ...], or [T, B, C, H, W] with the time first: one batch;
    - a pair (x, labels) with a vector of whole numbers, one for each sample: one batch. Two tensors of equally many axes are two batches;
    - a mapping of the network's arguments by name, as Hugging Face's are: one batch. `labels` (or `label`) are not handed to the network,
      and names that hold "mask" are masks;
    - a list, generator or DataLoader of these. What stands behind x in a batch is its labels, and no input; what follows is left out. Labels
      that are no class for each sample (boxes, masks, soft labels) count as none. A generator is gone through once;
    - a data configuration (`ImageData`, `EventData` and the like): its test samples.

    Lists of images [C, H, W] of different sizes, as detectors take them, become batches of one image. Batches without samples are left out.

    Args:
        data: any of these forms.
        model: whose inputs they are, if it is known: it says whether a single image is a batch, and which arguments there are.
        calibration: of a data configuration some training samples, prepared as in a test, in place of the test samples.

    Raises:
        ValueError: there is something else in it, or no sample at all.
    """
    empty = True
    for item in _items(data, calibration):
        for batch in _batches(item, model):
            if batch.x.numel():
                empty = False
                yield batch
    if empty:
        raise ValueError(
            f"there are no inputs: {_shown(data)} without samples (a generator serves only once); give {FORMS}"
        )


def first_tensor(args: Sequence, kwargs: Mapping[str, Any]) -> Tensor | None:
    """The first tensor [...] among a network's arguments, masks last."""
    named = sorted(kwargs.items(), key=lambda item: is_mask(item[0]))
    return next((x for x in (*args, *(x for _, x in named)) if isinstance(x, Tensor)), None)


def is_mask(name: str) -> bool:
    """Whether an argument of this name only chooses among inputs."""
    return "mask" in name


def samples_of(x: Tensor) -> int:
    """B of [B, ...] or [T, B, C, H, W]."""
    return x.shape[_axis(x)]


def device_of(model: nn.Module) -> torch.device:
    """Where its parameters lie; the CPU without any."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _axis(x: Tensor) -> int:
    return 1 if x.ndim == 5 else 0


def _items(data, calibration) -> Iterable:
    """Batches in any form."""
    if isinstance(data, (Tensor, Mapping, Batch)) or _is_pair(data):
        return [data]
    if callable(getattr(data, "test_batches", None)) and not isinstance(data, type):
        return data.calibration_batches() if calibration else data.test_batches()
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        raise ValueError(f"{_shown(data)} gives single samples; give batches: DataLoader(dataset, batch_size=64)")
    if isinstance(data, (str, bytes, np.ndarray, nn.Module)) or not isinstance(data, Iterable):
        hint = "; make it a tensor by torch.as_tensor(x)" if isinstance(data, np.ndarray) else ""
        raise ValueError(f"expected inputs, not {_shown(data)}{hint}; give {FORMS}")
    return data


def _is_pair(data) -> bool:
    """Whether it is one batch (x, labels), and not two batches."""
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        return False
    x, y = data
    labels = y is None or _vector(y) is not None
    if isinstance(x, Mapping):
        return labels
    if _images(x) is not None:
        return not isinstance(y, Tensor) and _images(y) is None
    if not isinstance(x, Tensor) or x.ndim < 2:
        return False
    if labels:
        return True
    if isinstance(y, Tensor) and (x.ndim != y.ndim or (x.is_floating_point() and not y.is_floating_point())):
        raise ValueError(
            f"a pair of tensors {list(x.shape)} ({x.dtype}) and {list(y.shape)} ({y.dtype}) is neither (x, labels) nor two batches alike; "
            "give labels as whole numbers [B], such as y.flatten() or y.argmax(1), or a list of one pair, [(x, y)], whose y counts as no "
            "label"
        )
    return False


def _batches(item, model) -> Iterator[Batch]:
    """One batch in any form as a `Batch`, or as one for each image if their sizes differ."""
    if isinstance(item, Batch):
        yield item
        return
    x, targets = (*item, None, None)[:2] if isinstance(item, (tuple, list)) else (item, None)
    images = _images(x) or (_images(item) if _takes_any_size(model) else None)
    if images:
        for image in images:
            yield Batch((image[None],))
        return
    if isinstance(x, Mapping):
        kwargs = {name: value for name, value in x.items() if name not in LABELS}
        named = next((x[name] for name in LABELS if name in x), None)
        batch = Batch((), kwargs, targets if named is None else named)
        _must_be_taken(kwargs, model)
    else:
        batch = Batch((x,), {}, targets)
    shown = f"a mapping of {', '.join(map(str, x)) or 'nothing'}" if isinstance(x, Mapping) else _shown(x)
    if not isinstance(batch.args[0] if batch.args else first_tensor((), batch.kwargs), Tensor):
        hint = "; make it a tensor by torch.as_tensor(x)" if isinstance(x, np.ndarray) else ""
        raise ValueError(f"expected batches of inputs, not {shown}{hint}; give {FORMS}")
    x = batch.x
    if x.ndim < 2:
        raise ValueError(f"an input of shape {list(x.shape)} has no axis for the samples; give one sample as x[None]")
    if x.ndim == 3 and _takes_any_size(model):
        batch = Batch((x[None],))
    elif x.ndim == 3 and _takes_images(model):
        raise ValueError(
            f"an input of shape {list(x.shape)} is one image, and networks take batches [B, C, H, W]; give it as x[None]"
        )
    whole = not x.is_floating_point()
    if whole and isinstance(targets, Tensor) and targets.shape == x.shape and not targets.is_floating_point():
        raise ValueError(
            f"two tensors of whole numbers {list(x.shape)} in a batch may be tokens and their mask, or their labels; give a mapping of the "
            "network's arguments by name, such as {'input_ids': x, 'attention_mask': y}"
        )
    yield batch


def _images(x) -> list[Tensor] | None:
    """Images [C, H, W] in a list; None if it is none."""
    if isinstance(x, (tuple, list)) and x and all(isinstance(image, Tensor) and image.ndim == 3 for image in x):
        return list(x)
    return None


def _vector(y) -> Tensor | None:
    """Labels [B] as a tensor; None of anything else."""
    if isinstance(y, (list, tuple)) and y and all(isinstance(label, Integral) for label in y):
        return torch.tensor([int(label) for label in y])
    if isinstance(y, np.ndarray) and y.ndim == 1 and y.dtype.kind in "biuf":
        return torch.as_tensor(y)
    return y if isinstance(y, Tensor) and y.ndim == 1 else None


def _takes_any_size(model) -> bool:
    return isinstance(model, Configured) and model.any_size


def _inner(model):
    """The network that gets the arguments in the end."""
    while isinstance(model, Stepped):
        model = model.model
    return model


def _takes_images(model) -> bool:
    """Whether a network says that it takes images, as ours and those of timm and Hugging Face do."""
    model = _inner(model)
    if isinstance(model, SpikingBackbone):
        return True
    described = getattr(model, "pretrained_cfg", None)
    size = described.get("input_size") if isinstance(described, Mapping) else None
    return (isinstance(size, Sequence) and len(size) == 3) or getattr(model, "main_input_name", None) == "pixel_values"


def _must_be_taken(kwargs, model) -> None:
    if model is None:
        return
    model = _inner(model)
    parameters = inspect.signature(model.forward).parameters.values()
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    others = [str(name) for name in kwargs if name not in known]
    if others and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        raise ValueError(
            f"a mapping holds the network's arguments by name, and {type(model).__name__} has none called {', '.join(others)}; it takes "
            f"{', '.join(known)} (and labels aside)"
        )


def _shown(data) -> str:
    return "None" if data is None else type(data).__name__
