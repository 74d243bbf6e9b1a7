"""What the tests of every task share: firing rates, samples that are not finite, lines for the terminal. Needs no Lightning."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..data import Data, TestSet
from ..measure import Tally


class FiringRates:
    """For results that hold what neurons emitted, `tally`."""

    tally: Tally

    @property
    def firing_rates(self) -> dict[str, float]:
        """In [0, 1] by module name: share of a layer's neurons x time steps that emitted something, over all samples."""
        return self.tally.firing_rates

    @property
    def firing_rate(self) -> float:
        """The same of all neurons; 0 of a network without any."""
        return self.tally.firing_rate or 0.0

    def firing_text(self) -> str:
        """The mean in a line for the terminal."""
        return firing_text(self.firing_rate, len(self.firing_rates))


def firing_text(rate: float, layers: int) -> str:
    """A firing rate for the terminal."""
    return f"firing rate  {rate:.4f} over all neurons and time steps, in {layers} layers"


class NotFinite:
    """Counts the test samples that hold numbers that are not finite, or lead to such, and keeps the first names. A spiking network
    may answer NaN with finite logits, since NaN never fires."""

    def __init__(self, samples: TestSet):
        self.samples, self.count, self.names, self.seen = samples, 0, [], 0

    def add(self, finite: Sequence[bool]):
        """The next samples of `test_loader`, in its order."""
        for place in [place for place, fine in enumerate(finite) if not fine]:
            self.count += 1
            if len(self.names) < 3:
                self.names.append(self.samples.where(self.seen + place))
        self.seen += len(finite)

    def text(self) -> str:
        """For people; empty if there were none. Warns if there were some."""
        if not self.count:
            return ""
        text = (
            f"{self.count:,} samples hold or lead to numbers that are not finite (NaN or infinite) and count as wrong: "
            + ", ".join(self.names)
            + ", ..." * (self.count > len(self.names))
        )
        warnings.warn(text, stacklevel=3)
        return text


def not_finite_text(text: str) -> list[str]:
    """A line for the terminal, or none."""
    return [f"not finite   {text}"] if text else []


def must_have_read(samples: int):
    """
    Raises:
        ValueError: a test has come to its end without any sample.
    """
    if not samples:
        raise ValueError("there was no test sample that could be read; check data.root and the other data.* options")


def at_least_float32(x: Tensor) -> Tensor:
    """x [...] for losses and batch statistics, which are never computed in the half precision of AMP."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def best_device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")


def absent_text(names: Sequence[str], what: str) -> list[str]:
    """A line for the terminal that names the classes without `what`, or none."""
    some = ", ".join(names[:5]) + f" and {len(names) - 5} more" * (len(names) > 5)
    return [f"absent       no test image has {what} of {some}; the scores say nothing of them"] if names else []


def percent(value: float | None) -> str:
    """A share for the terminal; "-" if it is nan, or None as summary.json has it."""
    return "-" if value is None or math.isnan(value) else f"{value:.2%}"


def of_all_processes(value: Any) -> list:
    """What each process has, in their order."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def one_by_one(samples: Dataset, data: Data) -> DataLoader:
    """The images [1, C, H, W] of samples of different sizes, without what they show.

    Args:
        samples: pairs (image [C, H, W], target), each with a label.
        data: where they are from.
    """
    return DataLoader(samples, 1, num_workers=data.workers, collate_fn=_only_image)


def _only_image(batch):
    (((image, _), _),) = batch
    return image[None]
