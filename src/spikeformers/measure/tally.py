"""What a network did: emitted, added and multiplied, by place and time step. The words are those of docs/glossary.md."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .constants import Constants

COLUMNS = ("emitted", "thresholds", "places", "synops", "macs", "additions", "functions")
"""At a neuron: values that are not zero, the sum of their absolute values, and how many values there were. At any place: additions in
synapses that spikes cause, multiplications, other additions (biases, sums, averages), and evaluations of real functions."""


def exact(device: torch.device | str) -> torch.dtype:
    """The type for sums: MPS has no float64."""
    return torch.float32 if torch.device(device).type == "mps" else torch.float64


class Tally:
    """Sums over samples. Two of them are added with `+`; processes add theirs up as tensors, see `to_tensor`.

    Attributes:
        rows: by place, the name of a module or operation: [columns, T].
        samples: how many were counted.
    """

    def __init__(self, samples: int = 0):
        self.rows: dict[str, Tensor] = {}
        self.samples = samples

    def add(self, place: str, first_step: int = 0, /, **columns: Sequence[float] | Tensor) -> None:
        """Adds numbers of consecutive time steps, each [steps], by the names of COLUMNS."""
        for name, values in columns.items():
            values = torch.as_tensor(values, dtype=torch.float64)
            row = self._row(place, first_step + len(values))
            row[COLUMNS.index(name), first_step : first_step + len(values)] += values

    def _row(self, place, steps):
        row = self.rows.get(place)
        if row is None or row.shape[1] < steps:
            longer = torch.zeros(len(COLUMNS), steps, dtype=torch.float64)
            if row is not None:
                longer[:, : row.shape[1]] = row
            row = self.rows[place] = longer
        return row

    # results

    @property
    def time_steps(self) -> int:
        return max((row.shape[1] for row in self.rows.values()), default=0)

    def total(self, column: str) -> float:
        """A column's sum over places, steps and samples."""
        index = COLUMNS.index(column)
        return float(sum(row[index].sum() for row in self.rows.values()))

    def per_sample(self, column: str) -> float:
        """A column's sum over places and steps, for a sample."""
        return self.total(column) / max(1, self.samples)

    def per_step(self, column: str) -> list[float]:
        """A column's sum over places at every time step [T], for a sample."""
        index, sums = COLUMNS.index(column), torch.zeros(self.time_steps, dtype=torch.float64)
        for row in self.rows.values():
            sums[: row.shape[1]] += row[index]
        return (sums / max(1, self.samples)).tolist()

    @property
    def neurons(self) -> dict[str, Tensor]:
        """The rows of places that emit."""
        index = COLUMNS.index("places")
        return {name: row for name, row in self.rows.items() if row[index].any()}

    @property
    def firing_rate(self) -> float | None:
        """Share of all neurons x time steps that emitted something; None without neurons."""
        return self._mean("emitted")

    @property
    def thresholds_per_step(self) -> float | None:
        """Thresholds that a neuron emitted in a time step on average, of either sign; of binary spikes the firing rate."""
        return self._mean("thresholds")

    @property
    def firing_rates(self) -> dict[str, float]:
        """By place; see `firing_rate`."""
        emitted, places = (COLUMNS.index(name) for name in ("emitted", "places"))
        return {name: float(row[emitted].sum() / row[places].sum()) for name, row in self.neurons.items()}

    @property
    def firing_rates_per_step(self) -> dict[str, list[float]]:
        """By place at every time step [T]."""
        emitted, places = (COLUMNS.index(name) for name in ("emitted", "places"))
        return {name: (row[emitted] / row[places].clamp_min(1)).tolist() for name, row in self.neurons.items()}

    def so_far(self, column: str, of: str) -> list[float]:
        """After the first 1, 2, ..., T steps: one column's sum divided by another's."""
        sums = [torch.tensor(self.per_step(name), dtype=torch.float64).cumsum(0) for name in (column, of)]
        return (sums[0] / sums[1].clamp_min(1e-300)).tolist()

    def _mean(self, column):
        places = self.total("places")
        return self.total(column) / places if places else None

    def energy(self, constants: Constants | None = None) -> float:
        """mJ of a sample: MACs and functions cost a MAC each, SynOps and other additions an addition (preset `exact`)."""
        macs = self.per_sample("macs") + self.per_sample("functions")
        return (constants or Constants()).energy(macs, self.per_sample("synops") + self.per_sample("additions"))

    # adding up

    def __iadd__(self, other: "Tally") -> "Tally":
        for place, row in other.rows.items():
            mine = self._row(place, row.shape[1])
            mine[:, : row.shape[1]] += row
        self.samples += other.samples
        return self

    def __add__(self, other: "Tally") -> "Tally":
        both = Tally()
        both += self
        both += other
        return both

    merge = __add__

    @property
    def layout(self) -> list[tuple[str, int]]:
        """Places in order of their names, with their time steps: what processes must agree on to add up tensors."""
        return [(place, self.rows[place].shape[1]) for place in sorted(self.rows)]

    def to_tensor(self) -> Tensor:
        """All sums in one vector [1 + columns * steps of every place], in the order of `layout`."""
        parts = [self.rows[place].flatten() for place, _ in self.layout]
        return torch.cat([torch.tensor([self.samples], dtype=torch.float64), *parts])

    @classmethod
    def from_tensor(cls, sums: Tensor, layout: Sequence[tuple[str, int]]) -> "Tally":
        """What `to_tensor` has written."""
        made = cls(round(sums[0].item()))
        parts = sums[1:].cpu().split([len(COLUMNS) * steps for _, steps in layout])
        for (place, steps), part in zip(layout, parts, strict=True):
            made.rows[place] = part.view(len(COLUMNS), steps).clone()
        return made

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = {place: dict(zip(COLUMNS, row.tolist(), strict=True)) for place, row in self.rows.items()}
        return {"samples": self.samples, "rows": rows}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Tally":
        """What `to_dict` has written."""
        made = cls(content["samples"])
        for place, row in content["rows"].items():
            made.rows[place] = torch.tensor([row[name] for name in COLUMNS], dtype=torch.float64)
        return made

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tally) or (self.samples, self.layout) != (other.samples, other.layout):
            return False
        return torch.equal(self.to_tensor(), other.to_tensor())
