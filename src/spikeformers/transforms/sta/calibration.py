"""What calibration sees, and the thresholds that follow from it."""

import torch
from torch import Tensor

from .neurons import fit_threshold
from .rates import any_call

SAMPLES = 1 << 16  # activations kept of every neuron's site and batch, at least so many of each channel:
SAMPLES_PER_CHANNEL = 256
BATCHES = 8  # of such samples, after which some of all of them are kept
MARGIN = 2**0.25  # other inputs may go beyond the largest that was seen


class Sites:
    """Samples of the values that every neuron has to transmit, and the ranges of functions' inputs.

    A `Run` shows them to its observer, which is one of these.
    """

    def __init__(self):
        self.samples: dict[str, list[Tensor]] = {}
        self.shapes: dict[str, list[int]] = {}  # of thresholds: the sizes of the axes of channels, and 1
        self.extremes: dict[str, Tensor] = {}
        self.ranges: dict[str, float] = {}
        self.generator = torch.Generator().manual_seed(0)

    def function(self, name: str, x: Tensor) -> None:
        """Sees the input x [...] of a function."""
        self.ranges[name] = max(self.ranges.get(name, 0.0), float(x.abs().max()) if x.numel() else 0.0)

    def neuron(self, place: str, x: Tensor, axes: tuple[int, ...] | None) -> None:
        """Sees the values that neurons are to transmit.

        Args:
            place: of the neurons.
            x: the values [...].
            axes: along which channels have a threshold each.

        Raises:
            ValueError: the channels are others than in an earlier batch, or a value is not finite.
        """
        shape = [size if i in (axes or ()) else 1 for i, size in enumerate(x.shape)]
        if self.shapes.setdefault(place, shape) != shape:
            raise ValueError(
                f"{place} has channels {self.shapes[place]} in one calibration batch and {shape} in another; give batches of like inputs"
            )
        rows = x.movedim(axes, tuple(range(-len(axes), 0))) if axes else x[..., None]
        rows = rows.reshape(-1, max(1, torch.Size(shape).numel()))
        if not rows.isfinite().all():
            raise ValueError(f"{place} is infinite or NaN for a calibration sample; a neuron cannot transmit that")
        extremes = torch.stack([rows.amax(0), rows.amin(0)])
        if place in self.extremes:
            before = self.extremes[place]
            extremes = torch.stack([extremes[0].maximum(before[0]), extremes[1].minimum(before[1])])
        self.extremes[place] = extremes
        parts, some = self.samples.setdefault(place, []), self._some(rows)
        parts.append(some)
        if sum(map(len, parts)) > BATCHES * len(some):
            self.samples[place] = [self._some(torch.cat(parts))]

    def settle(self, others: dict[str, list[int]]) -> None:
        """Finds axes and calls that belong to samples, since there are more or fewer of them for another number of samples.

        Samples along such an axis share a threshold, and so do all calls of a function that the network calls once for each sample.

        Args:
            others: the shapes of thresholds for another number of samples, by place.
        """
        looped = {any_call(place) for place in self.shapes.keys() ^ others.keys()} if others else set()
        groups: dict[str, list[str]] = {}
        for place in self.shapes:
            groups.setdefault(any_call(place), []).append(place)
        for name in looped & groups.keys():
            places = groups[name]
            if len({tuple(self.shapes[place]) for place in places}) == 1:
                extremes = torch.stack([self.extremes.pop(place) for place in places])
                self.extremes[name] = torch.stack([extremes[:, 0].amax(0), extremes[:, 1].amin(0)])
                self.samples[name] = [part for place in places for part in self.samples.pop(place)]
                self.shapes[name] = [self.shapes.pop(place) for place in places][0]
        for place, shape in self.shapes.items():
            other = others.get(place, shape)
            counted = (
                [i for i, (a, b) in enumerate(zip(shape, other, strict=False)) if a != b]
                if len(shape) == len(other)
                else []
            )
            if not counted:
                continue
            self.shapes[place] = [1 if i in counted else size for i, size in enumerate(shape)]
            rows = [i + 1 for i in counted]
            parts = [part.view(-1, *shape).movedim(rows, list(range(1, len(rows) + 1))) for part in self.samples[place]]
            self.samples[place] = [part.reshape(-1, torch.Size(self.shapes[place]).numel()) for part in parts]
            largest, smallest = self.extremes[place].view(2, *shape)
            self.extremes[place] = torch.stack([largest.amax(counted).flatten(), smallest.amin(counted).flatten()])

    def _some(self, rows):
        count = max(SAMPLES_PER_CHANNEL, SAMPLES // rows.shape[1])
        return (
            rows
            if len(rows) <= count
            else rows[torch.randint(len(rows), (count,), generator=self.generator).to(rows.device)]
        )

    def thresholds(self, time_steps: int, levels: int) -> dict[str, Tensor]:
        """The best thresholds [..., C, ...] of every place for so many time steps, see `fit_threshold`."""
        return {
            place: fit_threshold(torch.cat([*parts, MARGIN * self.extremes[place]]), time_steps, levels).view(
                self.shapes[place]
            )
            for place, parts in self.samples.items()
        }
